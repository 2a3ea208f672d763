"""Sentences of a report: best and worst of the dev text, and the training pairs with the highest loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nmt.config.schema import GREEDY
from nmt.data.cleaning import clean
from nmt.data.corpus import ParallelCorpus
from nmt.data.examples import put_tag
from nmt.data.preparation import load_tokenizers
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.evaluation.metrics import make_sentence_metric
from nmt.report.records import RunRecords
from nmt.translators.protocol import Translator

MAX_TRANSLATED = 2000  # dev sentences that are translated if no translations of validations were kept


@dataclass(frozen=True)
class DevSentence:
    """A dev sentence with its translation."""

    name: str
    """Name of the dev set; "" if there is only one."""
    line: int
    """From 1."""
    source: str
    target: str
    translation: str
    chrf: float
    """Score of the sentence, 0 to 100."""
    tag: str | None = None
    """Symbol that the model reads before the source."""
    links: WordLinks | None = None
    """Attention between the words of source and translation."""


@dataclass(frozen=True)
class TrainingPair:
    """A training pair and how probable the model finds it."""

    place: str
    """File and line of the source."""
    source: str
    target: str
    loss: float
    """Mean negative log-likelihood of the target's tokens with EOS, in nats."""
    least: str
    """The least probable token."""
    least_log_prob: float


@dataclass(frozen=True)
class ScoredPairs:
    """A sample of the training pairs, scored by the best model."""

    num_pairs: int
    """Pairs of the corpus."""
    losses: Sequence[float]
    """Loss of each pair of the sample."""
    worst: Sequence[TrainingPair]
    """Those with the highest loss, worst first."""
    even_loss: float
    """Loss of a model that has learned nothing and finds all tokens equally probable."""


def rank_sentences(run: RunRecords, translator: Translator | None) -> tuple[str, list[DevSentence]]:
    """Returns where the translations come from, in words, and the dev sentences, from worst to best by chrF.

    The translations are those that the best validation kept. Otherwise a translator makes them, greedily as validation
    does, of at most `MAX_TRANSLATED` sentences per dev set. There are none without both.
    """
    kept = run.best_translations
    origin = f"Translations of the validation after update {run.best['update']:,}" if run.best else ""
    if not kept:
        if translator is None:
            return "", []
        origin = "Translations by the best model, made for this report by greedy search"
    metric = make_sentence_metric("chrf", None)
    found = []
    for one in run.dev:
        sources, targets = one.bare_sources, one.targets
        if kept:
            translations = kept.get(one.name, ())
        else:
            assert translator is not None
            greedy = translator.with_settings(**GREEDY)
            translations = greedy.translate(one.sources[:MAX_TRANSLATED], split=False)
        for line, (source, target, translation) in enumerate(zip(sources, targets, translations, strict=False), 1):
            found.append(DevSentence(one.name, line, source, target, translation, metric(translation, target), one.tag))
    return origin, sorted(found, key=lambda one: one.chrf)


def add_attention(sentences: Sequence[DevSentence], translator: Translator) -> list[DevSentence]:
    """Returns sentences with the attention that the model pays when it reads their translations."""
    pairs = [(put_tag(one.tag, one.source), one.translation) for one in sentences]
    return [replace(one, links=links) for one, links in zip(sentences, translator.align(pairs), strict=True)]


def score_pairs(
    run: RunRecords, translator: Translator, *, sample: int, worst: int, log: Callable[[str], None]
) -> ScoredPairs:
    """Scores training pairs by the best model, without dropout, as `nmt score` does.

    Pairs that cleaning drops are not scored, except copies of earlier pairs.

    Args:
        run: the records of the run, whose training text must be where it was.
        translator: its best model, in float32.
        sample: number of pairs, drawn evenly from the corpus; all if there are fewer.
        worst: number of pairs to return.
        log: receives what takes long.

    Raises:
        UserError: the training text is missing or cannot be read.
    """
    data = run.config.data
    files = [(one.source, one.target) for one in data.train]
    whole = ParallelCorpus.open(files, data.cache or run.path / "cache")
    corpus = whole.select(np.linspace(0, len(whole) - 1, min(sample, len(whole))).astype(np.int64))
    tokenizers = load_tokenizers(run.config.tokenizer, run.path)
    if tokenizers is None:
        raise UserError(f"{run.path} has no tokenizers yet.")
    corpora = corpus.find_corpora(np.arange(len(corpus)))
    texts, targets = corpus.read_texts(np.arange(len(corpus)))
    sources = [put_tag(data.train[number].tag, text) for number, text in zip(corpora, texts, strict=True)]
    sides = tokenizers[0].encode(sources), tokenizers[1].encode(targets)
    kept, _ = clean(
        corpus,
        np.array([[len(ids) for ids in side] for side in sides], np.int32).T,
        max_length=data.max_length,
        max_ratio=data.max_ratio,
        drop_identical=data.drop_identical,
        drop_duplicates=False,
    )
    log(f"{run.path}: scoring {len(kept):,} training pairs …")
    scored = list(translator.score((sources[n], targets[n]) for n in kept))
    losses = np.array([-one.mean_log_prob for one in scored])
    lines = corpus.find_lines(kept)
    found = []
    for n in np.argsort(-losses, kind="stable")[:worst]:
        one, least = scored[n], int(np.argmin(scored[n].token_log_probs))
        found.append(
            TrainingPair(
                place=f"{files[corpora[kept[n]]][0]}:{lines[n] + 1}",
                source=texts[kept[n]],
                target=one.text,
                loss=float(losses[n]),
                least=one.tokens[least],
                least_log_prob=float(one.token_log_probs[least]),
            )
        )
    even_loss = float(np.log(tokenizers[1].vocabulary_size))
    return ScoredPairs(len(whole), losses.tolist(), found, even_loss)


def open_best(path: Path) -> Translator:
    """Opens the best model of a run in float32: rounding would change log-probabilities in their second digit."""
    from nmt.translators.opening import open_translator

    return open_translator(path, precision="float32")
