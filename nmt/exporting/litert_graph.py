"""The search of an export for LiteRT: ids in, ids out, in one .tflite file that runs without TensorFlow.

It is traced in a process of its own, as `nmt.exporting.graph` is. It translates one sentence at a time. Then all shapes
of the search except its lengths are static, and the converter needs LiteRT's built-in operations only.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nmt.compilation import without_gradients
from nmt.decoding.inference import search
from nmt.process import silence_stderr
from nmt.translators.litert import MODEL
from nmt.translators.model import ModelTranslator

with silence_stderr():
    import tensorflow as tf


class PortableSearch(tf.Module):
    """Encoder, decoder and beam search of a model in float32."""

    def __init__(self, translator: ModelTranslator):
        super().__init__()
        # tf.Module saves all variables in its attributes, but does not look into plain objects such as a translator. So
        # only `_saved` is saved of the model: the weights, and nothing else that belongs to a Keras model.
        self._translator = translator
        self._saved = [variable.value for variable in translator.model.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.int32, name="ids")], autograph=False)
    def translate(self, ids: Any) -> dict[str, Any]:
        """Returns the best translation of a sentence.

        Args:
            ids: int32 [1, S], at least one source token, and EOS.

        Returns:
            ids: int32 [1, T], target tokens and EOS, unless the length limit cut it off; padded with 0.
            score: float32 [1], by which hypotheses are ranked.
            log_prob: float32 [1], sum of the tokens' log-probabilities (nats), EOS included.
        """
        with without_gradients():
            found = search(
                self._translator.model,
                ids,
                settings=self._translator.settings,
                banned_ids=self._translator.target_tokenizer.banned_ids,
            )
        return {"ids": found.ids[:, 0], "score": found.scores[:, 0], "log_prob": found.log_probs[:, 0]}


def convert(translator: ModelTranslator, *, quantize: str | None = None) -> bytes:
    """Returns the content of a .tflite file.

    Args:
        translator: the model, in float32.
        quantize: int8 stores matrices in int8 with a scale per output, and rounds each input of a product to int8 when
            it is computed; None keeps float32.
    """
    portable = PortableSearch(translator)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([portable.translate.get_concrete_function()], portable)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantize == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", type=json.loads)
    parser.add_argument("--quantize")
    arguments = parser.parse_args()
    translator = ModelTranslator.load(arguments.model, precision="float32")
    translator = translator.with_settings(**arguments.settings["decoding"])
    content = convert(translator, quantize=arguments.quantize)
    (arguments.folder / MODEL).write_bytes(content)
