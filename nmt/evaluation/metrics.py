"""BLEU, chrF and TER by sacreBLEU (Post 2018), each with the signature that says how it was counted.

Two kinds of score, never to be put in one column: `score` reads the text as people write it (detokenised, cased), and
`score_tokenized` reads "tok-lc", the lower-cased, Moses-tokenised text that most published Multi30k scores are of.
Every figure is the one that sacreBLEU's own command line prints, and its environment variable SACREBLEU_SEED is obeyed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from nmt.data.languages import find_warnings, parse_language
from nmt.errors import UserError

NUM_RESAMPLES = 1000  # as `sacrebleu --confidence`


@dataclass(frozen=True)
class Score:
    """A corpus score with its meaning.

    `score` is in percent: BLEU and chrF lie in 0 to 100, higher is better; TER (edits a reference word) starts at 0,
    lower is better, and may pass 100. `interval` is the 95 % confidence interval, sacreBLEU's "μ ± c": the mean of the
    bootstrap resamples, less and plus half the width of their middle 95 %; None where nobody asked for it.
    """

    score: float
    signature: str
    interval: tuple[float, float] | None

    def as_record(self) -> dict[str, object]:
        """Returns the score as JSON takes it.

        >>> Score(38.5, "nrefs:1|case:mixed|…", (36.9, 40.1)).as_record()
        {'score': 38.5, 'signature': 'nrefs:1|case:mixed|…', 'interval': [36.9, 40.1]}
        """
        interval = None if self.interval is None else list(self.interval)
        return {"score": self.score, "signature": self.signature, "interval": interval}


def score(
    hypotheses: Sequence[str], references: Sequence[str], *, target_language: str | None, confidence: bool = True
) -> dict[str, Score]:
    """Returns the scores "bleu", "chrf" and "ter" of detokenised, cased hypotheses.

    `target_language` ("de", "zho_Hant"; see nmt/data/languages.py) chooses how BLEU divides text into words; chrF reads
    characters. TER, as sacreBLEU has it, lower-cases and divides at spaces only: it means little in Chinese and
    Japanese.

    Raises:
        UserError: hypotheses and references differ in number, there are none, or the language's tokeniser is missing.
    """
    check_pairs(hypotheses, references)
    metrics = metrics_for(target_language)
    return {name: _corpus_score(metric, hypotheses, references, confidence) for name, metric in metrics.items()}


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, target_language: str | None) -> float:
    """Returns the BLEU of `score` alone and without its interval, fast enough for every validation.

    >>> round(bleu(["ein Hund läuft im Schnee"], ["ein Hund läuft im Schnee"], target_language="de"), 6)
    100.0
    """
    check_pairs(hypotheses, references)
    return _corpus_score(bleu_for(target_language), hypotheses, references, confidence=False).score


def score_tokenized(
    hypotheses: Sequence[str], references: Sequence[str], *, target_language: str, confidence: bool = True
) -> Score:
    """Returns the BLEU of tok-lc text, the Multi30k convention; takes detokenised text and tokenises both sides itself.

    Its signature says `case:lc` and `tok:none`, for sacreBLEU divides nothing here: `tokenized_lowercase` did. It is
    often a point above the detokenised, cased score of the same text.
    """
    check_pairs(hypotheses, references)
    hypotheses = tokenized_lowercase(hypotheses, target_language)
    references = tokenized_lowercase(references, target_language)
    return _corpus_score(BLEU(lowercase=True, tokenize="none", force=True), hypotheses, references, confidence)


def tokenized_lowercase(lines: Sequence[str], language: str) -> list[str]:
    """Returns tok-lc text: lower-cased, then punctuation normalised, then tokenised and escaped as Moses does.

    For languages written with spaces: Moses divides no Chinese or Japanese words.

    >>> tokenized_lowercase(["„Hallo“, rief ein Mann."], "de")
    ['&quot; hallo &quot; , rief ein mann .']
    """
    from sacremoses import MosesPunctNormalizer, MosesTokenizer  # half a second to import, and rarely wanted

    code = parse_language(language).language
    normalizer, tokenizer = MosesPunctNormalizer(code), MosesTokenizer(code)
    return [tokenizer.tokenize(normalizer.normalize(line.lower()), return_str=True, escape=True) for line in lines]


def metrics_for(target_language: str | None) -> dict[str, Metric]:
    """Returns sacreBLEU's metrics by our names for them, with the settings of its command line."""
    return {"bleu": bleu_for(target_language), "chrf": CHRF(), "ter": TER()}


def bleu_for(target_language: str | None) -> BLEU:
    """Returns BLEU with the tokeniser that sacreBLEU gives the language: zh, ja-mecab, ko-mecab, or 13a for the others.

    Raises:
        UserError: the tokeniser needs a package that is not installed.
    """
    tokenizer = parse_language(target_language).bleu_tokenizer
    try:
        # force: a hundred lines that end in " ." bring a warning otherwise; it changes no figure.
        return BLEU(tokenize=tokenizer, force=True)
    except RuntimeError as error:
        raise UserError(
            f"BLEU in {target_language!r} needs the tokeniser MeCab, which is not installed; "
            f"install it by: pip install 'sacrebleu[{tokenizer.split('-')[0]}]'"
        ) from error


def check_languages(source_language: str | None, target_language: str | None) -> list[str]:
    """Returns warnings about language codes, for commands to print before work that ends in a score.

    Raises:
        UserError: the tokeniser of the target language needs a package that is not installed.
    """
    bleu_for(target_language)
    return list(find_warnings(source=source_language, target=target_language))


def check_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Raises UserError unless every hypothesis has its reference; sacreBLEU drops the surplus in silence."""
    if len(hypotheses) != len(references):
        raise UserError(
            "Each hypothesis needs its own reference, "
            f"got {len(hypotheses)} hypotheses and {len(references)} references."
        )
    if not hypotheses:
        raise UserError("There is nothing to score: got 0 hypotheses and 0 references.")


def _corpus_score(metric: Metric, hypotheses: Sequence[str], references: Sequence[str], confidence: bool) -> Score:
    resamples = NUM_RESAMPLES if confidence else 1
    try:
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=resamples)
    except TypeError:
        # sacreBLEU will not average its numpy floats with the plain 0.0 of a resample that nothing matches.
        compute = metric._compute_score_from_stats

        def in_plain_floats(stats: Any) -> Any:
            one = compute(stats)
            one.score = float(one.score)
            return one

        metric._compute_score_from_stats = in_plain_floats  # type: ignore[method-assign]
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=resamples)
    # sacreBLEU makes mean and half-width public only as formatted text; these attributes hold them unrounded.
    interval = interval_around(result._mean, result._ci) if confidence else None
    return Score(float(result.score), str(metric.get_signature()), interval)


def interval_around(mean: float, half_width: float) -> tuple[float, float]:
    """Returns the lower and upper bound as Python's own floats; sacreBLEU's are numpy's, some of 32 bits."""
    return float(mean) - float(half_width), float(mean) + float(half_width)
