"""A search that LiteRT runs, without TensorFlow: ids in, ids out, in one .tflite file.

Run as a program in a process of its own, as `nmt.exporting.graph` is. One sentence at a time: then all shapes of the
search but its lengths are known, and it consists of LiteRT's own operations, TensorFlow's not among them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

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
        # Inside a plain object: tf.Module would save all that hangs on a Keras model, where weights are enough.
        self._translator = translator
        self._saved = [variable.value for variable in translator.model.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.int32, name="ids")], autograph=False)
    def translate(self, ids: Any) -> dict[str, Any]:
        """Finds the best translation of a sentence.

        Args:
            ids: int32 [1, S], source pieces, at least one, and EOS.

        Returns:
            ids: int32 [1, T], target pieces and EOS, unless the length limit cut it off, padded with 0.
            score: float32 [1], by which hypotheses are ranked.
            log_prob: float32 [1], sum of the tokens' log-probabilities, EOS included.
        """
        found = search(
            self._translator.model,
            ids,
            settings=self._translator.settings,
            banned_ids=self._translator.target_tokenizer.banned_ids,
        )
        return {"ids": found.ids[:, 0], "score": found.scores[:, 0], "log_prob": found.log_probs[:, 0]}


def convert(translator: ModelTranslator, *, quantize: str | None = None) -> bytes:
    """Returns what a .tflite file holds.

    Args:
        translator: the model, in float32.
        quantize: int8 stores matrices so, with a scale for each output, and multiplies inputs that are rounded to int8
            as they come; None keeps float32.
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
    parser.add_argument("--quantize")
    parser.add_argument("--decoding", type=json.loads, default={})
    arguments = parser.parse_args()
    translator = ModelTranslator.load(arguments.model, precision="float32").with_settings(**arguments.decoding)
    content = convert(translator, quantize=arguments.quantize)
    (arguments.folder / MODEL).write_bytes(content)
