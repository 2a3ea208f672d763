"""Scores given translations by their log-probabilities, per sentence and per token."""

import json
from pathlib import Path
from typing import IO

from nmt.data.corpus import read_parallel
from nmt.errors import UserError
from nmt.translators.hypothesis import ScoredTranslation
from nmt.translators.opening import find_folder, find_kind, open_translator


def score_files(model: Path, source: Path, target: Path, out: IO[str], *, as_json: bool) -> None:
    """Scores the lines of a file as translations of those of another.

    Args:
        model: a run folder, a model folder or an ensemble.
        source: file of the source lines, or "-" for standard input.
        target: file of their translations.
        out: receives one line per pair.
        as_json: whether to write JSON objects (source, target, log_prob, tokens and token_log_probs) rather than the
            log-probability of the translation and the mean of its tokens, separated by a tab.

    Raises:
        UserError: there is no model, an export is given, or the files differ in length.
    """
    check_scores(model)  # a mistake in its path is reported before the text is read
    pairs = zip(*read_parallel(source, target), strict=True)
    # Rounding to bfloat16 would change log-probabilities in their second digit.
    for one in open_translator(model, precision="float32").score(pairs):
        out.write(_format(one, as_json=as_json) + "\n")


def check_scores(model: Path) -> None:
    """Raises UserError unless there is a model that can score translations, without opening it."""
    kind = find_kind(model)
    if kind.fixed:
        raise UserError(
            f"{model} is an export ({kind.name}), which does not score translations. Give the model that it was made "
            "from."
        )
    find_folder(model)


def _format(one: ScoredTranslation, *, as_json: bool) -> str:
    if as_json:
        record = {
            "source": one.source,
            "target": one.text,
            "log_prob": one.log_prob,
            "tokens": list(one.tokens),
            "token_log_probs": list(one.token_log_probs),
        }
        return json.dumps(record, ensure_ascii=False)
    return f"{one.log_prob:.4f}\t{one.mean_log_prob:.4f}"
