"""`nmt average`: writes a model whose weights are the mean of those of several models."""

from collections.abc import Sequence
from pathlib import Path

from nmt.config.file import load_stored_config
from nmt.config.reference import as_words
from nmt.config.schema import TRAINING_ONLY
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import atomic_write, get_current_version
from nmt.model_folder import (
    CONFIG,
    SOURCE,
    TARGET,
    WEIGHTS,
    ModelFolder,
    check_is_new,
    find_other_tokenizer,
    get_fingerprints,
)
from nmt.training.best_model import get_versions
from nmt.training.checkpoint import average_checkpoints, read_checkpoint
from nmt.weights import average_arrays, load_arrays

KEPT_FACTS = ("seed", "multi_sentence_share")


def average_models(path: Path, sources: Sequence[Path]) -> None:
    """Writes a model folder whose weights are the mean of those of several checkpoints or models.

    All of them should come from one training (Junczys-Dowmunt et al. 2016). Weights of models that started from
    different random weights have nothing to do with each other.

    Args:
        path: a folder that does not exist yet.
        sources: checkpoints of a run (.h5), which stand for their moving averages if they have any, model folders, or
            run folders, which stand for their best model. At least two. Configuration and tokenizers are those of the
            first.

    Raises:
        UserError: a source does not exist, is a folder of checkpoints or is not like the first one, or the folder
            exists or cannot be written.
    """
    check_is_new(path, "averaged model")
    for source in sources:
        if any(source.glob("update-*.h5")):
            raise UserError(f"{source} is a folder of checkpoints. Give its files: {source}/*.h5")
    if len(sources) < 2:
        raise UserError(f"An average needs at least 2 checkpoints or models, found {len(sources)}.")
    models = [_load_source(source) for source in sources]
    first = models[0]
    for source, model in zip(sources, models, strict=True):
        _check_alike(sources[0], first, source, model)
    facts = {
        "averaged": [str(source) for source in sources],
        "versions": get_versions(),
        **{name: first.facts[name] for name in KEPT_FACTS if name in first.facts},
        **get_fingerprints(first.source_tokenizer, first.target_tokenizer),
    }
    weights = average_arrays([model.weights for model in models])
    with atomic_write(path) as aside:
        ModelFolder(first.config, first.source_tokenizer, first.target_tokenizer, weights, facts).save(aside)


def _load_source(path: Path) -> ModelFolder:
    return _load_checkpoint(path) if path.suffix == ".h5" else ModelFolder.load(path)


def _load_checkpoint(path: Path) -> ModelFolder:
    """Reads a checkpoint in its run folder, and what the run knows about it."""
    checkpoint, run = read_checkpoint(path), path.absolute().parents[1]
    for name in (CONFIG, SOURCE, TARGET):
        if not (run / name).is_file():
            raise UserError(f"{path}: expected a checkpoint in the folder of its run, but {run} has no {name}.")
    config = load_stored_config(run / CONFIG)
    source, target = Tokenizer.load_pair(run / SOURCE, run / TARGET)
    for side, tokenizer in (("source", source), ("target", target)):
        if checkpoint.facts.get(f"{side} tokenizer") != tokenizer.fingerprint:
            raise UserError(f"{path} was trained with another {side} tokenizer than the one in {run}.")
    # A checkpoint does not know the training text as its best model does.
    best = get_current_version(run / "best") / WEIGHTS
    facts = load_arrays(best)[1] if best.is_file() else {}
    return ModelFolder(config, source, target, average_checkpoints([path]), {**facts, "seed": config.seed})


def _check_alike(first_path: Path, first: ModelFolder, path: Path, other: ModelFolder) -> None:
    """Raises UserError unless the weights of two models can be averaged."""
    if side := find_other_tokenizer(first, other):
        raise UserError(f"{path} has another {side} tokenizer than {first_path}. Average checkpoints of one run.")
    before, after = (model.config.model.model_dump(exclude=TRAINING_ONLY) for model in (first, other))
    for name, value in after.items():
        if value != before[name]:
            raise UserError(
                f"{path} has model.{name} {as_words(value)}, but {first_path} has {as_words(before[name])}. Average "
                "models of one architecture."
            )
    shapes, others = ({name: array.shape for name, array in model.weights.items()} for model in (first, other))
    if shapes != others:
        name = min(name for name in shapes | others if shapes.get(name) != others.get(name))
        found, expected = (list(one[name]) if name in one else "nothing" for one in (others, shapes))
        raise UserError(f"{path}: weight {name} has shape {found}, but in {first_path} it has {expected}.")
