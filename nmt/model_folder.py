"""A trained model as a folder that needs nothing else: configuration, tokenizers, weights.

config.yaml     the configuration that it was trained with
source.model    SentencePiece; may equal target.model
target.model
weights.h5      every weight by its path, and a format number
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import Config
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import atomic_replace, current_version
from nmt.weights import load_arrays, save_arrays

CONFIG, SOURCE, TARGET, WEIGHTS = "config.yaml", "source.model", "target.model", "weights.h5"


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds."""

    config: Config
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    weights: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    """How it came about: update, score, versions."""

    def save(self, path: Path) -> None:
        """Writes the folder, in place of the one that is there."""
        with atomic_replace(path) as aside:
            aside.mkdir()
            (aside / CONFIG).write_text(dump_config(self.config), encoding="utf-8")
            self.source_tokenizer.save(aside / SOURCE)
            self.target_tokenizer.save(aside / TARGET)
            save_arrays(aside / WEIGHTS, self.weights, self.facts)

    @classmethod
    def load(cls, path: Path) -> "ModelFolder":
        """Reads a model folder, or the best model of a run folder.

        Raises:
            UserError: the folder is missing, is no model, or does not fit together.
        """
        path = find_model_folder(path)
        config = config_from_text("\n".join(read_lines(path / CONFIG)), str(path / CONFIG))
        source, target = Tokenizer.load_pair(path / SOURCE, path / TARGET)
        weights, facts = load_arrays(path / WEIGHTS)
        _check_tokenizers(path, source, target, facts)
        return cls(config, source, target, weights, facts)


def find_model_folder(path: Path) -> Path:
    """Returns the model folder at a path: itself, or `best` where it is a run folder.

    Raises:
        UserError: there is no model.
    """
    path = current_version(path)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}. Expected a run folder, a model folder or an export.")
    for folder in (path, current_version(path / "best")):
        if (folder / WEIGHTS).is_file():
            missing = [name for name in (CONFIG, SOURCE, TARGET) if not (folder / name).is_file()]
            if missing:
                raise UserError(f"The model folder {folder} lacks {', '.join(missing)}.")
            return folder
    if (path / "checkpoints").is_dir():
        raise UserError(f"The run {path} has no best model yet: it is written at the first validation.")
    raise UserError(f"{path} is no model: expected {WEIGHTS} in it, or in {path / 'best'}.")


def get_fingerprints(source: Tokenizer, target: Tokenizer) -> dict[str, str]:
    """What weights remember of the tokenizers that they were trained with."""
    return {"source_tokenizer": source.fingerprint, "target_tokenizer": target.fingerprint}


def _check_tokenizers(path: Path, source: Tokenizer, target: Tokenizer, facts: Mapping[str, Any]) -> None:
    found = get_fingerprints(source, target)
    for side, name in (("source", SOURCE), ("target", TARGET)):
        key = f"{side}_tokenizer"
        if facts.get(key, found[key]) != found[key]:
            raise UserError(
                f"{path / name} is the tokenizer of another model: {WEIGHTS} was trained with a different one."
            )
