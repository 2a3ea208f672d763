"""The graph that is served: text in, text out, with SentencePiece and beam search inside.

Run as a program in a process of its own (`nmt.exporting.savedmodel` does), where GPUs are hidden: Keras picks cuDNN's
LSTM when it traces, and a graph that holds it loads on no machine without a GPU.

N texts of a request, B of them translated at once, S source pieces, T target pieces, EOS counted; n hypotheses a text.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmt.config.schema import ExportConfig
from nmt.data.tokenizer import BOS_ID
from nmt.decoding.beam_search import IMPOSSIBLE
from nmt.decoding.grouping import side_by_side
from nmt.decoding.inference import search, search_options
from nmt.exporting.found import Found, distinct
from nmt.exporting.parts import in_parts, longest, padded, rows_of
from nmt.exporting.reading import Pieces, read, without_blank
from nmt.exporting.weights import StoredWeights
from nmt.model_folder import ModelFolder
from nmt.process import silenced
from nmt.translators.model import Translator

with silenced():
    import tensorflow as tf
    import tensorflow_text
    from keras import ops, tree


class PortableTranslator(tf.Module):
    """A model with its tokenizers as signatures of a SavedModel.

    Every text is answered as if it were alone.

    Args:
        translator: the model, in the precision that the graph is to compute in.
        limits: of a request.
        quantize: of `StoredWeights`.
    """

    def __init__(self, translator: Translator, limits: ExportConfig, quantize: str | None = None):
        super().__init__()
        # Inside plain objects: tf.Module would save all that hangs on a Keras model, where weights are enough.
        self._translator = translator
        self._weights = StoredWeights(translator.model.trainable_variables, quantize)
        self._saved = self._weights.variables
        self._source = tensorflow_text.SentencepieceTokenizer(model=translator.source_tokenizer.model)
        self._target = self._source  # a graph holds each of them twice
        if translator.target_tokenizer.model != translator.source_tokenizer.model:
            self._target = tensorflow_text.SentencepieceTokenizer(model=translator.target_tokenizer.model)
        self._decoding = translator.decoding
        self._limits = limits

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def serving_default(self, text: Any) -> dict[str, Any]:
        """The best translation of each text.

        Args:
            text: string [N], UTF-8; what is not comes to be U+FFFD. A blank text is translated by "", with score 0.

        Returns:
            translation: string [N].
            score: float32 [N], natural-log probability over the length penalty.
            truncated: bool [N].
        """
        with self._weights.in_use():
            source = self._read_source(text)
            found = self._translate(source, num_best=1)
        return {"translation": found.texts[:, 0], "score": found.scores[:, 0], "truncated": source.truncated}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def nbest(self, text: Any) -> dict[str, Any]:
        """The best n translations of each text, with their pieces and what these attended to.

        Returns:
            translations: string [N, n], best first.
            scores, log_probs: float32 [N, n].
            num_hypotheses: int32 [N]; the columns beyond hold "" and -1e9, for JSON knows no infinity.
            source_pieces: string [N, S], "" beyond the EOS.
            target_pieces: string [N, n, T].
            attention: float32 [N, n, T, S]; each target piece's row sums to 1, all else is 0. The largest part of the
                answer by far: ask for a few texts at a time.
            truncated: bool [N].
        """
        with self._weights.in_use():
            source = self._read_source(text)
            found = self._translate(source, num_best=self._limits.nbest)
            attention = self._attention(source, found.ids)
        return {
            "translations": found.texts,
            "scores": found.scores,
            "log_probs": found.log_probs,
            "num_hypotheses": found.counts,
            "source_pieces": _spelling(self._source, source.ids),
            "target_pieces": _spelling(self._target, found.ids),
            "attention": attention,
            "truncated": source.truncated,
        }

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("source", "target")], autograph=False
    )
    def token_log_probs(self, source: Any, target: Any) -> dict[str, Any]:
        """How probable given translations are, piece by piece: to rank, filter or check text that is there.

        Args:
            source, target: string [N]; a blank one is read as its EOS alone.

        Returns:
            target_pieces: string [N, T], "" beyond the EOS.
            piece_log_probs: float32 [N, T], the natural-log probability of each piece after those before it; 0 beyond
                the EOS.
            log_prob: float32 [N], their sum.
            num_pieces: int32 [N], EOS counted.
            truncated: bool [N], whether the end of either text was cut off.
        """
        same = tf.debugging.assert_equal(tf.size(source), tf.size(target), "source and target differ in number")
        with tf.control_dependencies([same]), self._weights.in_use():
            sources = self._read(source, self._source, max_pieces=self._translator.max_source)
            targets = self._read(target, self._target, max_pieces=self._decoding.max_length - 1)
            log_probs = self._piece_log_probs(sources, targets)
        return {
            "target_pieces": _spelling(self._target, targets.ids),
            "piece_log_probs": log_probs,
            "log_prob": tf.reduce_sum(log_probs, axis=1),
            "num_pieces": targets.lengths,
            "truncated": sources.truncated | targets.truncated,
        }

    def _read_source(self, text: Any) -> Pieces:
        return without_blank(self._read(text, self._source, max_pieces=self._translator.max_source), text)

    def _read(self, text: Any, tokenizer: Any, *, max_pieces: int) -> Pieces:
        return read(text, tokenizer, max_characters=self._limits.max_characters, max_pieces=max_pieces)

    def _translate(self, source: Pieces, *, num_best: int) -> Found:
        options = search_options(self._decoding, num_best=num_best)
        num_texts = tf.size(source.lengths)
        num_steps = tf.minimum(2 * tf.shape(source.ids)[1] + 10, self._decoding.max_length)

        def work(rows: Any) -> Found:
            found = search(
                self._translator.model,
                rows_of(source.ids, source.lengths, rows),
                options=options,
                max_length=self._decoding.max_length,
                banned_ids=self._translator.target_tokenizer.never_produced,
                at_once=side_by_side(options.beam_size),
            )
            best = distinct(found, self._target.detokenize, num_best)
            return best._replace(ids=padded(best.ids, [num_steps]))

        only_first = tf.where(tf.range(num_best) == 0, 0.0, IMPOSSIBLE)
        scores = tf.tile(only_first[None], [num_texts, 1])
        blank = Found(
            texts=tf.fill([num_texts, num_best], ""),
            scores=scores,
            log_probs=scores,
            counts=tf.ones([num_texts], tf.int32),
            ids=tf.zeros([num_texts, num_best, num_steps], tf.int32),
        )
        found = self._in_parts(source.lengths, work, blank)
        return found._replace(ids=found.ids[:, :, : longest(_lengths(found.ids))])

    def _attention(self, source: Pieces, target: Any) -> Any:
        """What each target piece attended to, target [N, n, T]: float32 [N, n, T, S]."""
        num_best, num_pieces = self._limits.nbest, tf.shape(target)[2]

        def work(rows: Any) -> tuple:
            ids = tf.gather(target, rows)
            ids = ids[:, :, : longest(_lengths(ids))]
            weights = self._forced(rows_of(source.ids, source.lengths, rows), ids, lambda ids, logits, weights: weights)
            weights = tf.where((ids != 0)[..., None], weights, 0.0)
            return (padded(weights, [num_pieces, tf.shape(source.ids)[1]]),)

        shape = [tf.size(source.lengths), num_best, num_pieces, tf.shape(source.ids)[1]]
        return self._in_parts(source.lengths, work, (tf.zeros(shape),))[0]

    def _piece_log_probs(self, source: Pieces, target: Pieces) -> Any:
        """The log-probability of each target piece: float32 [N, T], 0 where there is none."""

        def seen(ids: Any, logits: Any, weights: Any) -> Any:
            return tf.gather(ops.log_softmax(logits, axis=-1), ids[:, :, None], batch_dims=2)

        def work(rows: Any) -> tuple:
            ids = rows_of(target.ids, target.lengths, rows)
            log_probs = self._forced(rows_of(source.ids, source.lengths, rows), ids[:, None, :], seen)[:, 0, :, 0]
            return (padded(tf.where(ids != 0, log_probs, 0.0), [tf.shape(target.ids)[1]]),)

        lengths = tf.maximum(source.lengths, target.lengths)
        return self._in_parts(lengths, work, (tf.zeros(tf.shape(target.ids)),))[0]

    def _forced(self, source: Any, target: Any, seen: Callable) -> Any:
        """Reads translations [B, n, T] of a source [B, S] once more; they share its memory as the beam does.

        Args:
            seen: what is wanted of a position: takes the ids [B, n] that stand there, the logits [B, n, V] they are
                predicted by and the attention [B, n, S], and returns [B, n, X].

        Returns:
            float32 [B, n, T, X].
        """
        model, num_best = self._translator.model, target.shape[1]
        encoded = model.encoder(source)
        memory = model.decoder.prepare(encoded)
        state = tree.map_structure(lambda x: ops.repeat(x, num_best, axis=1), model.decoder.start(encoded))
        before = tf.concat([tf.fill([tf.shape(target)[0], num_best, 1], BOS_ID), target[:, :, :-1]], axis=2)
        num_pieces = tf.shape(target)[2]

        def advance(position: Any, state: Any, written: Any) -> tuple:
            logits, state, weights = model.decoder.step(before[:, :, position], state, memory)
            here = seen(target[:, :, position], logits, weights)
            return position + 1, state, written.write(position, tf.cast(here, tf.float32))

        written = tf.TensorArray(tf.float32, num_pieces, element_shape=[None, num_best, None])
        _, _, written = tf.while_loop(lambda position, *_: position < num_pieces, advance, (0, state, written))
        return tf.transpose(written.stack(), [1, 2, 0, 3])  # [T, B, n, X] -> [B, n, T, X]

    def _in_parts(self, lengths: Any, work: Callable, answers: Any) -> Any:
        bounds = {"max_batch": self._limits.max_batch, "batch_tokens": self._decoding.batch_tokens}
        return in_parts(lengths, work, answers, **bounds)


def write_graph(
    model: Path,
    folder: Path,
    quantize: str | None = None,
    precision: str = "float32",
    decoding: Mapping[str, Any] | None = None,
) -> None:
    """Writes the SavedModel of a model folder, its weights as `StoredWeights` says.

    With bfloat16 for its arithmetic, weights are bfloat16 without being made so. Settings of `DecodingConfig` may be
    others than the model's own.
    """
    translator = Translator.load(model, precision=precision).with_decoding(**decoding or {})
    limits = ModelFolder.load(model).config.export
    portable = PortableTranslator(translator, limits, quantize)
    signatures = {name: getattr(portable, name) for name in ("serving_default", "nbest", "token_log_probs")}
    with silenced():
        tf.saved_model.save(portable, str(folder), signatures=signatures)


def _lengths(ids: Any) -> Any:
    return tf.reduce_sum(tf.cast(ids != 0, tf.int32), axis=-1)


def _spelling(tokenizer: Any, ids: Any) -> Any:
    """How pieces are written, padding as ""."""
    return tf.where(ids != 0, tokenizer.id_to_string(ids), "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quantize")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--decoding", type=json.loads)
    write_graph(**vars(parser.parse_args()))
