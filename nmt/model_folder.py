"""A trained model, or an ensemble of several, as a folder that needs nothing else.

A model has
config.yaml     the configuration that the model was trained with
source.model    the source tokenizer (SentencePiece)
target.model    the target tokenizer, which may be the same
weights.h5      every weight by its path (see nmt/weights.py)
confidence.json what confidence is computed from, if it was fitted (see nmt/translators/confidence.py)
index/          training sentences by their states, if they were indexed (see nmt/inspection/neighbours.py)

An ensemble has
1/, 2/, …       its members, a model folder each
ensemble.json   where they came from, and checksums of their weights
confidence.json as in a model, if it was fitted to what all members translate together
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmt.config.file import dump_config, load_stored_config
from nmt.config.reference import as_words
from nmt.config.schema import Config, ModelConfig
from nmt.data.examples import list_tags
from nmt.data.tokenizer import Tokenizer
from nmt.errors import FormatError, UserError, suggest_name
from nmt.files import (
    atomic_replace,
    atomic_write,
    check_size,
    compute_file_digest,
    get_current_version,
    read_limited,
)
from nmt.weights import load_arrays, save_arrays

ENSEMBLE, ENSEMBLE_FORMAT = "ensemble.json", 1
CONFIG, SOURCE, TARGET, WEIGHTS = "config.yaml", "source.model", "target.model", "weights.h5"
CONFIDENCE, INDEX = "confidence.json", "index"
# Far larger than these files ever are, but bounded, since a folder may come from anywhere.
MAX_BYTES = {CONFIG: 1 << 20, SOURCE: 1 << 28, TARGET: 1 << 28}
MAX_ENSEMBLE_BYTES = MAX_CONFIDENCE_BYTES = 1 << 20
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
    confidence: Mapping[str, Any] | None = None
    """Weights and curve of the confidence in translations; None if it was not fitted."""

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
            if self.confidence:
                save_confidence(aside, self.confidence)

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
        return cls(config, source, target, weights, facts, load_confidence(path))


def find_model_folder(path: Path) -> Path:
    """Returns the model folder at a path: the path itself, or `best` in a run folder.

    Raises:
        UserError: there is no model at the path.
    """
    path = get_current_version(path)
    if not path.is_dir():
        raise UserError(describe_no_folder(path, "Expected a run folder, a model folder or an export."))
    if is_ensemble(path):
        raise UserError(f"{path} is an ensemble. Expected a single model, such as its member {path / '1'}.")
    for folder in (path, get_current_version(path / "best")):
        if (folder / WEIGHTS).is_file():
            missing = [name for name in (CONFIG, SOURCE, TARGET) if not (folder / name).is_file()]
            if missing:
                raise UserError(f"The model folder {folder} lacks {', '.join(missing)}.")
            return folder
    if (path / "checkpoints").is_dir():
        raise UserError(f"The run {path} has no best model yet. The first validation writes it.")
    if is_savedmodel(path) or is_litert(path):
        raise UserError(f"{path} is an export. Expected the run folder or model folder that it was made from.")
    raise UserError(f"{path} is not a model folder: expected {WEIGHTS} in it or in {path / 'best'}.")


def describe_no_folder(path: Path, expected: str) -> str:
    """Returns the message about a path that is not a folder, with the nearest one."""
    if path.exists():
        hint = f" Its folder is {path.parent}." if path.name == WEIGHTS else ""
        return f"{path} is a file. {expected}{hint}"
    neighbours = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    return f"There is no folder {path}.{suggest_name(path.name, neighbours)} {expected}"


def find_first_member(path: Path) -> Path:
    """Returns the model folder at a path (see `find_model_folder`), or that of the first member of an ensemble."""
    return find_model_folder(path / "1" if is_ensemble(path) else path)


def is_ensemble(path: Path) -> bool:
    """Returns whether a folder is an ensemble, without reading its files."""
    return (path / ENSEMBLE).is_file()


def is_savedmodel(path: Path) -> bool:
    """Returns whether a folder is a version of an export, or holds several, without reading its files."""
    return any(path.glob("saved_model.pb")) or any(path.glob("[0-9]*/saved_model.pb"))


def is_litert(path: Path) -> bool:
    """Returns whether a folder is an export for LiteRT, without reading its files."""
    return (path / "model.tflite").is_file()


def save_confidence(path: Path, confidence: Mapping[str, Any]) -> None:
    """Writes weights and curve of the confidence to a model folder or an ensemble, in place of older ones.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_write(path / CONFIDENCE) as aside:
        aside.write_text(json.dumps(confidence) + "\n", encoding="utf-8")


def load_confidence(path: Path) -> Mapping[str, Any] | None:
    """Reads weights and curve of the confidence from a model folder or an ensemble; None if it was not fitted.

    Raises:
        UserError: the file is damaged.
    """
    if not (path / CONFIDENCE).is_file():
        return None
    try:
        found = json.loads(read_limited(path / CONFIDENCE, MAX_CONFIDENCE_BYTES))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path / CONFIDENCE} is damaged: {error}. Remove it, then run nmt calibrate.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path / CONFIDENCE} is damaged: expected an object. Remove it, then run nmt calibrate.")
    return found


def save_ensemble(path: Path, models: Sequence[Path]) -> None:
    """Copies models to a new folder, as the members of an ensemble.

    Args:
        path: a folder that does not exist yet.
        models: run folders (their best models) or model folders, at least two. A model that is named twice counts
            twice.

    Raises:
        UserError: a model does not exist or cannot be combined with the first one, or the folder exists or cannot be
            written.
    """
    check_is_new(path, "ensemble")
    if len(models) < 2:
        raise UserError(f"An ensemble needs at least 2 models, found {len(models)}.")
    members = [ModelFolder.load(model) for model in models]
    _check_members(models, members)
    with atomic_write(path) as aside:
        aside.mkdir()
        records = []
        for number, (model, member) in enumerate(zip(models, members, strict=True), start=1):
            member.save(aside / str(number))
            records.append({"from": str(model), WEIGHTS: compute_file_digest(aside / str(number) / WEIGHTS)})
        record = {"format": ENSEMBLE_FORMAT, "members": records}
        (aside / ENSEMBLE).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def load_members(path: Path) -> list[ModelFolder]:
    """Reads a model, or all members of an ensemble, in their order.

    Args:
        path: a run folder (its best model), a model folder or an ensemble.

    Raises:
        UserError: the folder is missing, is none of these, or its files do not belong together.
    """
    if not is_ensemble(path):
        return [ModelFolder.load(path)]
    digests = _read_ensemble(path / ENSEMBLE)
    paths = [path / str(number) for number in range(1, len(digests) + 1)]
    for member, digest in zip(paths, digests, strict=True):
        if compute_file_digest(member / WEIGHTS) != digest:
            raise UserError(
                f"{member / WEIGHTS} is damaged, or was replaced: its checksum is not the one in {ENSEMBLE}. Copy it "
                "again, or make a new ensemble."
            )
    members = [ModelFolder.load(member) for member in paths]
    _check_members(paths, members)
    return members


def check_is_new(path: Path, kind: str) -> None:
    """Raises UserError if something exists at the path where a new folder will be written."""
    if path.exists():
        raise UserError(f"{path} exists already. Expected the name of a new folder for the {kind}.")


def _read_ensemble(path: Path) -> list[str]:
    """Returns the checksums of the weights of an ensemble's members."""
    try:
        record = json.loads(read_limited(path, MAX_ENSEMBLE_BYTES))
        found, digests = record["format"], [member[WEIGHTS] for member in record["members"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}. Copy it again.") from error
    if found != ENSEMBLE_FORMAT:
        raise FormatError(
            f"{path} has format {found}, but this version of nmt reads format {ENSEMBLE_FORMAT}. Update nmt."
        )
    if not digests:
        raise UserError(f"{path} is damaged: it lists no members. Copy it again.")
    return digests


def _check_members(paths: Sequence[Path], members: Sequence[ModelFolder]) -> None:
    """Raises UserError unless all members read the same source tokens and write the same target tokens."""
    first = members[0]
    for path, member in zip(paths, members, strict=True):
        if side := find_other_tokenizer(first, member):
            raise UserError(
                f"Members of an ensemble must have the same {side} tokenizer, but that of {path} differs from that "
                f"of {paths[0]}. Train the models with the same tokenizer.{side}_model."
            )
        if member.config.model.right_to_left != first.config.model.right_to_left:
            raise UserError(
                f"Members of an ensemble must write in the same direction: model.right_to_left of {path} is "
                f"{as_words(member.config.model.right_to_left)}, and of {paths[0]} "
                f"{as_words(first.config.model.right_to_left)}."
            )
        if (languages := _name_languages(member)) != _name_languages(first):
            raise UserError(
                f"Members of an ensemble must translate the same languages: {paths[0]} translates "
                f"{_name_languages(first)}, and {path} {languages}."
            )
        if (tags := _name_tags(member)) != _name_tags(first):
            raise UserError(
                f"Members of an ensemble must know the same tags (data.train[].tag): {paths[0]} was trained with "
                f"{_name_tags(first)}, and {path} with {tags}."
            )


def find_other_tokenizer(first: ModelFolder, other: ModelFolder) -> str | None:
    """Returns the side, source or target, on which two models have different tokenizers; None if there is none."""
    for side in ("source", "target"):
        tokenizers = [getattr(model, f"{side}_tokenizer") for model in (first, other)]
        if tokenizers[0].fingerprint != tokenizers[1].fingerprint:
            return side
    return None


def _name_languages(folder: ModelFolder) -> str:
    return f"{folder.config.data.source_language} to {folder.config.data.target_language}"


def _name_tags(folder: ModelFolder) -> str:
    return ", ".join(sorted(list_tags(folder.config.data))) or "none"


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
