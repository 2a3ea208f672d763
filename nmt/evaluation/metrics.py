"""BLEU, chrF and TER by sacreBLEU (Post 2018), each with its signature.

There are two kinds of score, which must not be compared with each other. `score` reads ordinary text (detokenized,
cased). `score_tokenized` reads "tok-lc" text, lower-cased and Moses-tokenized, as most published Multi30k scores do.
All numbers equal those of sacreBLEU's command line, including the effect of the environment variable SACREBLEU_SEED.
Only the resamples are summed here, with 64 bits: sacreBLEU holds the counts of all of them in memory, with 32 bits, so
that its intervals may differ in the sixth digit.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import estimate_ci

from nmt.data.languages import find_warnings, parse_language
from nmt.errors import UserError

NUM_RESAMPLES = 1000  # as `sacrebleu --confidence`
SENTENCE_METRICS = ("bleu", "chrf")
HIGHEST = {"bleu": 100.0, "chrf": 100.0, "ter": math.inf}  # scores; the lowest is 0


@dataclass(frozen=True)
class Score:
    """A corpus score with its meaning."""

    score: float
    """In percent. BLEU and chrF range from 0 to 100, and higher is better. TER (edits per reference word) starts at 0,
    may exceed 100, and lower is better."""
    signature: str
    """sacreBLEU's signature, which says how the score was computed."""
    interval: tuple[float, float] | None
    """95 % confidence interval, sacreBLEU's "μ ± c": the mean of the bootstrap resamples, plus and minus half the width
    of their middle 95 %, cut at the ends of the metric's range; None if it was not requested."""

    def as_record(self) -> dict[str, object]:
        """Returns the score as a JSON object.

        >>> Score(38.5, "nrefs:1|case:mixed|…", (36.9, 40.1)).as_record()
        {'score': 38.5, 'signature': 'nrefs:1|case:mixed|…', 'interval': [36.9, 40.1]}
        """
        interval = None if self.interval is None else list(self.interval)
        return {"score": self.score, "signature": self.signature, "interval": interval}


def score(
    hypotheses: Sequence[str], *references: Sequence[str], target_language: str | None, confidence: bool = True
) -> dict[str, Score]:
    """Scores detokenized, cased hypotheses.

    Args:
        hypotheses: one per line.
        *references: human translations, one per line; several give each hypothesis several references.
        target_language: code such as "de" or "zho_Hant" (see nmt/data/languages.py), which chooses BLEU's tokenizer.
            chrF reads characters. TER lower-cases and splits at spaces only, so it means little in Chinese and
            Japanese.
        confidence: whether to compute confidence intervals, which takes a thousand resamples.

    Returns:
        "bleu", "chrf" and "ter".

    Raises:
        UserError: the numbers of hypotheses and references differ, there are none, or the tokenizer of the language is
            not installed.
    """
    check_pairs(hypotheses, references)
    metrics = make_metrics(target_language)
    return {
        name: _score_corpus(metric, hypotheses, references, HIGHEST[name] if confidence else None)
        for name, metric in metrics.items()
    }


def bleu(hypotheses: Sequence[str], *references: Sequence[str], target_language: str | None) -> float:
    """Returns BLEU as `score` does, but without its interval: fast enough for every validation.

    >>> round(bleu(["ein Hund läuft im Schnee"], ["ein Hund läuft im Schnee"], target_language="de"), 6)
    100.0
    """
    check_pairs(hypotheses, references)
    return _score_corpus(make_bleu(target_language), hypotheses, references).score


def score_bleu(hypotheses: Sequence[str], *references: Sequence[str], target_language: str | None) -> Score:
    """Returns BLEU as `score` does, with its interval but without the other scores, which take longer."""
    check_pairs(hypotheses, references)
    return _score_corpus(make_bleu(target_language), hypotheses, references, HIGHEST["bleu"])


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns chrF as `score` does, but without its interval.

    >>> round(chrf(["ein Hund läuft im Schnee"], ["ein Hund läuft im Schnee"]), 6)
    100.0
    """
    check_pairs(hypotheses, [references])
    return _score_corpus(CHRF(), hypotheses, [references]).score


def score_tokenized(
    hypotheses: Sequence[str], *references: Sequence[str], target_language: str, confidence: bool = True
) -> Score:
    """Returns BLEU of tok-lc text (the Multi30k convention), given detokenized text of both sides.

    The signature says `case:lc` and `tok:none`, since the text is tokenized before sacreBLEU reads it. The score is
    often a point higher than the detokenized, cased one of the same text.
    """
    check_pairs(hypotheses, references)
    hypotheses, *others = (tokenize_lowercase(lines, target_language) for lines in (hypotheses, *references))
    metric = BLEU(lowercase=True, tokenize="none", force=True)
    return _score_corpus(metric, hypotheses, others, HIGHEST["bleu"] if confidence else None)


def tokenize_lowercase(lines: Sequence[str], language: str) -> list[str]:
    """Returns tok-lc text: lower-cased, punctuation normalized, tokenized and escaped by Moses.

    It is for languages written with spaces, since Moses does not split Chinese or Japanese words.

    >>> tokenize_lowercase(["„Hallo“, rief ein Mann."], "de")
    ['&quot; hallo &quot; , rief ein mann .']
    """
    from sacremoses import MosesPunctNormalizer, MosesTokenizer  # takes half a second to import, and is rarely needed

    code = parse_language(language).language
    normalizer, tokenizer = MosesPunctNormalizer(code), MosesTokenizer(code)
    return [tokenizer.tokenize(normalizer.normalize(line.lower()), return_str=True, escape=True) for line in lines]


def make_metrics(target_language: str | None) -> dict[str, Metric]:
    """Returns sacreBLEU's metrics by name, with the settings of its command line."""
    return {"bleu": make_bleu(target_language), "chrf": CHRF(), "ter": TER()}


def make_sentence_metric(name: str, target_language: str | None) -> Callable[[str, str], float]:
    """Returns a function from one hypothesis and its reference to sacreBLEU's sentence-level score.

    Args:
        name: one of SENTENCE_METRICS.
        target_language: see `score`.

    Raises:
        UserError: see `make_bleu`.
    """
    metric = CHRF() if name == "chrf" else make_bleu(target_language, effective_order=True)
    return lambda hypothesis, reference: float(metric.sentence_score(hypothesis, [reference]).score)


def make_bleu(target_language: str | None, *, effective_order: bool = False) -> BLEU:
    """Returns BLEU with sacreBLEU's tokenizer for the language: zh, ja-mecab, ko-mecab, or 13a for all others.

    Args:
        target_language: see `score`.
        effective_order: whether to leave out the n-gram orders that a text is too short for, as for single sentences.

    Raises:
        UserError: the tokenizer needs a package that is not installed.
    """
    tokenizer = parse_language(target_language).bleu_tokenizer
    try:
        # Without force, a hundred lines that end in " ." cause a warning. It does not change the score.
        return BLEU(tokenize=tokenizer, force=True, effective_order=effective_order)
    except RuntimeError as error:
        raise UserError(
            f"BLEU in {target_language!r} needs the tokenizer MeCab, which is not installed. Install it with: "
            f"pip install 'sacrebleu[{tokenizer.split('-')[0]}]'"
        ) from error


def check_languages(source_language: str | None, target_language: str | None) -> list[str]:
    """Returns warnings about language codes, for commands to print before work that ends in a score.

    Raises:
        UserError: the tokenizer of the target language needs a package that is not installed.
    """
    make_bleu(target_language)
    return list(find_warnings(source=source_language, target=target_language))


def check_pairs(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises UserError unless every hypothesis has all references; sacreBLEU would drop the surplus silently."""
    for lines in references:
        if len(hypotheses) != len(lines):
            raise UserError(
                f"Every hypothesis needs a reference, found {len(hypotheses)} hypotheses and {len(lines)} references."
            )
    if not hypotheses:
        raise UserError("There is nothing to score: found 0 hypotheses and 0 references.")


def extract_statistics(metric: Metric, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns the counts of each of N sentences whose sum a corpus score is computed from: float64 [N, D]."""
    return np.array(metric._extract_corpus_statistics(hypotheses, references), "float64")


def compute_score(metric: Metric, counts: np.ndarray) -> float:
    """Returns the score of summed counts [D]."""
    return float(metric._compute_score_from_stats(counts.tolist()).score)


def read_seed() -> int | None:
    """Returns the seed of resamples, which the environment variable SACREBLEU_SEED sets; None for no seed.

    Raises:
        UserError: it is not a number.
    """
    given = os.environ.get("SACREBLEU_SEED", "12345")
    if given.lower() == "none":
        return None
    if not given.isdecimal():
        raise UserError(f"The environment variable SACREBLEU_SEED: expected a whole number or none, found {given!r}.")
    return int(given)


def resample_scores(metric: Metric, statistics: np.ndarray, seed: int | None) -> np.ndarray:
    """Returns the scores of the bootstrap resamples, float64 [NUM_RESAMPLES].

    Args:
        metric: computes them.
        statistics: counts of N sentences, [N, D].
        seed: the same one gives the same resamples of another system.
    """
    random, num_sentences = np.random.default_rng(seed), len(statistics)
    scores = []
    for _ in range(NUM_RESAMPLES):
        times = np.bincount(random.integers(num_sentences, size=num_sentences), minlength=num_sentences)
        scores.append(compute_score(metric, times @ statistics))
    return np.array(scores)


def make_resamples_signature(metric: Metric, seed: int | None) -> str:
    """Returns the signature of a score with an interval."""
    signature = metric.get_signature()
    signature.update("bs", NUM_RESAMPLES)
    signature.update("seed", str(seed).lower())
    return str(signature)


def _score_corpus(
    metric: Metric, hypotheses: Sequence[str], references: Sequence[Sequence[str]], highest: float | None = None
) -> Score:
    """Returns a corpus score, with its confidence interval if the metric's highest score is given."""
    statistics = extract_statistics(metric, hypotheses, references)
    score = compute_score(metric, statistics.sum(axis=0))
    if highest is None:
        return Score(score, str(metric.get_signature()), None)
    seed = read_seed()
    interval = make_interval(*estimate_ci(resample_scores(metric, statistics, seed)), highest)
    return Score(score, make_resamples_signature(metric, seed), interval)


def make_interval(mean: float, half_width: float, highest: float) -> tuple[float, float]:
    """Returns the bounds of an interval as Python floats.

    A few sentences with very different scores give a wide interval, which could exceed the range of the metric. It is
    cut to that range, from 0 to `highest`.

    >>> make_interval(40.0, 50.0, highest=100.0), make_interval(90.0, 20.0, highest=math.inf)
    ((0.0, 90.0), (70.0, 110.0))
    """
    return max(0.0, float(mean) - float(half_width)), min(highest, float(mean) + float(half_width))
