"""The graph that is served: text in, text out, with SentencePiece and beam search inside.

Run as a program in a process of its own (`nmt.serving.export` does), where GPUs are hidden: Keras picks cuDNN's LSTM
when it traces, and a graph that holds it loads on no machine without a GPU.

N texts of a request, B of them translated at once, S source pieces, T target pieces, EOS counted; n hypotheses a text.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.config import ExportConfig
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import IMPOSSIBLE, Hypotheses, SearchOptions
from nmt.decoding.inference import search
from nmt.decoding.translator import Translator
from nmt.model_folder import ModelFolder
from nmt.process import silenced

with silenced():
    import tensorflow as tf
    import tensorflow_text
    from keras import ops, tree

# Python's idea of blank, which is wider than RE2's \s.
BLANK = "[" + "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isspace()) + "]*"
# Texts up to so many pieces are translated together; longer ones with those up to twice as long as the shortest.
SHORT = 32


class Source(NamedTuple):
    """A request as the model reads it."""

    ids: Any
    """int32 [N, S], each row ended by EOS and padded with 0."""
    lengths: Any
    """int32 [N], EOS counted; 0 where the text is blank."""
    truncated: Any
    """bool [N], whether the end of the text was cut off."""


class Found(NamedTuple):
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


class PortableTranslator(tf.Module):
    """A model with its tokenizers as signatures of a SavedModel.

    A request is worked off in parts of texts of like length, so that memory is bounded and a long text holds nobody up.
    Every text is translated as if it were alone.
    """

    def __init__(self, translator: Translator, limits: ExportConfig):
        super().__init__()
        # Inside a plain object: tf.Module would save all that hangs on a Keras model, where weights are enough.
        self._translator = translator
        self._weights = [variable.value for variable in translator.model.trainable_variables]
        self._source = tensorflow_text.SentencepieceTokenizer(model=translator.source_tokenizer.model)
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
        source = self._read(text)
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
        source = self._read(text)
        found = self._translate(source, num_best=self._limits.nbest)
        return {
            "translations": found.texts,
            "scores": found.scores,
            "log_probs": found.log_probs,
            "num_hypotheses": found.counts,
            "source_pieces": _pieces(self._source, source.ids),
            "target_pieces": _pieces(self._target, found.ids),
            "attention": self._attention(source, found.ids),
            "truncated": source.truncated,
        }

    def _read(self, text: Any) -> Source:
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
        start = tf.strings.substr(text, 0, self._limits.max_characters, unit="UTF8_CHAR")
        pieces = self._source.tokenize(start)
        kept = pieces[:, : self._translator.max_source]
        blank = tf.strings.regex_full_match(text, BLANK)
        cut = (tf.strings.length(text) > tf.strings.length(start)) | (pieces.row_lengths() > kept.row_lengths())
        num_pieces = tf.cast(kept.row_lengths(), tf.int32)
        lengths = tf.where(blank | tf.equal(num_pieces, 0), 0, num_pieces + 1)
        ends = tf.fill([tf.size(text), 1], EOS_ID)
        ids = tf.concat([kept, ends], axis=1).to_tensor(shape=[None, self._translator.max_source + 1])
        ids = tf.where(tf.equal(lengths, 0)[:, None], 0, ids)
        return Source(ids[:, : _longest(lengths)], lengths, cut & ~blank)

    def _translate(self, source: Source, *, num_best: int) -> Found:
        options = SearchOptions(
            beam_size=self._decoding.beam_size,
            length_penalty=self._decoding.length_penalty,
            min_length=self._decoding.min_length,
            # Two hypotheses may spell one text; what then moves up must have ended as well.
            num_results=1 if num_best == 1 else self._decoding.beam_size,
        )
        num_texts = tf.size(source.lengths)
        num_steps = tf.minimum(2 * tf.shape(source.ids)[1] + 10, self._decoding.max_length)

        def work(rows: Any) -> Found:
            found = search(
                self._translator.model,
                _rows_of(source.ids, source.lengths, rows),
                options=options,
                max_length=self._decoding.max_length,
                banned_ids=self._translator.target_tokenizer.never_produced,
                drop_rows=True,
            )
            best = distinct(found, self._target.detokenize, num_best)
            return best._replace(ids=_padded(best.ids, [num_steps]))

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
        return found._replace(ids=found.ids[:, :, : _longest(_lengths(found.ids))])

    def _attention(self, source: Source, target: Any) -> Any:
        """What each target piece attended to, target [N, n, T]: float32 [N, n, T, S]."""
        num_best = self._limits.nbest
        num_pieces = tf.shape(target)[2]

        def work(rows: Any) -> tuple:
            ids = tf.gather(target, rows)
            ids = ids[:, :, : _longest(_lengths(ids))]
            weights = self._forced(_rows_of(source.ids, source.lengths, rows), ids)
            weights = tf.where((ids != 0)[..., None], weights, 0.0)
            return (_padded(weights, [num_pieces, tf.shape(source.ids)[1]]),)

        shape = [tf.size(source.lengths), num_best, num_pieces, tf.shape(source.ids)[1]]
        return self._in_parts(source.lengths, work, (tf.zeros(shape),))[0]

    def _forced(self, source: Any, target: Any) -> Any:
        """Reads translations [B, n, T] of a source [B, S] once more; they share its memory as the beam does."""
        model, num_best = self._translator.model, target.shape[1]
        encoded = model.encoder(source)
        memory = model.decoder.prepare(encoded)
        state = tree.map_structure(lambda x: ops.repeat(x, num_best, axis=1), model.decoder.start(encoded))
        before = tf.concat([tf.fill([tf.shape(target)[0], num_best, 1], BOS_ID), target[:, :, :-1]], axis=2)
        num_pieces = tf.shape(target)[2]

        def advance(position: Any, state: Any, written: Any) -> tuple:
            _, state, weights = model.decoder.step(before[:, :, position], state, memory)
            return position + 1, state, written.write(position, tf.cast(weights, tf.float32))

        written = tf.TensorArray(tf.float32, num_pieces, element_shape=[None, num_best, None])
        _, _, written = tf.while_loop(lambda position, *_: position < num_pieces, advance, (0, state, written))
        return tf.transpose(written.stack(), [1, 2, 0, 3])  # [T, B, n, S] -> [B, n, T, S]

    def _in_parts(self, lengths: Any, work: Callable, answers: Any) -> Any:
        """Puts what `work(rows)` returns into those rows of `answers`, part by part, but for rows of length 0."""
        order = tf.argsort(lengths, stable=True)
        sorted_lengths = tf.gather(lengths, order)

        def advance(start: Any, answers: Any) -> tuple:
            size = part_size(
                sorted_lengths[start:], max_batch=self._limits.max_batch, batch_tokens=self._decoding.batch_tokens
            )
            rows = order[start : start + size]
            parts = zip(tree.flatten(answers), tree.flatten(work(rows)), strict=True)
            after = [tf.tensor_scatter_nd_update(whole, rows[:, None], part) for whole, part in parts]
            return start + tf.size(rows), tree.pack_sequence_as(answers, after)

        num_blank = tf.reduce_sum(tf.cast(tf.equal(lengths, 0), tf.int32))
        # One part at a time, or memory is not bounded.
        return tf.while_loop(
            lambda start, _: start < tf.size(order), advance, (num_blank, answers), parallel_iterations=1
        )[1]


def distinct(found: Hypotheses, detokenize: Callable, num_best: int) -> Found:
    """The first hypotheses with different texts: several segmentations may spell one.

    Args:
        found: K slots a sentence, best first.
        detokenize: ragged ids to strings.
        num_best: at most K.
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
    places = tf.argsort(tf.cast(~is_new, tf.int32), axis=1, stable=True)[:, :num_best]
    texts, scores, log_probs, ids, is_new = (
        tf.gather(x, places, batch_dims=1) for x in (texts, found.scores, found.log_probs, ids, is_new)
    )
    return Found(
        tf.where(is_new, texts, ""),
        tf.where(is_new, scores, IMPOSSIBLE),
        tf.where(is_new, log_probs, IMPOSSIBLE),
        tf.reduce_sum(tf.cast(is_new, tf.int32), axis=1),
        tf.where(is_new[:, :, None], ids, 0),
    )


def part_size(lengths: Any, *, max_batch: int, batch_tokens: int) -> Any:
    """How many of the next texts are translated together.

    Args:
        lengths: int32 [at least 1], ascending, in pieces.
        max_batch: most texts.
        batch_tokens: most pieces, padding counted, unless one text alone has more.
    """
    lengths = lengths[:max_batch]
    alike = lengths <= tf.maximum(SHORT, 2 * lengths[0])
    fits = (tf.range(tf.size(lengths)) + 1) * lengths <= batch_tokens
    return tf.maximum(1, tf.reduce_sum(tf.cast(alike & fits, tf.int32)))


def write_graph(model: Path, folder: Path) -> None:
    """Writes the SavedModel of a model folder."""
    portable = PortableTranslator(Translator.load(model, precision="float32"), ModelFolder.load(model).config.export)
    signatures = {"serving_default": portable.serving_default, "nbest": portable.nbest}
    with silenced():
        tf.saved_model.save(portable, str(folder), signatures=signatures)


def _rows_of(ids: Any, lengths: Any, rows: Any) -> Any:
    return tf.gather(ids, rows)[:, : _longest(tf.gather(lengths, rows))]


def _longest(lengths: Any) -> Any:
    return tf.reduce_max(tf.concat([[0], tf.reshape(lengths, [-1])], axis=0))


def _lengths(ids: Any) -> Any:
    return tf.reduce_sum(tf.cast(ids != 0, tf.int32), axis=-1)


def _pieces(tokenizer: Any, ids: Any) -> Any:
    """How pieces are written, padding as ""."""
    return tf.where(ids != 0, tokenizer.id_to_string(ids), "")


def _padded(x: Any, sizes: list) -> Any:
    """Fills the last axes of x up with zeros to these sizes."""
    num_others = len(x.shape) - len(sizes)
    after = tf.concat([tf.zeros([num_others], tf.int32), tf.stack(sizes) - tf.shape(x)[num_others:]], axis=0)
    return tf.pad(x, tf.stack([tf.zeros_like(after), after], axis=1))


if __name__ == "__main__":
    write_graph(Path(sys.argv[1]), Path(sys.argv[2]))
