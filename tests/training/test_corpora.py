"""Trainings on weighted, tagged and changed text, with a stand-in for the update that keeps its batches."""

import numpy as np
import pytest

from nmt.config.schema import DataConfig, DevFiles, TrainingFiles
from nmt.errors import UserError
from nmt.training.recovery import Recovery


def make_config(recipe, digits, tmp_path, **training):
    [files] = digits.train
    weights = tmp_path / "weights"
    weights.write_text("".join(f"{1 + number % 3}\n" for number in range(100)))
    given = files.model_dump()
    train = [TrainingFiles(**given | {"weight": 0.5, "tag": "<x>"}), TrainingFiles(**given | {"weights": weights})]
    changes = {"train": train, "join_pairs": 0.2, "replace_tokens": 0.1, "augment": {"typos": 0.2, "capitals": 0.2}}
    dev = digits.dev.model_dump()
    sets = [DevFiles(**dev | {"tag": "<x>"}), DevFiles(**dev | {"name": "plain"})]
    data = DataConfig(**{**digits.model_dump(), **changes, "dev": sets})
    tokenizer = {"vocabulary_size": 284, "byte_fallback": True, "sampling_alpha": 0.3}
    return recipe(tmp_path / "run", tokenizer=tokenizer, **training).model_copy(update={"data": data})


def test_a_resumed_run_reads_the_batches_of_an_uninterrupted_one(rehearsal, recipe, digits, tmp_path, monkeypatch):
    read: list[list] = []

    def start_keeping(self, update, batch, **arguments):
        read[-1].append((batch.source, batch.target, batch.weights))
        return start_update(self, update, batch, **arguments)

    start_update = Recovery.start_update
    monkeypatch.setattr(Recovery, "start_update", start_keeping)
    settings = {"checkpoint_every": 5, "validate_every": 100}
    for name, ends in (("whole", [14]), ("parts", [5, 14])):
        read.append([])
        (tmp_path / name).mkdir()
        for end in ends:
            rehearsal.train(make_config(recipe, digits, tmp_path / name, max_updates=end, **settings), bleu=[1.0])
    whole, parts = read
    assert len(whole) == len(parts) == 14
    for one, other in zip(whole, parts, strict=True):
        for array, again in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, again)
    assert {float(weight) for *_, weights in whole for weight in weights} > {1.0, 2.0, 3.0}  # and means of joined ones


def test_changed_weights_of_sentences_end_a_run(rehearsal, recipe, digits, tmp_path):
    config = make_config(recipe, digits, tmp_path, max_updates=2, checkpoint_every=2, validate_every=100)
    rehearsal.train(config, bleu=[1.0])
    (tmp_path / "weights").write_text("2\n" * 100)
    config = config.model_copy(update={"training": config.training.model_copy(update={"max_updates": 3})})
    with pytest.raises(UserError, match=r"^The text of sentence weights is not the one that the run in"):
        rehearsal.train(config, bleu=[1.0])
