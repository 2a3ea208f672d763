"""Reads what a run folder records of its training. Older versions recorded less."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nmt.config.file import load_stored_config
from nmt.config.schema import Config
from nmt.data.corpus import read_lines
from nmt.data.preparation import DevSet, read_dev
from nmt.errors import UserError
from nmt.evaluation.metrics import score_bleu
from nmt.files import get_current_version, read_json_lines
from nmt.model_folder import WEIGHTS, describe_no_folder
from nmt.training.run_folder import RunFolder
from nmt.weights import load_arrays

FACTS = {"update": "update", "bleu": "dev_bleu", "loss": "dev_loss"}
"""Names in a record, and those of the facts of the best model that equal them."""
OLD_NAMES = {"pieces_per_second": "tokens_per_second"}
DATA_KEYS = {"pairs", "blank", "kept", "examples", "tokens", "vocabularies"}
"""What a report needs of data.json."""
MAX_INTERVALS = 50
Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecords:
    """The records of one run."""

    path: Path
    config: Config
    training: Sequence[Record]
    """Records of updates in `history.jsonl`, in order."""
    validations: Sequence[Record]
    """Records of validations."""
    averages: Sequence[Record]
    """Records of the average of the last checkpoints."""
    dev: Sequence[DevSet]
    """The text that validations translate; empty if it cannot be read."""
    translations: Mapping[int, Mapping[str, Sequence[str]]]
    """The translations of each validation, by its update and the name of the dev set."""
    data: Record | None
    """What training read (`data.json`)."""
    facts: Record
    """Facts that are stored with the best model; empty if there is none."""
    num_weights: int
    """Numbers in the best model's weights; 0 if there is none."""
    missing: list[str] = field(default_factory=list)
    """Records that this run lacks, and why, in words."""

    @property
    def last_update(self) -> int:
        """The last update of which there is a record."""
        return max((one["update"] for one in (*self.training, *self.validations)), default=0)

    @property
    def best(self) -> Record | None:
        """The validation or average of the best model, or the validation with the best BLEU if there is no model.

        If a rollback has undone the updates that led to the model, the scores that are stored with the model.
        """
        facts = {name: self.facts.get(fact) for name, fact in FACTS.items()}
        known = {name: value for name, value in facts.items() if value is not None and not _is_infinite(value)}
        averages = [one for one in self.averages if one.get("is_best")]
        # The average of the last checkpoints is made after the validation of the same update.
        for one in (*reversed(averages), *reversed(self.validations)):
            if known and known.items() <= one.items():
                return one
        if known.keys() > {"update"}:
            return known
        return max(self.validations, key=lambda one: one.get("bleu") or 0, default=None)

    @property
    def best_translations(self) -> Mapping[str, Sequence[str]]:
        """The translations by the best model, by dev set, if they were kept.

        Those of an average are not kept, and those of undone updates were replaced when the updates were repeated.
        """
        best = self.best
        return {} if best is None or best not in self.validations else self.translations.get(best["update"], {})

    @cached_property
    def intervals(self) -> dict[str, dict[int, tuple[float, float]]]:
        """The 95 % intervals of BLEU by dev set and update.

        They are those of the best validation and of at most `MAX_INTERVALS` others, evenly spaced, whose translations
        were kept: each takes half a second for a thousand sentences.
        """
        updates = list(self.translations)
        chosen = set(updates[:: -(-len(updates) // MAX_INTERVALS) or 1])
        if self.best_translations and self.best is not None:
            chosen.add(self.best["update"])
        return {one.name: {update: _score(one, self.translations[update]) for update in chosen} for one in self.dev}


def read_run(path: Path) -> RunRecords:
    """Reads the records of a run, which may still be training.

    Raises:
        UserError: the folder is not that of a run.
    """
    folder, expected = RunFolder(path), "Expected the folder of a run, with config.yaml and history.jsonl."
    if not path.is_dir():
        raise UserError(describe_no_folder(path, expected))
    if not folder.config.is_file() or (path / WEIGHTS).is_file():
        hint = "a model folder, which does not record its training" if (path / WEIGHTS).is_file() else "not a run"
        raise UserError(f"{path} is {hint}. {expected}")
    config = load_stored_config(folder.config)
    lines, damaged = read_json_lines(folder.history, key="update")
    records = [
        {OLD_NAMES.get(name, name): value for name, value in record.items() if not _is_infinite(value)}
        for _, record in lines
    ]
    missing = []
    if damaged:
        missing.append(f"{len(damaged)} damaged lines of {folder.history}.")
    if not records:
        missing.append("Curves: nothing is recorded in history.jsonl yet.")
    kinds: dict[str, list[Record]] = {"training": [], "validation": [], "average": []}
    for record in records:
        if record.get("kind") in kinds:
            kinds[record["kind"]].append(record)
    dev = _read_dev(config, missing)
    facts, num_weights = _read_facts(folder, missing)
    return RunRecords(
        path,
        config,
        kinds["training"],
        kinds["validation"],
        kinds["average"],
        dev,
        _read_translations(folder, kinds["validation"], dev, missing),
        _read_data(folder, missing),
        facts,
        num_weights,
        missing,
    )


def _is_infinite(value: Any) -> bool:
    """Returns whether a value is infinite or NaN, which JSON does not have but Python reads."""
    return isinstance(value, float) and not math.isfinite(value)


def _score(dev: DevSet, translations: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    found = score_bleu(translations[dev.name], dev.targets, target_language=dev.target_language)
    assert found.interval is not None
    return found.interval


def _read_dev(config: Config, missing: list[str]) -> list[DevSet]:
    try:
        return read_dev(config)
    except UserError as error:
        missing.append(f"Dev sentences: {error}")
        return []


def _read_facts(folder: RunFolder, missing: list[str]) -> tuple[Record, int]:
    try:
        arrays, facts = load_arrays(get_current_version(folder.best) / WEIGHTS)
    except UserError:
        missing.append("The best model: the first validation writes it.")
        return {}, 0
    return facts, sum(array.size for array in arrays.values())


def _read_translations(
    folder: RunFolder, validations: Sequence[Record], dev: Sequence[DevSet], missing: list[str]
) -> dict[int, dict[str, list[str]]]:
    """Reads what `training.keep_translations` kept, of the validations that are in the history."""
    found: dict[int, dict[str, list[str]]] = {}
    for update in [record["update"] for record in validations]:
        paths = {one.name: folder.locate_translations(update, one.name) for one in dev}
        if not dev or not all(path.is_file() for path in paths.values()):
            continue
        texts = {name: read_lines(path) for name, path in paths.items()}
        differing = [one for one in dev if len(texts[one.name]) != len(one.targets)]
        if not differing:
            found[update] = texts
        for one in differing:
            missing.append(
                f"{paths[one.name]} has {len(texts[one.name]):,} lines, but the dev text has {len(one.targets):,} now."
            )
    if validations and dev and not found:
        missing.append(
            "Dev samples over time and the confidence interval of BLEU: the translations of validations were not kept "
            "(training.keep_translations is false, or an older version trained the run)."
        )
    return found


def _read_data(folder: RunFolder, missing: list[str]) -> Record | None:
    try:
        record = json.loads(folder.data.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if isinstance(record, dict) and record.keys() >= DATA_KEYS:
        return record
    missing.append("The data report: data.json is missing, as in runs of older versions, or damaged.")
    return None
