"""Fits the confidence of a model on dev text, and compares it with the chrF of translations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nmt.config.file import load_stored_config
from nmt.data.corpus import read_parallel
from nmt.data.preparation import read_dev
from nmt.errors import UserError
from nmt.evaluation.metrics import check_pairs, make_sentence_metric
from nmt.files import get_current_version
from nmt.model_folder import CONFIG, WEIGHTS, find_first_member, find_model_folder, is_ensemble, save_confidence
from nmt.translators.confidence import FEATURES, Confidence, measure_features, measure_length_ratio
from nmt.translators.hypothesis import Translation
from nmt.translators.model import ModelTranslator
from nmt.translators.protocol import split_tag

MIN_SENTENCES = 100
"""With fewer dev sentences, the fit would depend on chance."""
MAX_SENTENCES = 1000
"""More sentences take longer to translate and hardly change the fit."""
GROUP = 20  # sentences whose mean is one point of the curve
NUM_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Translations of similar confidence."""

    low: float
    """Lower end of their range of confidence, which is a tenth wide."""
    sentences: int
    confidence: float
    """Their mean confidence."""
    chrf: float
    """Their mean sentence-level chrF, divided by 100."""


@dataclass(frozen=True)
class Reliability:
    """How the confidence in translations compares with their chrF."""

    bins: Sequence[Bin]
    error: float
    """Expected calibration error: mean distance between confidence and chrF of a bin, weighted by its sentences."""
    correlation: float | None
    """Pearson's correlation between the confidence and the chrF of sentences; None if one of them is constant."""

    def as_table(self) -> str:
        """Returns a table, and a line below it."""
        form = "{:.1f} to {:.1f} {:>10,} {:>6.2f} {:>11.2f}"
        rows = [
            form.format(one.low, one.low + 1 / NUM_BINS, one.sentences, one.confidence, one.chrf) for one in self.bins
        ]
        below = f"calibration error {self.error:.3f}"
        if self.correlation is not None:
            below += f", correlation {self.correlation:.2f}"
        return "\n".join(["confidence  sentences   mean  chrF / 100", *rows, below])


def calibrate(model: Path, sources: Sequence[str], references: Sequence[str]) -> Confidence:
    """Fits the confidence of a model or an ensemble and stores it there.

    Args:
        model: a run folder (its best model), a model folder or an ensemble.
        sources: dev sentences, with their tags. Of more than MAX_SENTENCES, an even sample is translated.
        references: a human translation of each.

    Raises:
        UserError: there is no such model, it cannot be written, its weights were replaced in the meantime, or there are
            too few sentences.
    """
    check_pairs(sources, [references])
    pairs = [(source, target) for source, target in zip(sources, references, strict=True) if source.strip()]
    pairs = pairs[:: -(-len(pairs) // MAX_SENTENCES) or 1]
    if len(pairs) < MIN_SENTENCES:
        raise UserError(f"Confidence needs {MIN_SENTENCES} dev sentences or more, found {len(pairs)}.")
    path = model if is_ensemble(model) else find_model_folder(model)
    loaded = _identify_weights(path)
    translator = ModelTranslator.load(path, precision="float32")
    # Confidence is estimated from the text that the model reads and writes, in which symbols stand for what is copied.
    protected = [translator.terms.protect(source) for source, _ in pairs]
    translations = translator.without_terms().translate_texts([one.text for one in protected], split=False)
    restored = [text.restore_text(one.text) for text, one in zip(protected, translations, strict=True)]
    confidence = fit_confidence(
        [replace(one, source=split_tag(one.source, translator.tags)[1]) for one in translations],
        score_sentences(restored, [target for _, target in pairs]),
    )
    if _identify_weights(path) != loaded:
        raise UserError(f"{path} has other weights now, as in a run that is still training. Run nmt calibrate again.")
    save_confidence(path, asdict(confidence))
    return confidence


def _identify_weights(path: Path) -> list[tuple[int, int]]:
    """Returns numbers that change when other weights are written to a model folder, or to a member of an ensemble."""
    files = sorted(path.glob(f"*/{WEIGHTS}")) if is_ensemble(path) else [get_current_version(path) / WEIGHTS]
    return [(found.st_ino, found.st_mtime_ns) for found in (file.stat() for file in files)]


def read_text(model: Path, source: Path | None, reference: Path | None) -> tuple[list[str], list[str]]:
    """Returns the sentences of two files, or of the dev sets of a model or of the first member of an ensemble.

    Raises:
        UserError: a file is missing, or they have different numbers of lines.
    """
    if source is not None and reference is not None:
        return read_parallel(source, reference)
    sets = read_dev(load_stored_config(find_first_member(model) / CONFIG))
    return [line for one in sets for line in one.sources], [line for one in sets for line in one.targets]


def score_sentences(hypotheses: Sequence[str], *references: Sequence[str]) -> np.ndarray:
    """Returns the sentence-level chrF of hypotheses, divided by 100: float64 [N].

    Args:
        hypotheses: N of them.
        *references: N human translations each; the best one of several counts.
    """
    chrf = make_sentence_metric("chrf", None)
    scores = [[chrf(*pair) for pair in zip(hypotheses, lines, strict=True)] for lines in references]
    return np.max(scores, axis=0) / 100


def fit_confidence(translations: Sequence[Translation], chrf: np.ndarray) -> Confidence:
    """Fits the confidence in translations to their sentence-level chrF.

    The weights of the features are those of least squares, but none may have the wrong sign: more probable translations
    and those of usual length are never worse. Isotonic regression then gives the expected chrF of every weighted sum.

    Args:
        translations: N of them, whose sources have no tag.
        chrf: see `score_sentences`.
    """
    ratio = float(np.median([measure_length_ratio(one.source, one.text) for one in translations]))
    features = np.array([measure_features(one.source, one.best, ratio) for one in translations])  # [N, F]
    signs = np.array([1.0, -1.0])
    weights = _fit_weights(features * signs, chrf) * signs
    # Of each group of neighbours, the mean is a point; single sentences would make a ragged curve.
    order = np.argsort(features @ weights, kind="stable")
    groups = np.array_split(order, max(1, len(order) // GROUP))
    sums, inverse = np.unique([(features @ weights)[group].mean() for group in groups], return_inverse=True)
    sizes = np.bincount(inverse, [len(group) for group in groups])
    means = np.bincount(inverse, [chrf[group].sum() for group in groups]) / sizes
    values = pool_adjacent_violators(means, sizes)
    return Confidence(ratio, weights.tolist(), sums.tolist(), values.tolist(), len(translations))


def _fit_weights(features: np.ndarray, chrf: np.ndarray) -> np.ndarray:
    """Returns weights [F] of least squares that are not negative, of features that are standardized first."""
    weights, used = np.zeros(len(FEATURES)), np.ptp(features, axis=0) > 0
    while used.any():
        scale = features[:, used].std(axis=0)
        columns = (features[:, used] - features[:, used].mean(axis=0)) / scale
        found = np.linalg.lstsq(columns, chrf - chrf.mean(), rcond=None)[0] / scale
        if (found >= 0).all():
            weights[used] = found
            break
        used[np.flatnonzero(used)[found < 0]] = False
    return weights


def pool_adjacent_violators(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the non-decreasing sequence that is nearest to values by weighted squares (isotonic regression).

    Args:
        values: float [N].
        weights: float [N], above 0.

    Returns:
        float64 [N].
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight and number of values
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, size, count = blocks.pop()
            total = size + block[1]
            block = ((mean * size + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    means, _, counts = zip(*blocks, strict=True)
    return np.repeat(means, counts)


def measure_reliability(confidences: Sequence[float], chrf: np.ndarray) -> Reliability:
    """Compares the confidence in translations with their sentence-level chrF (see `score_sentences`)."""
    confidence = np.asarray(confidences)
    numbers = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        ours = numbers == number
        bins.append(Bin(number / NUM_BINS, int(ours.sum()), float(confidence[ours].mean()), float(chrf[ours].mean())))
    error = sum(one.sentences * abs(one.confidence - one.chrf) for one in bins) / len(confidence)
    is_constant = np.ptp(confidence) == 0 or np.ptp(chrf) == 0
    return Reliability(bins, error, None if is_constant else float(np.corrcoef(confidence, chrf)[0, 1]))
