"""The graph that is served: text in, text out, with SentencePiece and beam search inside.

Run as a program in a process of its own (`nmt.exporting.savedmodel` does), where GPUs are hidden: Keras picks cuDNN's
LSTM when it traces, and a graph that holds it loads on no machine without a GPU.

N texts of a request, B of them translated at once, S source pieces, T target pieces, EOS counted; n hypotheses a text.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import ops, tree
from nmt.config.schema import ExportConfig
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import IMPOSSIBLE, Hypotheses
from nmt.decoding.inference import search
from nmt.exporting.weights import StoredWeights
from nmt.model_folder import ModelFolder
from nmt.process import silence_stderr
from nmt.translators.model import ModelTranslator

with silence_stderr():
    import tensorflow as tf
    import tensorflow_text


# Python's idea of blank, which is wider than RE2's \s.
BLANK = "[" + "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isspace()) + "]*"


class Tokens(NamedTuple):
    """Texts in pieces."""

    ids: Any
    """int32 [N, L], each row ended by EOS and padded with 0."""
    lengths: Any
    """int32 [N], EOS counted."""
    truncated: Any
    """bool [N], whether the end of the text was cut off."""


def tokenize(text: Any, tokenizer: Any, *, max_characters: int, max_tokens: int) -> Tokens:
    """Divides texts into pieces.

    Args:
        text: string [N]; bytes that are no UTF-8 come to be U+FFFD.
        tokenizer: tensorflow-text's.
        max_characters: read of each; the rest is cut off.
        max_tokens: kept of each, EOS not counted; the rest is cut off.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    start = tf.strings.substr(text, 0, max_characters, unit="UTF8_CHAR")
    pieces = tokenizer.tokenize(start)
    kept = pieces[:, :max_tokens]
    cut = (tf.strings.length(text) > tf.strings.length(start)) | (pieces.row_lengths() > kept.row_lengths())
    lengths = tf.cast(kept.row_lengths(), tf.int32) + 1
    ends = tf.fill([tf.size(text), 1], EOS_ID)
    # Of a stated width, or a request without a text would fail.
    ids = tf.concat([kept, ends], axis=1).to_tensor(shape=[None, max_tokens + 1])
    return Tokens(ids[:, : longest_of(lengths)], lengths, cut)


def drop_blank(pieces: Tokens, text: Any) -> Tokens:
    """Takes out texts of white space alone, which come to be of length 0, and not truncated."""
    blank = tf.strings.regex_full_match(text, BLANK)
    lengths = tf.where(blank | tf.equal(pieces.lengths, 1), 0, pieces.lengths)
    ids = tf.where(tf.equal(lengths, 0)[:, None], 0, pieces.ids)
    return Tokens(ids[:, : longest_of(lengths)], lengths, pieces.truncated & ~blank)


# Texts up to so many pieces are taken together; longer ones with those up to twice as long as the shortest.
SHORT_TEXT = 32


def map_in_batches(lengths: Any, work: Callable, answers: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """Puts what `work(rows)` returns into those rows of `answers`, part by part, but for rows of length 0.

    Args:
        lengths: int32 [N], in pieces.
        work: takes int32 [B], the numbers of the rows, and returns a nest of tensors [B, ...].
        answers: such a nest [N, ...].
        max_batch, batch_tokens: of `count_next_batch`.
    """
    order = tf.argsort(lengths, stable=True)
    sorted_lengths = tf.gather(lengths, order)

    def advance(start: Any, answers: Any) -> tuple:
        size = count_next_batch(sorted_lengths[start:], max_batch=max_batch, batch_tokens=batch_tokens)
        rows = order[start : start + size]
        parts = zip(tree.flatten(answers), tree.flatten(work(rows)), strict=True)
        after = [tf.tensor_scatter_nd_update(whole, rows[:, None], part) for whole, part in parts]
        return start + tf.size(rows), tree.pack_sequence_as(answers, after)

    num_empty = tf.reduce_sum(tf.cast(tf.equal(lengths, 0), tf.int32))
    # One part at a time, or memory is not bounded.
    return tf.while_loop(lambda start, _: start < tf.size(order), advance, (num_empty, answers), parallel_iterations=1)[
        1
    ]


def count_next_batch(lengths: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """How many of the next texts are taken together.

    Args:
        lengths: int32 [at least 1], ascending, in pieces.
        max_batch: most texts.
        batch_tokens: most pieces, padding counted, unless one text alone has more.
    """
    lengths = lengths[:max_batch]
    alike = lengths <= tf.maximum(SHORT_TEXT, 2 * lengths[0])
    fits = (tf.range(tf.size(lengths)) + 1) * lengths <= batch_tokens
    return tf.maximum(1, tf.reduce_sum(tf.cast(alike & fits, tf.int32)))


def gather_trimmed(ids: Any, lengths: Any, rows: Any) -> Any:
    """Takes rows [B] of ids [N, L], without the columns that only other rows need."""
    return tf.gather(ids, rows)[:, : longest_of(tf.gather(lengths, rows))]


def longest_of(lengths: Any) -> Any:
    """The largest of any lengths; 0 of none."""
    return tf.reduce_max(tf.concat([[0], tf.reshape(lengths, [-1])], axis=0))


def pad_to(x: Any, sizes: list) -> Any:
    """Fills the last axes of x up with zeros to these sizes."""
    num_others = len(x.shape) - len(sizes)
    after = tf.concat([tf.zeros([num_others], tf.int32), tf.stack(sizes) - tf.shape(x)[num_others:]], axis=0)
    return tf.pad(x, tf.stack([tf.zeros_like(after), after], axis=1))


class NBest(NamedTuple):
    """The best hypotheses of each text, no two of them with the same text."""

    texts: Any
    """string [N, n]; "" beyond the hypotheses there are."""
    scores: Any
    """float32 [N, n], log_probs over the length penalty; -1e9 beyond the hypotheses there are."""
    log_probs: Any
    """float32 [N, n]."""
    counts: Any
    """int32 [N], how many hypotheses there are, at least one."""
    ids: Any
    """int32 [N, n, T], each ended by EOS, unless the length limit cut it off, and padded with 0."""


def drop_duplicates(found: Hypotheses, detokenize: Callable, n_best: int) -> NBest:
    """The first hypotheses with different texts: several segmentations may spell one.

    Args:
        found: K slots a sentence, best first.
        detokenize: ragged ids to strings.
        n_best: at most K.
    """
    beam_size, num_steps = found.ids.shape[1], tf.shape(found.ids)[2]
    ids = tf.where(tf.sequence_mask(found.lengths, num_steps), found.ids, 0)
    rows = tf.RaggedTensor.from_tensor(tf.reshape(ids, [-1, num_steps]), tf.reshape(found.lengths, [-1]))
    texts = tf.reshape(detokenize(rows), [-1, beam_size])
    # Fewer hypotheses exist than slots where the vocabulary or the length limit is tiny.
    exists = found.log_probs > IMPOSSIBLE / 2
    same = tf.equal(texts[:, :, None], texts[:, None, :]) & exists[:, None, :]
    better = np.tri(beam_size, k=-1, dtype=bool)
    is_new = exists & ~tf.reduce_any(same & better, axis=2)
    places = tf.argsort(tf.cast(~is_new, tf.int32), axis=1, stable=True)[:, :n_best]
    texts, scores, log_probs, ids, is_new = (
        tf.gather(x, places, batch_dims=1) for x in (texts, found.scores, found.log_probs, ids, is_new)
    )
    return NBest(
        tf.where(is_new, texts, ""),
        tf.where(is_new, scores, IMPOSSIBLE),
        tf.where(is_new, log_probs, IMPOSSIBLE),
        tf.reduce_sum(tf.cast(is_new, tf.int32), axis=1),
        tf.where(is_new[:, :, None], ids, 0),
    )


class PortableTranslator(tf.Module):
    """A model with its tokenizers as signatures of a SavedModel.

    Every text is answered as if it were alone.

    Args:
        translator: the model, in the precision that the graph is to compute in.
        limits: of a request.
        quantize: of `StoredWeights`.
    """

    def __init__(self, translator: ModelTranslator, limits: ExportConfig, quantize: str | None = None):
        super().__init__()
        # Inside plain objects: tf.Module would save all that hangs on a Keras model, where weights are enough.
        self._translator = translator
        self._weights = StoredWeights(translator.model.trainable_variables, quantize)
        self._saved = self._weights.variables
        self._source = tensorflow_text.SentencepieceTokenizer(model=translator.source_tokenizer.model)
        self._target = self._source  # a graph holds each of them twice
        if translator.target_tokenizer.model != translator.source_tokenizer.model:
            self._target = tensorflow_text.SentencepieceTokenizer(model=translator.target_tokenizer.model)
        self._decoding = translator.settings
        self._limits = limits

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def serving_default(self, text: Any) -> dict[str, Any]:
        """The best translation of each text.

        Args:
            text: string [N], UTF-8; what is not comes to be U+FFFD. A blank text is translated by "", with score 0.

        Returns:
            translation: string [N].
            score: float32 [N], by which hypotheses are ranked.
            log_prob: float32 [N], sum of the tokens' log-probabilities, EOS included.
            truncated: bool [N].
        """
        with self._weights.use():
            source = self._read_source(text)
            found = self._translate(source, n_best=1)
        return {
            "translation": found.texts[:, 0],
            "score": found.scores[:, 0],
            "log_prob": found.log_probs[:, 0],
            "truncated": source.truncated,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def nbest(self, text: Any) -> dict[str, Any]:
        """The best n translations of each text, with their pieces and what these attended to.

        Returns:
            translations: string [N, n], best first.
            scores, log_probs: float32 [N, n].
            num_hypotheses: int32 [N]; the columns beyond hold "" and -1e9, for JSON knows no infinity.
            source_tokens: string [N, S], "" beyond the EOS.
            target_tokens: string [N, n, T].
            attention: float32 [N, n, T, S]; each target piece's row sums to 1, all else is 0. The largest part of the
                answer by far: ask for a few texts at a time.
            truncated: bool [N].
        """
        with self._weights.use():
            source = self._read_source(text)
            found = self._translate(source, n_best=self._limits.nbest)
            attention = self._attention(source, found.ids)
        return {
            "translations": found.texts,
            "scores": found.scores,
            "log_probs": found.log_probs,
            "num_hypotheses": found.counts,
            "source_tokens": _spell(self._source, source.ids),
            "target_tokens": _spell(self._target, found.ids),
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
            target_tokens: string [N, T], "" beyond the EOS.
            token_log_probs: float32 [N, T], the natural-log probability of each piece after those before it; 0 beyond
                the EOS.
            log_prob: float32 [N], their sum.
            num_tokens: int32 [N], EOS counted.
            truncated: bool [N], whether the end of either text was cut off.
        """
        same = tf.debugging.assert_equal(tf.size(source), tf.size(target), "source and target differ in number")
        with tf.control_dependencies([same]), self._weights.use():
            sources = self._read(source, self._source, max_tokens=self._translator.max_source)
            targets = self._read(target, self._target, max_tokens=self._decoding.max_length - 1)
            log_probs = self._token_log_probs(sources, targets)
        return {
            "target_tokens": _spell(self._target, targets.ids),
            "token_log_probs": log_probs,
            "log_prob": tf.reduce_sum(log_probs, axis=1),
            "num_tokens": targets.lengths,
            "truncated": sources.truncated | targets.truncated,
        }

    def _read_source(self, text: Any) -> Tokens:
        return drop_blank(self._read(text, self._source, max_tokens=self._translator.max_source), text)

    def _read(self, text: Any, tokenizer: Any, *, max_tokens: int) -> Tokens:
        return tokenize(text, tokenizer, max_characters=self._limits.max_characters, max_tokens=max_tokens)

    def _translate(self, source: Tokens, *, n_best: int) -> NBest:
        num_texts = tf.size(source.lengths)
        num_steps = tf.minimum(2 * tf.shape(source.ids)[1] + 10, self._decoding.max_length)

        def work(rows: Any) -> NBest:
            found = search(
                self._translator.model,
                gather_trimmed(source.ids, source.lengths, rows),
                settings=self._decoding,
                n_best=n_best,
                banned_ids=self._translator.target_tokenizer.banned_ids,
                refill=True,
            )
            best = drop_duplicates(found, self._target.detokenize, n_best)
            return best._replace(ids=pad_to(best.ids, [num_steps]))

        only_first = tf.where(tf.range(n_best) == 0, 0.0, IMPOSSIBLE)
        scores = tf.tile(only_first[None], [num_texts, 1])
        blank = NBest(
            texts=tf.fill([num_texts, n_best], ""),
            scores=scores,
            log_probs=scores,
            counts=tf.ones([num_texts], tf.int32),
            ids=tf.zeros([num_texts, n_best, num_steps], tf.int32),
        )
        found = self._map_in_batches(source.lengths, work, blank)
        return found._replace(ids=found.ids[:, :, : longest_of(_count_tokens(found.ids))])

    def _attention(self, source: Tokens, target: Any) -> Any:
        """What each target piece attended to, target [N, n, T]: float32 [N, n, T, S]."""
        n_best, num_tokens = self._limits.nbest, tf.shape(target)[2]

        def work(rows: Any) -> tuple:
            ids = tf.gather(target, rows)
            ids = ids[:, :, : longest_of(_count_tokens(ids))]
            weights = self._read_forced(
                gather_trimmed(source.ids, source.lengths, rows), ids, lambda ids, logits, weights: weights
            )
            weights = tf.where((ids != 0)[..., None], weights, 0.0)
            return (pad_to(weights, [num_tokens, tf.shape(source.ids)[1]]),)

        shape = [tf.size(source.lengths), n_best, num_tokens, tf.shape(source.ids)[1]]
        return self._map_in_batches(source.lengths, work, (tf.zeros(shape),))[0]

    def _token_log_probs(self, source: Tokens, target: Tokens) -> Any:
        """The log-probability of each target piece: float32 [N, T], 0 where there is none."""

        def seen(ids: Any, logits: Any, weights: Any) -> Any:
            return tf.gather(ops.log_softmax(logits, axis=-1), ids[:, :, None], batch_dims=2)

        def work(rows: Any) -> tuple:
            ids = gather_trimmed(target.ids, target.lengths, rows)
            log_probs = self._read_forced(gather_trimmed(source.ids, source.lengths, rows), ids[:, None, :], seen)[
                :, 0, :, 0
            ]
            return (pad_to(tf.where(ids != 0, log_probs, 0.0), [tf.shape(target.ids)[1]]),)

        lengths = tf.maximum(source.lengths, target.lengths)
        return self._map_in_batches(lengths, work, (tf.zeros(tf.shape(target.ids)),))[0]

    def _read_forced(self, source: Any, target: Any, seen: Callable) -> Any:
        """Reads translations [B, n, T] of a source [B, S] once more; they share its memory as the beam does.

        Args:
            seen: what is wanted of a position: takes the ids [B, n] that stand there, the logits [B, n, V] they are
                predicted by and the attention [B, n, S], and returns [B, n, X].

        Returns:
            float32 [B, n, T, X].
        """
        model, n_best = self._translator.model, target.shape[1]
        encoded = model.encoder(source)
        memory = model.decoder.project_memory(encoded)
        state = tree.map_structure(lambda x: ops.repeat(x, n_best, axis=1), model.decoder.get_initial_state(encoded))
        before = tf.concat([tf.fill([tf.shape(target)[0], n_best, 1], BOS_ID), target[:, :, :-1]], axis=2)
        num_tokens = tf.shape(target)[2]

        def advance(position: Any, state: Any, written: Any) -> tuple:
            logits, state, weights = model.decoder.step(before[:, :, position], state, memory)
            here = seen(target[:, :, position], logits, weights)
            return position + 1, state, written.write(position, tf.cast(here, tf.float32))

        written = tf.TensorArray(tf.float32, num_tokens, element_shape=[None, n_best, None])
        _, _, written = tf.while_loop(lambda position, *_: position < num_tokens, advance, (0, state, written))
        return tf.transpose(written.stack(), [1, 2, 0, 3])  # [T, B, n, X] -> [B, n, T, X]

    def _map_in_batches(self, lengths: Any, work: Callable, answers: Any) -> Any:
        bounds = {"max_batch": self._limits.max_batch, "batch_tokens": self._decoding.batch_tokens}
        return map_in_batches(lengths, work, answers, **bounds)


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
    translator = ModelTranslator.load(model, precision=precision).with_settings(**decoding or {})
    limits = ModelFolder.load(model).config.export
    portable = PortableTranslator(translator, limits, quantize)
    signatures = {name: getattr(portable, name) for name in ("serving_default", "nbest", "token_log_probs")}
    with silence_stderr():
        tf.saved_model.save(portable, str(folder), signatures=signatures)


def _count_tokens(ids: Any) -> Any:
    return tf.reduce_sum(tf.cast(ids != 0, tf.int32), axis=-1)


def _spell(tokenizer: Any, ids: Any) -> Any:
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
