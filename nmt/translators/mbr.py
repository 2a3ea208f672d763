"""Minimum Bayes risk decoding (Kumar and Byrne 2004): the candidate with the highest expected utility.

The utility of a candidate is its sentence score if another candidate were the reference, exactly as sacreBLEU computes
it. All K x K scores of a sentence are computed together.

K candidates, V different n-grams of one order.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from nmt.data.languages import parse_language
from nmt.errors import UserError

Utility = Callable[[Sequence[str]], np.ndarray]
"""From K texts to float64 [K, K]: the score, 0 to 100, of each row's text if that of the column is the reference."""


def rank_by_utility(
    texts: Sequence[str], utility: Utility, log_probs: Sequence[float] | None
) -> list[tuple[int, float]]:
    """Ranks candidates by their expected utility.

    Args:
        texts: K candidates.
        utility: as from `make_utility`.
        log_probs: of the candidates (nats), by which references are weighted; None for samples, which are drawn by
            their probabilities and so have equal weights.

    Returns:
        Index and expected utility of every different text, best first; of equal ones, the first.
    """
    weights = np.ones(len(texts)) if log_probs is None else np.exp(np.asarray(log_probs) - max(log_probs))
    expected = utility(texts) @ (weights / weights.sum())  # [K, K] x [K] -> [K]
    order = np.argsort(-expected, kind="stable").tolist()
    first = {text: n for n, text in reversed(list(enumerate(texts)))}
    return [(n, float(expected[n])) for n in order if first[texts[n]] == n]


@cache
def make_utility(name: str, target_language: str | None) -> Utility:
    """Returns a utility by its name, chrf or bleu.

    Args:
        name: see `decoding.mbr`.
        target_language: code that chooses BLEU's tokenizer.

    Raises:
        UserError: the tokenizer of the language is not installed.
    """
    if name == "chrf":
        return compute_chrf
    tokenizer = parse_language(target_language).bleu_tokenizer
    try:
        tokenize = BLEU(tokenize=tokenizer).tokenizer
    except RuntimeError as error:
        raise UserError(
            f"decoding.mbr bleu needs the tokenizer MeCab for {target_language!r}, which is not installed. Install it "
            f"with: pip install 'sacrebleu[{tokenizer.split('-')[0]}]', or use decoding.mbr=chrf."
        ) from error
    return lambda texts: compute_bleu([tokenize(text.rstrip()).split() for text in texts])


def compute_chrf(texts: Sequence[str]) -> np.ndarray:
    """Returns the sentence-level chrF (Popović 2015) between all texts; see `Utility`."""
    shape = (len(texts), len(texts))
    precision, recall, num_orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for matches, totals in _count_matches(["".join(text.split()) for text in texts], CHRF.CHAR_ORDER):
        both = np.minimum(totals[:, None], totals) > 0  # orders that one of the texts is too short for do not count
        precision += np.where(both, matches / np.maximum(totals[:, None], 1), 0)
        recall += np.where(both, matches / np.maximum(totals, 1), 0)
        num_orders += both
    precision, recall = precision / np.maximum(num_orders, 1), recall / np.maximum(num_orders, 1)
    factor = CHRF.BETA**2
    total = factor * precision + recall
    return 100 * (1 + factor) * precision * recall / np.where(total > 0, total, 1)


def compute_bleu(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns the sentence-level BLEU between all texts, given in words; see `Utility`.

    As in sacreBLEU, precisions without a match are smoothed by halving (Chen and Cherry 2014, method 3), and orders
    that the text is too short for are left out.
    """
    lengths = np.array([len(text) for text in texts])
    shape = (len(texts), len(texts))
    log_precisions, num_orders, halved = np.zeros(shape), np.zeros(len(texts)), np.zeros(shape)
    has_match = np.zeros(shape, bool)
    for matches, totals in _count_matches(texts, 4):
        has_match |= matches > 0
        halved += matches == 0
        found = np.where(matches > 0, matches, 0.5**halved) / np.maximum(totals[:, None], 1)
        log_precisions += np.where(totals[:, None] > 0, np.log(found), 0)
        num_orders += totals > 0
    mean = log_precisions / np.maximum(num_orders[:, None], 1)
    brevity = np.minimum(1 - lengths / np.maximum(lengths[:, None], 1), 0)
    return np.where(has_match, 100 * np.exp(mean + brevity), 0)


def _count_matches(rows: Sequence[Sequence[Hashable]], max_order: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields, for n-grams of each order, how many each two rows share, [K, K], and how many each row has, [K]."""
    for counts in _count_ngrams(rows, max_order):
        matches = np.zeros((len(rows), len(rows)), "float32")  # exact up to 2^24
        # The sum of min(a, b) over n-grams is the number of thresholds that both counts reach.
        for threshold in range(1, counts.max(initial=0) + 1):
            reaches = (counts >= threshold).astype("float32")
            matches += reaches @ reaches.T
        yield matches.astype("float64"), counts.sum(axis=1)


def _count_ngrams(rows: Sequence[Sequence[Hashable]], max_order: int) -> Iterator[np.ndarray]:
    """Yields how often each row has each n-gram, int [K, V], for n from 1 to `max_order`."""
    numbers: dict[Hashable, int] = {}
    symbols = np.array([numbers.setdefault(one, len(numbers)) for row in rows for one in row], "int64")
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    grams = symbols
    for order in range(1, max_order + 1):
        if order > 1:
            # An n-gram is one of the order before and the symbol that follows it.
            pairs = grams[:-1] * max(1, len(numbers)) + symbols[order - 1 :]
            _, grams = np.unique(pairs, return_inverse=True)
        size = int(grams.max(initial=-1)) + 1
        last = owners[order - 1 :]
        inside = owners[: len(last)] == last
        places = owners[: len(last)][inside] * size + grams[inside]
        yield np.bincount(places, minlength=len(rows) * size).reshape(len(rows), size)
