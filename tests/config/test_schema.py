from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from nmt.config.schema import Config, CorpusFiles, DataConfig, PartName

PAIR = {"source": "a", "target": "b"}


def config(**sections):
    """Makes a Config of the required keys, overlaid with keys a section."""
    data = {"source_language": "en", "target_language": "de", "train": [PAIR], "dev": PAIR}
    given = {"data": data, "training": {"max_updates": 9}} | {key: sections[key] for key in sections}
    return Config(**given)


def training(**keys):
    return config(training={"max_updates": 9, **keys})


def test_required_keys_are_enough():
    assert config().training.max_updates == 9


def test_python_may_give_plain_files_wherever_corpora_are_named():
    files = CorpusFiles(source=Path("a"), target=Path("b"))
    data = DataConfig(source_language="en", target_language="de", train=[files], dev=[files, {**PAIR, "name": "c"}])
    assert config(data=data).dev_sets[0].source == data.train[0].source == Path("a")


def test_the_languages_of_all_dev_sets_are_scored():
    dev = [PAIR, {**PAIR, "name": "b", "target_language": "ja"}, {**PAIR, "name": "c", "target_language": "de"}]
    data = {"source_language": "en", "target_language": "de", "train": [PAIR], "dev": dev}
    assert config(data=data).target_languages == ["de", "ja"]


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        config().training.batch_size = 3


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("tokenizer", {"source_model": "x"}, "source_model and target_model go together"),
        ("tokenizer", {"target_model": "x"}, "source_model and target_model go together"),
        ("model", {"encoder_units": 511}, "encoder_units must be even.*found 511"),
        ("model", {"attention_heads": 7}, "attention_heads must divide decoder_units; found 7 and 512"),
        ("model", {"start_state": "both_ends"}, "start_state both_ends needs encoder_layers of 2 or more"),
        (
            "model",
            {"locked_dropout": True, "embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0},
            "locked_dropout needs embedding_dropout, layer_dropout or output_dropout above 0",
        ),
        ("model", {"attention": "bilinear", "attention_heads": 7}, "attention_heads needs attention multi_head; found"),
        ("model", {"attention_hops": 3}, "attention_hops must not exceed decoder_layers; found 3 and 2"),
        ("model", {"attention_hops": 2, "input_feeding": True}, "input_feeding needs attention_hops 1"),
        ("training", {}, "training would never end"),
        ("training", {"max_updates": 9, "schedule": "linear"}, "schedule linear needs schedule_updates"),
        ("training", {"max_updates": 9, "schedule": "cosine"}, "schedule cosine needs schedule_updates"),
        ("training", {"max_updates": 9, "schedule": "inverse_sqrt"}, "inverse_sqrt needs warmup_updates"),
        (
            "training",
            {"max_updates": 9, "schedule": "linear", "schedule_updates": 5, "warmup_updates": 5},
            "schedule_updates must exceed warmup_updates; found 5 and 5",
        ),
        (
            "training",
            {"max_updates": 9, "plateau_restart": True},
            "plateau_restart needs schedule plateau; found constant",
        ),
        (
            "training",
            {"max_updates": 9, "schedule_updates": 5},
            "schedule_updates needs schedule linear or cosine; found",
        ),
        (
            "training",
            {"max_updates": 9, "final_rate": 0.1},
            "final_rate needs schedule linear or cosine; found constant",
        ),
        *(
            (
                "training",
                {"max_updates": 9, "optimizer": "sgd", key: 0.5},
                f"{key} needs optimizer adam or adamw; found",
            )
            for key in ("beta_1", "beta_2", "epsilon")
        ),
        ("training", {"max_updates": 9, "weight_decay": 0.1}, "weight_decay needs optimizer adamw; found adam"),
        (
            "training",
            {"max_updates": 9, "schedule": "plateau", "patience": 3},
            "patience must exceed plateau_patience, .*; found 3 and 3",
        ),
        (
            "training",
            {"budget_minutes": 9.0},
            "budget_minutes needs schedule linear or cosine, which follow it; found con",
        ),
        *(
            ("training", {"budget_minutes": 9.0, "schedule": "linear", name: 5}, f"{name} contradicts budget_minutes")
            for name in ("schedule_updates", "max_updates", "max_epochs", "max_minutes")
        ),
        ("training", {"max_updates": 9, "average_last": 4}, "average_last must not exceed keep_checkpoints; found 4"),
        (
            "training",
            {"max_updates": 9, "label_smoothing": 0.0, "label_smoothing_over": "producible"},
            "label_smoothing_over producible needs label_smoothing above 0",
        ),
        *(
            (
                "tokenizer",
                {"source_model": "x", "target_model": "x", **keys},
                f"{next(iter(keys))} needs source_model null; found x",
            )
            for keys in (
                {"kind": "bpe"},
                {"vocabulary_size": 99},
                {"character_coverage": 1.0},
                {"byte_fallback": False},
                {"user_symbols": ["<x>"]},
                {"normalization": "identity"},
            )
        ),
        ("tokenizer", {"joint": False}, "model.tied_embeddings all needs one vocabulary"),
        ("tokenizer", {"source_model": "x", "target_model": "y"}, "model.tied_embeddings all needs one vocabulary"),
    ],
)
def test_impossible_combinations_are_told(section, keys, message):
    with pytest.raises(ValidationError, match=message):
        config(**{section: keys})


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("tokenizer", {"source_model": "x", "target_model": "x"}),
        ("tokenizer", {"source_model": "x", "target_model": "x", "vocabulary_size": 8000, "sampling_alpha": 0.5}),
        ("model", {"attention": "bilinear", "attention_heads": 8}),
        ("model", {"attention": "additive", "decoder_units": 7}),
        ("model", {"start_state": "both_ends", "encoder_layers": 2}),
        ("model", {"attention_hops": 2}),
        ("model", {"locked_dropout": True, "embedding_dropout": 0.0, "layer_dropout": 0.0}),
        ("model", {"input_feeding": True}),
        ("training", {"max_epochs": 1}),
        ("training", {"max_minutes": 0.5}),
        ("training", {"max_updates": 9, "schedule": "linear", "schedule_updates": 6, "warmup_updates": 5}),
        ("training", {"max_updates": 9, "schedule": "inverse_sqrt", "warmup_updates": 1}),
        ("training", {"budget_minutes": 9.0, "schedule": "linear", "final_rate": 0.1}),
        ("training", {"max_updates": 9, "optimizer": "adamw", "weight_decay": 0.1, "beta_1": 0.5}),
        ("training", {"budget_minutes": 0.5, "schedule": "cosine"}),
        ("training", {"max_updates": 9, "schedule": "plateau", "patience": 4, "plateau_restart": True}),
        ("training", {"max_updates": 9, "average_last": 3}),
    ],
)
def test_their_possible_neighbours_are_accepted(section, keys):
    made = getattr(config(**{section: keys}), section)
    assert {key: str(getattr(made, key)) for key in keys} == {key: str(value) for key, value in keys.items()}


def test_consistency_needs_dropout_of_any_kind():
    names = ("embedding_dropout", "layer_dropout", "output_dropout", "word_dropout", "attention_dropout")
    rates, training = dict.fromkeys(names, 0.0), {"max_updates": 9, "consistency": 1.0}
    with pytest.raises(ValidationError, match=r"training\.consistency needs dropout"):
        config(model={**rates, "recurrent_dropout": 0.1}, training=training)  # drops the same for both readings
    for name in rates:
        assert config(model={**rates, name: 0.1}, training=training).training.consistency == 1


def test_simcut_needs_a_weight_and_a_share_of_tokens_to_cut():
    with pytest.raises(ValidationError, match="consistency_kind simcut needs consistency above 0"):
        training(consistency_kind="simcut")
    simcut = {"max_updates": 9, "consistency": 3.0, "consistency_kind": "simcut"}
    with pytest.raises(ValidationError, match=r"consistency_kind simcut needs model\.word_dropout"):
        config(training=simcut)
    assert config(training=simcut, model={"word_dropout": 0.05}).training.consistency == 3


def test_separate_vocabularies_go_with_separate_embeddings():
    assert not config(tokenizer={"joint": False}, model={"tied_embeddings": "target"}).tokenizer.joint


@pytest.mark.parametrize(
    ("freeze", "tied", "message"),
    [
        (["embeddings"], "all", "freeze.0"),
        (["encoder", "encoder"], "all", r"training\.freeze must name each part once; found encoder, encoder"),
        (["target_embedding"], "all", r"training\.freeze cannot name target_embedding with .*tied_embeddings all"),
        (["source_embedding", "encoder", "attention", "decoder", "output"], "all", "must leave a part to train"),
        (list(get_args(PartName)), "none", "must leave a part to train"),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(freeze, tied, message):
    with pytest.raises(ValidationError, match=message):
        config(model={"tied_embeddings": tied}, training={"max_updates": 9, "freeze": freeze})


def test_all_parts_but_one_may_be_frozen():
    freeze = list(get_args(PartName))[:-1]
    assert config(model={"tied_embeddings": "target"}, training={"max_updates": 9, "freeze": freeze}).training.freeze
