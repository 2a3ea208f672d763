"""Starts a new run from the weights of a model: chooses tokenizers, and makes rows for tokens that the model lacks."""

from dataclasses import replace

import numpy as np

from nmt.config.file import find_differences, load_stored_config
from nmt.config.schema import TRAINING_ONLY, Config, TokenizerConfig
from nmt.data.preparation import Log
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.errors import UserError
from nmt.model_folder import ModelFolder
from nmt.models.seq2seq import Seq2Seq
from nmt.training.run_folder import RunFolder

# Keys of the tokenizer section that neither made a tokenizer nor describe it.
NOT_OF_TOKENIZERS = {"sampling_alpha": None, "source_model": None, "target_model": None}


def find_start(config: Config, folder: RunFolder, log: Log) -> tuple[Config, ModelFolder | None]:
    """Reads the model that a new run starts from (`training.start_from`), if it starts from one.

    Returns:
        The configuration as it takes effect, with the tokenizer settings of the model if the run uses its tokenizers;
        and the model, or None if the weights are random or those of a checkpoint.

    Raises:
        UserError: there is no such model, or it has another architecture.
    """
    path = config.training.start_from
    if path is None:
        return config, None
    if folder.has_checkpoints():
        return _adopt_tokenizer(config, load_stored_config(folder.config)), None
    try:
        model = ModelFolder.load(path)
    except UserError as error:
        raise UserError(f"training.start_from: {error}") from error
    model = _record_vocabulary_size(model)
    differences = [line for line in find_differences(model.config, config) if _is_of_architecture(line)]
    if differences:
        raise UserError(
            f"training.start_from: the model in {path} has another architecture than this configuration:\n  "
            + "\n  ".join(differences)
            + "\nRestore the old values, or train from scratch without training.start_from."
        )
    kept = has_tokenizers_of(model.config.tokenizer, config.tokenizer)
    log(f"Starting from the weights of {path}, with {'its tokenizers' if kept else 'other tokenizers'}.")
    return _adopt_tokenizer(config, model.config), model


def _record_vocabulary_size(model: ModelFolder) -> ModelFolder:
    """Returns a model whose configuration has the size of its vocabulary, also if its tokenizers came from files."""
    section = model.config.tokenizer
    if section.source_model is None:
        return model
    section = section.model_copy(update={"vocabulary_size": model.source_tokenizer.vocabulary_size})
    return replace(model, config=model.config.model_copy(update={"tokenizer": section}))


def _is_of_architecture(difference: str) -> bool:
    key = difference.partition(":")[0]
    return key.startswith("model.") and key.removeprefix("model.") not in TRAINING_ONLY


def has_tokenizers_of(start: TokenizerConfig, settings: TokenizerConfig) -> bool:
    """Returns whether a run uses the tokenizers of its start model: it names no files and no other settings."""
    if settings.source_model is not None:
        return False
    is_silent = settings.model_fields_set <= NOT_OF_TOKENIZERS.keys()
    return is_silent or settings.model_copy(update=NOT_OF_TOKENIZERS) == start.model_copy(update=NOT_OF_TOKENIZERS)


def _adopt_tokenizer(config: Config, start: Config) -> Config:
    """Returns a configuration with the tokenizer settings of its start, if it uses the tokenizers of its start."""
    if not has_tokenizers_of(start.tokenizer, config.tokenizer):
        return config
    own = {**NOT_OF_TOKENIZERS, "sampling_alpha": config.tokenizer.sampling_alpha}
    return config.model_copy(update={"tokenizer": start.tokenizer.model_copy(update=own)})


def convert_weights(
    start: ModelFolder, model: Seq2Seq, tokenizers: tuple[Tokenizer, Tokenizer], log: Log
) -> dict[str, np.ndarray]:
    """Returns the weights of a start model as a model with other tokenizers needs them.

    The rows of tokens that both vocabularies have are kept. The row of a new token is the mean of the rows of the old
    tokens that spell it. So are the biases of the output projection.

    Args:
        start: the start model.
        model: the model that will get the weights.
        tokenizers: of source and target, which belong to `model`.
        log: receives one line per side whose tokenizer differs, with the number of tokens kept.
    """
    weights = dict(start.weights)
    projection = model.projection
    sides = (
        ("source", start.source_tokenizer, tokenizers[0], [model.source_embedding.matrix]),
        ("target", start.target_tokenizer, tokenizers[1], [model.target_embedding.matrix, *projection.matrices]),
    )
    for side, old, new, matrices in sides:
        if old.fingerprint == new.fingerprint:
            continue
        ids, num_kept = map_tokens(old, new)
        log(
            f"{num_kept:,} of {len(ids):,} {side} tokens are tokens of the start model; the others begin as the mean "
            "of the tokens that spell them there."
        )
        biases = [projection.bias] if side == "target" else []
        for path in {variable.path for variable in [*matrices, *biases]}:
            weights[path] = np.stack([start.weights[path][one].mean(axis=0) for one in ids])
    return weights


def map_tokens(old: Tokenizer, new: Tokenizer) -> tuple[list[list[int]], int]:
    """Maps the tokens of a tokenizer to those of an older one.

    Returns:
        For each token of the new one the ids of the old one: of the same token, or of those that spell it; and how many
        tokens are the same.
    """
    known = {old.get_token(one): one for one in range(old.vocabulary_size)}
    # Special tokens have the same ids in all tokenizers, but some have other names.
    same = {one: one for one in range(EOS_ID + 1)}
    tokens = [new.get_token(one) for one in range(new.vocabulary_size)]
    same |= {one: known[token] for one, token in enumerate(tokens) if token in known and one > EOS_ID}
    spelled = iter(old.encode_tokens([token for one, token in enumerate(tokens) if one not in same]))
    return [[same[one]] if one in same else next(spelled) for one in range(len(tokens))], len(same)
