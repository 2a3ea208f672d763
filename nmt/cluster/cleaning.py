"""`nmt clean`: filters a parallel corpus by rules and by the scores of a model, in one process or on Ray.

Scores are kept in shards. A command that was killed resumes with the missing shards, and another threshold needs no new
scores.

Shapes: N sentence pairs; L lines of the files, which include those with a blank side.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from nmt.cluster.pool import translate_missing
from nmt.cluster.shards import RECORD, PerProcess, Shard, check_record, compute_model_digest, remove_if_none_is_done
from nmt.config.file import load_stored_config
from nmt.data.cleaning import KEPT, CleaningReport, find_verdicts
from nmt.data.corpus import ParallelCorpus, split_indices
from nmt.data.token_cache import CachedTokens
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.evaluation.scoring import check_scores
from nmt.files import discard, folder_lock
from nmt.model_folder import CONFIG, SOURCE, TARGET, find_first_member
from nmt.streams import open_bytes, open_output
from nmt.translators.protocol import WINDOW, Translator

SHARD_PAIRS = 4 * WINDOW
SCORES, VERDICTS = "scores", "verdicts.tsv"
WORK = ".work"  # folder of the index of the text, until the command is done
STAGED = "staged"  # folder in it for files that are not whole yet
BLANK, BY_SCORE = "blank", "score"  # verdicts, besides the names of the rules
# Rounding to bfloat16 would change log-probabilities in their second digit.
PRECISION = {"precision": "float32"}

Log = Callable[[str], None]


@dataclass(frozen=True)
class Rules:
    """Filters that need no model, as in the section `data` of a configuration."""

    max_length: int | None = None
    """Largest number of tokens on either side."""
    max_ratio: float | None = None
    """Largest ratio between the lengths of the two sides, in tokens."""
    drop_identical: bool = False
    drop_duplicates: bool = False


@dataclass(frozen=True)
class ScoreRule:
    """Keeps the pairs that a model, or two of them, find probable.

    With one model, the score of a pair is the mean log-probability (nats) of the target's tokens, EOS included. With a
    model of the other direction it is that of dual conditional cross-entropy, -|H - H'| - (H + H') / 2, where H and H'
    are the negative means of both models (Junczys-Dowmunt 2018, whose score is the exponential of this).
    """

    model: Path
    """Translates from source to target."""
    reverse: Path | None = None
    """Translates from target to source."""
    min_score: float | None = None
    """Lowest score to keep."""
    keep: float | None = None
    """Share of the scored pairs to keep, those with the highest scores."""


@dataclass(frozen=True, eq=False)
class ScoreShard(Shard):
    """Some pairs of a corpus, and the file of their scores: the mean log-probability of a token, a line per pair."""

    doing: ClassVar[str] = "scoring"
    done: ClassVar[str] = "scored"

    pairs: np.ndarray
    """int64, numbers of the pairs in the corpus."""
    corpus: PerProcess[ParallelCorpus]
    """Opening it reads its whole index, and all of a compressed file."""
    is_reverse: bool = False
    """Whether the model reads the target and scores the source."""

    @property
    def name(self) -> str:
        """Its name in the log."""
        return f"{self.target.stem} of {self.source.name}"

    def translate(self, translator: Translator) -> int:
        """Scores the pairs and returns their number."""
        sides = self.corpus.value.read_texts(self.pairs)
        pairs = zip(*(reversed(sides) if self.is_reverse else sides), strict=True)
        with self._open_target() as out:
            for scored in translator.score(pairs):
                out.write(f"{scored.mean_log_prob:.4f}\n")
        return len(self.pairs)


def clean_files(
    source: Path,
    target: Path,
    *,
    into: Path,
    rules: Rules,
    by_score: ScoreRule | None = None,
    workers: int | None = None,
    address: str | None = None,
    log: Log = print,
) -> CleaningReport:
    """Filters two parallel files into files of the same names, and writes a verdict for each line.

    Args:
        source: file of source lines.
        target: file of their translations.
        into: folder for the two files, for `verdicts.tsv` and for the scores. All workers must see it, the models and
            the text.
        rules: filters that are applied first. With a model, pairs longer than it was trained with are dropped unless
            another `max_length` is given.
        by_score: filter that is applied last.
        workers: see `translate_missing`.
        address: see `translate_missing`.
        log: prints a line.

    Returns:
        How many lines were kept, and how many each filter dropped.

    Raises:
        UserError: text, models or folder cannot be used, options contradict each other, no pair is left, or some shards
            could not be scored (all others are).
        InterruptionError: a signal arrived; finished shards stay.
    """
    _check(source, target, into, rules, by_score)
    files = [into / source.name, into / target.name, into / VERDICTS]
    with folder_lock(into, doing="cleaning", provisional=[RECORD], reusable=[WORK]):
        cache = into / WORK
        with remove_if_none_is_done((), [cache], errors=UserError):
            opened = PerProcess(ParallelCorpus.open, ([(source, target)], cache))
            corpus = opened.value
            lengths = np.ones((len(corpus), 2), np.int32)  # unused without a model
            if by_score:
                rules, lengths = _count_tokens(corpus, rules, by_score.model, cache)
            names, verdicts = find_verdicts(corpus, lengths, **vars(rules))
            report = _count_lines(corpus, names, verdicts)
            # Not before, so that rules that leave nothing can be relaxed in the same folder.
            made_with = {**vars(rules), "text": corpus.fingerprint}
            if by_score and by_score.reverse:
                made_with["reverse"] = compute_model_digest(by_score.reverse)
            model = by_score.model if by_score else None
            check_record(into, files, model, made_with, parts=(into / SCORES).glob("*.txt"), kind="a corpus")
        scores: Scores | None = None
        if by_score:
            log(str(CleaningReport.count(names, verdicts)))
            scores = _score(source, opened, into, np.flatnonzero(verdicts == KEPT), by_score, workers, address, log)
            log(scores.describe(by_score))
            verdicts[scores.pairs[~scores.choose(by_score)]] = len(names)
            names = [*names, BY_SCORE]
            report = _count_lines(corpus, names, verdicts)
        staged = [cache / STAGED / file.name for file in files]
        _write(corpus, staged, names, verdicts, scores)
        # The first file is missing until all are new, so that two sides of different runs never stand side by side,
        # whenever the process dies. The same command then writes all of them again.
        discard(files[0])
        for file, new in zip(reversed(files), reversed(staged), strict=True):
            new.replace(file)
        discard(cache)
    return report


def _count_lines(corpus: ParallelCorpus, names: Sequence[str], verdicts: np.ndarray) -> CleaningReport:
    """Counts the verdicts of the lines of both files.

    Raises:
        UserError: no pair is left.
    """
    report = CleaningReport.count([*names, BLANK], np.append(verdicts, np.full(corpus.num_blank, len(names))))
    if not report.kept:
        raise UserError(f"Cleaning left no sentence pair. Relax its limits.\n{report}")
    return report


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of some pairs of a corpus."""

    pairs: np.ndarray
    """int64 [N], their numbers in the corpus."""
    forward: np.ndarray
    """float64 [N], mean log-probability of a target token."""
    reverse: np.ndarray | None = None
    """float64 [N], mean log-probability of a source token, given the target."""

    @cached_property
    def combined(self) -> np.ndarray:
        """The scores that rank pairs: float64 [N]; see `ScoreRule`."""
        if self.reverse is None:
            return self.forward
        return (self.forward + self.reverse) / 2 - np.abs(self.forward - self.reverse)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """All numbers by name."""
        if self.reverse is None:
            return {"score": self.combined}
        return {"score": self.combined, "forward": self.forward, "reverse": self.reverse}

    def choose(self, rule: ScoreRule) -> np.ndarray:
        """Returns which pairs to keep: bool [N]. Of equal pairs, earlier ones are kept first."""
        if rule.keep is None:
            return self.combined >= rule.min_score
        chosen = np.zeros(len(self.combined), bool)
        chosen[np.argsort(-self.combined, kind="stable")[: max(1, round(rule.keep * len(chosen)))]] = True
        return chosen

    def describe(self, rule: ScoreRule) -> str:
        """Returns the spread of the scores in a line, with which another threshold can be chosen."""
        shares = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
        spread = ", ".join(
            f"{share:.0%} {value:.2f}" for share, value in zip(shares, np.quantile(self.combined, shares), strict=True)
        )
        kept = self.combined[self.choose(rule)]
        lowest = f"; kept from {kept.min():.4f}" if len(kept) else ""
        return f"Quantiles of the scores: {spread}{lowest}."


def _check(source: Path, target: Path, into: Path, rules: Rules, by_score: ScoreRule | None) -> None:
    """Raises UserError for mistakes that are found before any text is read."""
    if source.name == target.name:
        raise UserError(f"{source} and {target} have the same name, and so would the files in {into}. Rename one.")
    for file in (source, target):
        if file.name in (VERDICTS, SCORES, WORK, RECORD):
            raise UserError(f"{file} has the name of something else that nmt clean writes to {into}. Rename it.")
        if (into / file.name).resolve() == file.resolve():
            raise UserError(f"{into} holds the text to clean. Choose another folder with --into.")
        open_bytes(file).close()
    if by_score is None:
        for name in ("max_length", "max_ratio"):
            if getattr(rules, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} counts tokens of the model of --by-score. Add that model.")
        if not rules.drop_identical and not rules.drop_duplicates:
            raise UserError("Expected a filter: --by-score MODEL, --drop-identical or --drop-duplicates.")
        return
    if (by_score.min_score is None) == (by_score.keep is None):
        raise UserError("--by-score needs one of --min-score, the lowest score to keep, and --keep, a share of pairs.")
    if by_score.keep is not None and not 0 < by_score.keep < 1:
        raise UserError(f"--keep: expected a share above 0 and below 1, such as 0.8; found {by_score.keep:g}.")
    if by_score.min_score is not None and not by_score.min_score <= 0:
        raise UserError(
            f"--min-score: expected 0 or less, because scores are log-probabilities; found {by_score.min_score:g}."
        )
    check_scores(by_score.model)
    if by_score.reverse:
        check_scores(by_score.reverse)
        _check_direction(by_score.model, by_score.reverse)


def _check_direction(model: Path, reverse: Path) -> None:
    forward, backward = (
        (data.source_language, data.target_language)
        for data in (load_stored_config(find_first_member(path) / CONFIG).data for path in (model, reverse))
    )
    if backward != forward[::-1]:
        raise UserError(
            f"--reverse: expected a model from {forward[1]} to {forward[0]}, because {model} translates from "
            f"{forward[0]} to {forward[1]}; {reverse} translates from {backward[0]} to {backward[1]}."
        )


def _count_tokens(corpus: ParallelCorpus, rules: Rules, model: Path, cache: Path) -> tuple[Rules, np.ndarray]:
    """Returns the rules with the length limit of a model, unless they have one, and the tokens of each pair [N, 2]."""
    folder = find_first_member(model)
    tokenizers = Tokenizer.load_pair(folder / SOURCE, folder / TARGET)
    most = rules.max_length or load_stored_config(folder / CONFIG).data.max_length
    limited = Rules(most, rules.max_ratio, rules.drop_identical, rules.drop_duplicates)
    return limited, CachedTokens.open(corpus, *tokenizers, cache).lengths


def _score(
    source: Path,
    corpus: PerProcess[ParallelCorpus],
    into: Path,
    pairs: np.ndarray,
    rule: ScoreRule,
    workers: int | None,
    address: str | None,
    log: Log,
) -> Scores:
    """Scores these pairs, except those whose scores are known."""

    def score(model: Path, name: str, is_reverse: bool) -> np.ndarray:
        shards = [
            ScoreShard(
                source, into / SCORES / f"{name}-{start}.txt", pairs[start : start + SHARD_PAIRS], corpus, is_reverse
            )
            for start in range(0, len(pairs), SHARD_PAIRS)
        ]
        translate_missing(model, shards, settings=PRECISION, workers=workers, address=address, log=log)
        return np.concatenate([_read_scores(shard) for shard in shards])

    (into / SCORES).mkdir(exist_ok=True)
    forward = score(rule.model, "forward", False)
    return Scores(pairs, forward, score(rule.reverse, "reverse", True) if rule.reverse else None)


def _read_scores(shard: ScoreShard) -> np.ndarray:
    try:
        scores = np.array([float(line) for line in shard.target.read_text("ascii").splitlines()])
    except ValueError:
        scores = np.zeros(0)
    if len(scores) != len(shard.pairs):
        raise UserError(f"{shard.target} is damaged. Remove it, and run the same command again.")
    return scores


def _write(
    corpus: ParallelCorpus, files: Sequence[Path], names: Sequence[str], verdicts: np.ndarray, scores: Scores | None
) -> None:
    """Writes the pairs that are kept, and the verdict of each line."""
    words = np.array([*names, "kept"], object)  # KEPT is the last one
    numbers: dict[str, np.ndarray] = {}
    if scores:
        for name, column in scores.columns.items():
            numbers[name] = np.full(len(corpus), np.nan)
            numbers[name][scores.pairs] = column
    blank = "\t".join([BLANK, *("" for _ in numbers)])
    done = 0  # lines of the files
    with ExitStack() as stack:
        sources, targets, rows = (stack.enter_context(open_output(path)) for path in files)
        rows.write("\t".join(["line", "verdict", *numbers]) + "\n")
        for pairs in split_indices(len(corpus)):
            kept = pairs[verdicts[pairs] == KEPT]
            for out, texts in zip((sources, targets), corpus.read_texts(kept), strict=True):
                out.writelines(f"{text}\n" for text in texts)
            columns = (words[verdicts[pairs]], *(column[pairs] for column in numbers.values()))
            for line, word, *values in zip(corpus.find_lines(pairs), *columns, strict=True):
                rows.writelines(f"{number + 1}\t{blank}\n" for number in range(done, line))
                fields = ("" if np.isnan(value) else f"{value:.4f}" for value in values)
                rows.write("\t".join([str(line + 1), word, *fields]) + "\n")
                done = line + 1
        rows.writelines(f"{number + 1}\t{blank}\n" for number in range(done, corpus.count_lines(0)))
