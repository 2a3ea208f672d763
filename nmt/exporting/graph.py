"""The graph of an export: text in, text out, with SentencePiece and beam search inside.

It is traced in a process of its own (see `nmt.exporting.job`) in which GPUs are hidden. With a GPU, Keras would choose
cuDNN's LSTM while it traces, and a graph that contains cuDNN loads on machines with a GPU only.

Shapes: N texts of a request, of which B are translated at once; S source tokens and T target tokens, EOS included; n
hypotheses per text.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmt.backend import ops, tree
from nmt.compilation import without_gradients
from nmt.config.schema import ExportConfig, SearchSettings
from nmt.data.tokenizer import BOS_ID
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.inference import limit_lengths, make_plain, needs_own_best, search
from nmt.decoding.prefix import Prefixes
from nmt.decoding.spelling import MAX_PHRASE_TOKENS, Spellings
from nmt.exporting.batches import (
    Tokens,
    drop_blank,
    find_continuations,
    gather_trimmed,
    get_longest,
    map_in_batches,
    pad_to,
    tokenize,
)
from nmt.exporting.confidence import estimate_confidence
from nmt.exporting.demands import SplitPrefixes, encode_phrases, rank_alternatives, split_prefixes
from nmt.exporting.hypotheses import (
    NBest,
    count_tokens,
    drop_duplicates,
    find_finished,
    make_blank,
    measure_coverage,
    put_first,
)
from nmt.exporting.weights import StoredWeights
from nmt.models.decoder import shift_right
from nmt.models.direction import reverse_targets
from nmt.process import silence_stderr
from nmt.translators.demands import MAX_ALTERNATIVES
from nmt.translators.model import ModelTranslator

with silence_stderr():
    import tensorflow as tf
    import tensorflow_text


class PortableTranslator(tf.Module):
    """A model and its tokenizers, with the signatures of a SavedModel as methods.

    The result for a text does not depend on the other texts of a request.

    Args:
        translator: the model, in the precision in which the graph computes.
        limits: of a request.
        quantize: see `StoredWeights`.
    """

    def __init__(self, translator: ModelTranslator, limits: ExportConfig, quantize: str | None = None):
        super().__init__()
        # tf.Module saves all variables in its attributes, but does not look into plain objects such as these two. So
        # only `_saved` is saved of the model: the weights, and nothing else that belongs to a Keras model.
        self._translator = translator
        self._weights = StoredWeights(translator.model.trainable_variables, quantize)
        self._saved = self._weights.variables
        self._source = tensorflow_text.SentencepieceTokenizer(model=translator.source_tokenizer.model)
        self._target = self._source  # the graph stores each tokenizer twice, so share it if possible
        if translator.target_tokenizer.model != translator.source_tokenizer.model:
            self._target = tensorflow_text.SentencepieceTokenizer(model=translator.target_tokenizer.model)
        self._settings = translator.settings
        self._spellings = Spellings(translator.target_tokenizer.token_bytes)
        self._takes_phrases = self._settings.beam_size > 1 and not self._settings.temperature
        self._limits = limits

    def get_signatures(self) -> dict[str, Any]:
        """Returns the signatures by name."""
        signatures = {
            "serving_default": self.translate,
            "nbest": self.translate_n_best,
            "token_log_probs": self.score_translations,
        }
        if self._limits.interactive:
            signatures |= {"complete": self.translate_demanding, "alternatives": self.list_alternatives}
        return signatures

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def translate(self, text: Any) -> dict[str, Any]:
        """Returns the best translation of each text.

        Args:
            text: string [N], UTF-8, in which U+FFFD replaces invalid bytes. The translation of a blank text is "", with
                score 0.

        Returns:
            translation: string [N].
            score: float32 [N], by which hypotheses are ranked.
            log_prob: float32 [N], sum of the tokens' log-probabilities (nats), EOS included.
            truncated: bool [N], whether the end of the text was cut off.
            finished: bool [N], false if the length limit cut the translation off.
            confidence: float32 [N], the expected chrF / 100 of the translation, if the model's confidence was fitted.
        """
        with self._weights.use(), without_gradients():
            source = self._read_source(text)
            best = self._search(source, n_best=1)
        return self._describe_best(text, source, best)

    def _describe_best(self, text: Any, source: Tokens, best: NBest) -> dict[str, Any]:
        """Returns the outputs of `translate`."""
        return {
            "translation": best.texts[:, 0],
            "score": best.scores[:, 0],
            "log_prob": best.log_probs[:, 0],
            "truncated": source.truncated,
            "finished": find_finished(best)[:, 0],
            **{name: values[:, 0] for name, values in self._estimate_confidence(text, best).items()},
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def translate_n_best(self, text: Any) -> dict[str, Any]:
        """Returns the n best translations of each text, with their tokens and attention.

        The first one is that of `translate`.

        Args:
            text: as for `translate`.

        Returns:
            translations: string [N, n], best first.
            scores, log_probs: float32 [N, n].
            num_hypotheses: int32 [N]; further columns contain "" and -1e9, because JSON has no infinity.
            source_tokens: string [N, S], "" after the EOS.
            target_tokens: string [N, n, T], "" after the EOS.
            attention: float32 [N, n, T, S]; the row of each target token sums to 1, everything else is 0. It is by far
                the largest output, so send a few texts at a time.
            coverage: float32 [N, n], share of the source tokens that received an attention of at least 0.1 from all
                target tokens together; 1 if there are none.
            truncated: bool [N].
            finished: bool [N, n]; false in columns without a hypothesis, too.
            confidence: float32 [N, n], as for `translate`.
        """
        with self._weights.use(), without_gradients():
            source = self._read_source(text)
            best = self._search(source, n_best=self._limits.nbest)
            attention = self._read_attention(source, best.ids)
        return {
            "translations": best.texts,
            "scores": best.scores,
            "log_probs": best.log_probs,
            "num_hypotheses": best.counts,
            "source_tokens": _spell(self._source, source.ids),
            "target_tokens": _spell(self._target, best.ids),
            "attention": attention,
            "coverage": measure_coverage(attention, source.ids, best.ids),
            "truncated": source.truncated,
            "finished": find_finished(best),
            **self._estimate_confidence(text, best),
        }

    def _estimate_confidence(self, text: Any, best: NBest) -> dict[str, Any]:
        """Returns the output `confidence` [N, n]; none if it was not fitted."""
        fitted = self._translator.fitted_confidence
        if fitted is None:
            return {}
        tags = self._translator.tags
        finished = find_finished(best)
        return {"confidence": estimate_confidence(fitted, text, best.texts, best.log_probs, finished, tags=tags)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("source", "target")], autograph=False
    )
    def score_translations(self, source: Any, target: Any) -> dict[str, Any]:
        """Returns the log-probabilities of given translations, token by token: to rank, filter or check text.

        Args:
            source, target: string [N]; a blank text is read as EOS alone.

        Returns:
            target_tokens: string [N, T], "" after the EOS.
            token_log_probs: float32 [N, T], the log-probability (nats) of each token given those before it; 0 after the
                EOS.
            log_prob: float32 [N], their sum.
            num_tokens: int32 [N], EOS included.
            truncated: bool [N], whether the end of either text was cut off.
        """
        same = tf.debugging.assert_equal(tf.size(source), tf.size(target), "source and target differ in number")
        with tf.control_dependencies([same]), self._weights.use(), without_gradients():
            sources = self._tokenize_source(source)
            targets = tokenize(
                target,
                self._target,
                max_characters=self._limits.max_characters,
                max_tokens=self._settings.max_length - 1,
                continuations=find_continuations(self._translator.target_tokenizer),
            )
            log_probs = self._score_tokens(sources, targets)
        return {
            "target_tokens": _spell(self._target, targets.ids),
            "token_log_probs": log_probs,
            "log_prob": tf.reduce_sum(log_probs, axis=1),
            "num_tokens": targets.lengths,
            "truncated": sources.truncated | targets.truncated,
        }

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("text", "prefix", "required")],
        autograph=False,
    )
    def translate_demanding(self, text: Any, prefix: Any, required: Any) -> dict[str, Any]:
        """Returns the best translation of each text that begins with a prefix and contains phrases.

        Args:
            text: as for `translate`.
            prefix: string [N], the beginning of each translation, which may end inside a word; "" for none.
            required: string [N], words and phrases that each translation must contain, with tabs between them; "" for
                nothing. Only "" if the model searches greedily, or samples.

        Returns:
            As `translate`. `finished` is false, too, if a translation lacks a phrase that the tokenizer can spell.
        """
        same = [
            tf.debugging.assert_equal(tf.size(text), tf.size(other), "text, prefix and required differ in number")
            for other in (prefix, required)
        ]
        with tf.control_dependencies(same):
            source, prefixes = self._read_source(text), self._read_prefixes(prefix)
            phrases = self._read_phrases(required)
        inputs = (*prefixes.tokens, phrases)
        num_texts = tf.size(source.lengths)
        num_steps = limit_lengths(tf.shape(source.ids)[1], self._settings) + sum(tf.shape(x)[1] for x in inputs)

        def find(rows: Any) -> NBest:
            ids = gather_trimmed(source.ids, source.lengths, rows)
            best = self._find_demanded(ids, *(tf.gather(x, rows) for x in inputs))
            return best._replace(ids=pad_to(best.ids, [num_steps]))

        best = self._map(find, make_blank(num_texts, 1, num_steps), source.lengths)
        return self._describe_best(text, source, best._replace(texts=prefixes.join(best.texts)))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name=name) for name in ("text", "prefix")], autograph=False
    )
    def list_alternatives(self, text: Any, prefix: Any) -> dict[str, Any]:
        """Returns the most probable alternatives for the next word after a prefix, for interactive editors.

        Args:
            text, prefix: as for `translate_demanding`.

        Returns:
            alternatives: string [N, n], the prefix and the token after it; if the prefix ends inside a word, what the
                token makes of the word. Most probable first, "" in further columns.
            probabilities: float32 [N, n], of the tokens after the complete words of the prefix, given these.
            translations: string [N, n], the best translation that begins with each of them.
            num_alternatives: int32 [N].
        """
        same = tf.debugging.assert_equal(tf.size(text), tf.size(prefix), "text and prefix differ in number")
        with tf.control_dependencies([same]):
            source, prefixes = self._read_source(text), self._read_prefixes(prefix)
        n = min(self._limits.nbest, MAX_ALTERNATIVES)

        def find(rows: Any) -> tuple:
            ids = gather_trimmed(source.ids, source.lengths, rows)
            here = prefixes.select(rows)
            found = rank_alternatives(self._find_next(ids, here.tokens, n), here, self._target.detokenize, n)
            # Each of them is a prefix of its own.
            texts, tokens = tf.reshape(found.texts, [-1]), tf.reshape(found.ids, [-1, tf.shape(found.ids)[2]])
            lengths = count_tokens(tokens)
            nothing = tf.zeros([tf.size(texts), MAX_PHRASE_TOKENS], tf.int32)
            best = self._find_demanded(tf.repeat(ids, n, axis=0), tokens, nothing, nothing)
            decoded = self._target.detokenize(tf.RaggedTensor.from_tensor(tokens, lengths))
            whole = SplitPrefixes(texts, Prefixes(tokens, nothing), decoded).join(best.texts)
            translations = tf.where(found.is_open, tf.reshape(whole, [-1, n]), found.texts)
            counts = tf.reduce_sum(tf.cast(found.exists, tf.int32), axis=1)
            return found.texts, found.probabilities, tf.where(found.exists, translations, ""), counts

        num_texts = tf.size(source.lengths)
        none = tf.fill([num_texts, n], "")
        nothing = (none, tf.zeros([num_texts, n]), none, tf.zeros([num_texts], tf.int32))
        found = self._map(find, nothing, source.lengths)
        names = ("alternatives", "probabilities", "translations", "num_alternatives")
        return dict(zip(names, found, strict=True))

    @tf.function(input_signature=4 * [tf.TensorSpec([None, None], tf.int32)], autograph=False)
    def _find_demanded(self, source: Any, prefix: Any, ending: Any, phrases: Any) -> NBest:
        """Searches for the best translations with prefixes and phrases; two signatures share this graph."""
        demands = {"prefixes": Prefixes(prefix, ending), "spellings": self._spellings}
        if self._takes_phrases:
            demands["phrases"] = phrases
        with self._weights.use(), without_gradients():
            return drop_duplicates(self._run_search(source, self._settings, 1, **demands), self._target.detokenize, 1)

    def _find_next(self, source: Any, tokens: Prefixes, n: int) -> Hypotheses:
        settings = make_plain(self._settings, n)
        demands = {"prefixes": tokens, "spellings": self._spellings, "only_next": True}
        with self._weights.use(), without_gradients():
            return self._run_search(source, settings, settings.beam_size, **demands)

    def _run_search(self, source: Any, settings: SearchSettings, n_best: int, **demands: Any) -> Hypotheses:
        return search(
            self._translator.model,
            source,
            settings=settings,
            n_best=n_best,
            banned_ids=self._translator.target_tokenizer.banned_ids,
            refill=True,
            **demands,
        )

    def _read_prefixes(self, prefix: Any) -> SplitPrefixes:
        text = tf.strings.unicode_transcode(prefix, "UTF-8", "UTF-8", errors="replace")
        text = tf.strings.substr(text, 0, self._limits.max_characters, unit="UTF8_CHAR")
        return split_prefixes(text, self._target, self._spellings)

    def _read_phrases(self, required: Any) -> Any:
        text = tf.strings.unicode_transcode(required, "UTF-8", "UTF-8", errors="replace")
        if self._takes_phrases:
            return encode_phrases(text, self._target, self._translator.target_tokenizer)
        words = "required: this export cannot search for phrases, because it searches greedily or samples"
        with tf.control_dependencies([tf.debugging.assert_equal(text, "", words)]):
            return tf.zeros([tf.size(text), MAX_PHRASE_TOKENS], tf.int32)

    def _read_source(self, text: Any) -> Tokens:
        return drop_blank(self._tokenize_source(text), text)

    def _tokenize_source(self, text: Any) -> Tokens:
        return tokenize(
            text,
            self._source,
            max_characters=self._limits.max_characters,
            max_tokens=self._translator.max_tokens,
            continuations=find_continuations(self._translator.source_tokenizer),
        )

    def _search(self, source: Tokens, *, n_best: int) -> NBest:
        num_texts = tf.size(source.lengths)
        num_steps = limit_lengths(tf.shape(source.ids)[1], self._settings)
        is_sampled = self._settings.temperature > 0

        def search_for(ids: Any, n_best: int, most: int) -> NBest:
            found = self._run_search(ids, self._settings, n_best)
            return drop_duplicates(found, self._target.detokenize, most, is_sampled=is_sampled)

        def translate(rows: Any) -> NBest:
            ids = gather_trimmed(source.ids, source.lengths, rows)
            if needs_own_best(self._settings, n_best):
                others = search_for(ids, n_best, max(self._settings.beam_size, n_best))
                best = put_first(search_for(ids, 1, 1), others, n_best)
            else:
                best = search_for(ids, n_best, n_best)
            return best._replace(ids=pad_to(best.ids, [num_steps]))

        best = self._map(translate, make_blank(num_texts, n_best, num_steps), source.lengths)
        return best._replace(ids=best.ids[:, :, : get_longest(count_tokens(best.ids))])

    def _read_attention(self, source: Tokens, target: Any) -> Any:
        """Returns the attention of each token of target [N, n, T]: float32 [N, n, T, S]."""
        n_best, num_tokens = self._limits.nbest, tf.shape(target)[2]

        def read(rows: Any) -> tuple:
            ids = tf.gather(target, rows)
            ids = ids[:, :, : get_longest(count_tokens(ids))]
            source_ids = gather_trimmed(source.ids, source.lengths, rows)
            weights = self._read_forced(source_ids, ids, lambda ids, logits, weights: weights)
            weights = tf.where((ids != 0)[..., None], weights, 0.0)
            return (pad_to(weights, [num_tokens, tf.shape(source.ids)[1]]),)

        shape = [tf.size(source.lengths), n_best, num_tokens, tf.shape(source.ids)[1]]
        return self._map(read, (tf.zeros(shape),), source.lengths)[0]

    def _score_tokens(self, source: Tokens, target: Tokens) -> Any:
        """Returns the log-probability of each target token: float32 [N, T], 0 on padding."""

        def pick(ids: Any, logits: Any, weights: Any) -> Any:
            return tf.gather(ops.log_softmax(logits, axis=-1), ids[:, :, None], batch_dims=2)

        def score(rows: Any) -> tuple:
            ids = gather_trimmed(target.ids, target.lengths, rows)
            source_ids = gather_trimmed(source.ids, source.lengths, rows)
            log_probs = self._read_forced(source_ids, ids[:, None, :], pick)[:, 0, :, 0]
            return (pad_to(tf.where(ids != 0, log_probs, 0.0), [tf.shape(target.ids)[1]]),)

        lengths = tf.maximum(source.lengths, target.lengths)
        return self._map(score, (tf.zeros(tf.shape(target.ids)),), lengths)[0]

    def _read_forced(self, source: Any, target: Any, pick: Callable) -> Any:
        """Reads given translations, step by step as the search does, so that all n of a source share its memory.

        Teacher forcing of whole sequences would need the logits [B, n, T, V] at once.

        Args:
            source: int32 [B, S].
            target: int32 [B, n, T].
            pick: returns what is wanted of a position, [B, n, X], given the ids [B, n] at the position, the logits
                [B, n, V] that predict them and the attention [B, n, S].

        Returns:
            float32 [B, n, T, X].
        """
        model, n_best = self._translator.model, target.shape[1]
        start = model.start(source)
        first = tree.map_structure(lambda x: ops.repeat(x, n_best, axis=1), start.state)
        order = reverse_targets(target) if model.right_to_left else target
        before = shift_right(order, BOS_ID)
        num_tokens = tf.shape(target)[2]

        def advance(position: Any, state: Any, written: Any) -> tuple:
            logits, state, weights = model.step(before[:, :, position], state, start.memory)
            here = pick(order[:, :, position], logits, weights)
            return position + 1, state, written.write(position, tf.cast(here, tf.float32))

        written = tf.TensorArray(tf.float32, num_tokens, element_shape=[None, n_best, None])
        _, _, written = tf.while_loop(lambda position, *_: position < num_tokens, advance, (0, first, written))
        read = tf.transpose(written.stack(), [1, 2, 0, 3])  # [T, B, n, X] -> [B, n, T, X]
        return reverse_targets(target, read) if model.right_to_left else read

    def _map(self, function: Callable, results: Any, lengths: Any) -> Any:
        return map_in_batches(
            function,
            results,
            lengths,
            max_batch=self._limits.max_batch,
            batch_tokens=self._settings.batch_tokens,
        )


def write_graph(
    model: Path,
    folder: Path,
    settings: Mapping[str, Mapping[str, Any]],
    quantize: str | None = None,
    precision: str = "float32",
) -> None:
    """Writes a model as a SavedModel.

    Args:
        model: a model folder.
        folder: where to write.
        settings: values of the sections `decoding` and `export`.
        quantize: see `StoredWeights`.
        precision: of the arithmetic; with bfloat16, the weights are stored in bfloat16, too.
    """
    translator = ModelTranslator.load(model, precision=precision).with_settings(**settings["decoding"])
    portable = PortableTranslator(translator, ExportConfig.model_validate(settings["export"]), quantize)
    with silence_stderr():
        tf.saved_model.save(portable, str(folder), signatures=portable.get_signatures())


def _spell(tokenizer: Any, ids: Any) -> Any:
    """Returns the tokens of ids, with "" for padding."""
    return tf.where(ids != 0, tokenizer.id_to_string(ids), "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", type=json.loads)
    parser.add_argument("--quantize")
    parser.add_argument("--precision", default="float32")
    write_graph(**vars(parser.parse_args()))
