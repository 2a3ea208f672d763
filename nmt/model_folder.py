"""A trained model as a folder that needs nothing else.

config.yaml     the configuration that the model was trained with
source.model    the source tokenizer (SentencePiece)
target.model    the target tokenizer, which may be the same
weights.h5      every weight by its path (see nmt/weights.py)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmt.config.file import dump_config, load_stored_config
from nmt.config.schema import Config, ModelConfig
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import atomic_replace, check_size, get_current_version
from nmt.weights import load_arrays, save_arrays

CONFIG, SOURCE, TARGET, WEIGHTS = "config.yaml", "source.model", "target.model", "weights.h5"
# Far larger than these files ever are, but bounded, since a folder may come from anywhere.
MAX_BYTES = {CONFIG: 1 << 20, SOURCE: 1 << 28, TARGET: 1 << 28}
# Types of the facts that are read when a model is opened or described.
FACT_TYPES = {"update": int, "dev_bleu": float, "multi_sentence_share": float, "versions": dict}


@dataclass(frozen=True)
class ModelFolder:
    """The contents of a model folder."""

    config: Config
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    weights: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    """Where the model comes from: update, score, versions, fingerprints of the tokenizers."""

    def save(self, path: Path) -> None:
        """Writes the folder, replacing an older one (see `atomic_replace`).

        Raises:
            UserError: the folder cannot be written.
        """
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
            UserError: the folder is missing, is not a model folder, or its files do not belong together.
        """
        path = find_model_folder(path)
        for name, limit in MAX_BYTES.items():
            check_size(path / name, limit)
        try:
            config = load_stored_config(path / CONFIG)
        except UserError:
            load_arrays(path / WEIGHTS)  # a format of another version explains unknown keys better
            raise
        source, target = Tokenizer.load_pair(path / SOURCE, path / TARGET)
        weights, facts = load_arrays(path / WEIGHTS)
        _check_facts(path, facts)
        _check_size(path, config.model, source.vocabulary_size, weights)
        _check_tokenizers(path, source, target, facts)
        return cls(config, source, target, weights, facts)


def find_model_folder(path: Path) -> Path:
    """Returns the model folder at a path: the path itself, or `best` in a run folder.

    Raises:
        UserError: there is no model at the path.
    """
    path = get_current_version(path)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}. Expected a run folder, a model folder or an export.")
    for folder in (path, get_current_version(path / "best")):
        if (folder / WEIGHTS).is_file():
            missing = [name for name in (CONFIG, SOURCE, TARGET) if not (folder / name).is_file()]
            if missing:
                raise UserError(f"The model folder {folder} lacks {', '.join(missing)}.")
            return folder
    if (path / "checkpoints").is_dir():
        raise UserError(f"The run {path} has no best model yet. The first validation writes it.")
    raise UserError(f"{path} is not a model folder: expected {WEIGHTS} in it or in {path / 'best'}.")


def get_fingerprints(source: Tokenizer, target: Tokenizer) -> dict[str, str]:
    """Returns the facts that are stored with weights to recognise the tokenizers that they were trained with."""
    return {"source_tokenizer": source.fingerprint, "target_tokenizer": target.fingerprint}


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    for name, kind in FACT_TYPES.items():
        if name in facts and not isinstance(facts[name], kind | int if kind is float else kind):
            raise UserError(f"{path / WEIGHTS} is damaged: its fact {name} is {facts[name]!r}.")


def _check_size(path: Path, model: ModelConfig, vocabulary_size: int, weights: Mapping[str, np.ndarray]) -> None:
    """Raises UserError if the configured model is larger than its weights, before memory is allocated for it."""
    encoder = (4 * model.encoder_layers - 2) * model.encoder_units**2
    decoder = 4 * model.decoder_layers * model.decoder_units**2
    expected = encoder + decoder + model.embedding_units * vocabulary_size
    if expected > (found := sum(array.size for array in weights.values())):
        raise UserError(
            f"{path / CONFIG} does not fit {WEIGHTS}: a model of this size has more than {expected:,} weights, found "
            f"{found:,}. It belongs to a model of another architecture."
        )


def _check_tokenizers(path: Path, source: Tokenizer, target: Tokenizer, facts: Mapping[str, Any]) -> None:
    found = get_fingerprints(source, target)
    for side, name in (("source", SOURCE), ("target", TARGET)):
        key = f"{side}_tokenizer"
        if facts.get(key, found[key]) != found[key]:
            raise UserError(
                f"{path / name} belongs to another model: {WEIGHTS} was trained with a different tokenizer."
            )
