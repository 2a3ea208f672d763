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
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.evaluation.metrics import make_sentence_metric
from nmt.report.records import RunRecords
from nmt.training.pair_losses import compute_stride, read_pair_losses
from nmt.training.run_folder import RunFolder
from nmt.translators.hypothesis import ScoredTranslation
from nmt.translators.protocol import Translator

MIN_EPOCHS = 2
"""Epochs after which the losses that training kept are used."""
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
    """Mean negative log-likelihood of the target's tokens with EOS by the best model, in nats."""
    least: str
    """The least probable token."""
    least_log_prob: float
    lowest: float | None = None
    """The lowest loss in any epoch of the training; None if it was not kept."""


@dataclass(frozen=True)
class PairLossSummary:
    """The losses of training pairs: those that training kept, or those of a sample by the best model."""

    num_pairs: int
    """Pairs of the corpus."""
    losses: np.ndarray
    """float [N], the loss of each pair that has one."""
    corpora: np.ndarray
    """int [N], the corpus of each of them."""
    worst: Sequence[TrainingPair]
    """Those with the highest loss, worst first."""
    even_loss: float
    """Loss of a model that has learned nothing and finds all tokens equally probable."""
    is_kept: bool
    """Whether the losses are the lowest in any epoch of the training."""


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


def examine_pairs(
    run: RunRecords, translator: Translator, *, sample: int, worst: int, log: Callable[[str], None]
) -> PairLossSummary:
    """Finds the training pairs with the highest loss, and scores them by the best model as `nmt score` does.

    The loss is the lowest in any epoch, if training kept that and has read the whole corpus `MIN_EPOCHS` times. Before,
    the losses of the first batches are high whatever the pair. Otherwise the best model scores a sample, without the
    pairs that cleaning drops, except copies of earlier pairs.

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
    corpus = ParallelCorpus.open([(one.source, one.target) for one in data.train], data.cache or run.path / "cache")
    tokenizers = load_tokenizers(run.config.tokenizer, run.path)
    if tokenizers is None:
        raise UserError(f"{run.path} has no tokenizers yet.")
    even_loss = float(np.log(tokenizers[1].vocabulary_size))
    kept = _read_kept_losses(run, len(corpus))
    if kept is not None:
        pairs = np.flatnonzero(np.isfinite(kept))
        losses = kept[pairs].astype(np.float64)
        pairs *= compute_stride(len(corpus))
        chosen = np.argsort(-losses, kind="stable")[:worst]
        scored = _score(run, corpus, pairs[chosen], translator)
        found = [
            replace(_describe_pair(corpus, int(pairs[n]), one), lowest=float(losses[n]))
            for n, one in zip(chosen, scored, strict=True)
        ]
        return PairLossSummary(len(corpus), losses, corpus.find_corpora(pairs), found, even_loss, is_kept=True)
    pairs = _draw_pairs(run, corpus, tokenizers, sample)
    log(f"{run.path}: scoring {len(pairs):,} training pairs …")
    scored = _score(run, corpus, pairs, translator)
    losses = np.array([-one.mean_log_prob for one in scored])
    chosen = np.argsort(-losses, kind="stable")[:worst]
    found = [_describe_pair(corpus, int(pairs[n]), scored[n]) for n in chosen]
    return PairLossSummary(len(corpus), losses, corpus.find_corpora(pairs), found, even_loss, is_kept=False)


def _read_kept_losses(run: RunRecords, num_pairs: int) -> np.ndarray | None:
    """Returns what training kept; None if it kept nothing or has not read all pairs often enough."""
    path = RunFolder(run.path).pair_losses
    is_early = not run.training or run.training[-1].get("epoch", 0) < MIN_EPOCHS
    return None if is_early or not path.is_file() else read_pair_losses(path, num_pairs)


def _draw_pairs(run: RunRecords, whole: ParallelCorpus, tokenizers: Sequence[Tokenizer], sample: int) -> np.ndarray:
    """Returns evenly spaced pairs of the corpus, without those that cleaning drops."""
    data = run.config.data
    drawn = np.linspace(0, len(whole) - 1, min(sample, len(whole))).astype(np.int64)
    texts = _read_pairs(run, whole, drawn)
    lengths = [[len(ids) for ids in one.encode(list(side))] for one, side in zip(tokenizers, texts, strict=True)]
    kept, _ = clean(
        whole.select(drawn),
        np.array(lengths, np.int32).T,
        max_length=data.max_length,
        max_ratio=data.max_ratio,
        drop_identical=data.drop_identical,
        drop_duplicates=False,
    )
    return drawn[kept]


def _read_pairs(run: RunRecords, corpus: ParallelCorpus, pairs: np.ndarray) -> tuple[list[str], list[str]]:
    """Returns sources with their tags, and targets."""
    tags = [run.config.data.train[number].tag for number in corpus.find_corpora(pairs)]
    sources, targets = corpus.read_texts(pairs)
    return [put_tag(tag, source) for tag, source in zip(tags, sources, strict=True)], targets


def _score(
    run: RunRecords, corpus: ParallelCorpus, pairs: np.ndarray, translator: Translator
) -> list[ScoredTranslation]:
    return list(translator.score(zip(*_read_pairs(run, corpus, pairs), strict=True)))


def _describe_pair(corpus: ParallelCorpus, pair: int, scored: ScoredTranslation) -> TrainingPair:
    least = int(np.argmin(scored.token_log_probs))
    return TrainingPair(
        place=corpus.locate(pair),
        source=corpus.read_sources(np.array([pair]))[0],
        target=scored.text,
        loss=-scored.mean_log_prob,
        least=scored.tokens[least],
        least_log_prob=float(scored.token_log_probs[least]),
    )


def open_best(path: Path) -> Translator:
    """Opens the best model of a run in float32: rounding would change log-probabilities in their second digit."""
    from nmt.translators.opening import open_translator

    return open_translator(path, precision="float32")
