import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nmt.config.schema import Config, CorpusFiles, DataConfig, DecodingConfig, ExportConfig, ModelConfig, TrainingConfig
from nmt.data.tokenizer import train_tokenizer

MAX_TOKENS, MAX_CHARACTERS, MAX_BATCH, NBEST = 60, 300, 8, 3

SUBJECTS = ["a man", "a woman", "the dog", "two children", "my neighbour", "ein Hund", "eine Frau", "der Mann"]
VERBS = ["sees", "rides", "paints", "reads about", "walks past", "sieht", "malt", "liest"]
OBJECTS = ["a red bike.", "the old house.", "Bücher über Schnee.", "das große Haus!"]
SENTENCES = [f"{subject} {verb} {thing}" for subject in SUBJECTS for verb in VERBS for thing in OBJECTS]
# Two lines of several sentences, one of which is too long for one source of the model.
PARAGRAPH = f"  {SENTENCES[0]} {SENTENCES[9]}\t{SENTENCES[3]}\n\n{'Books, ' * 40}all. {SENTENCES[5]} …\r\n"


@dataclass(frozen=True)
class Exported:
    """A random model and its export."""

    model: Path
    version: Path
    translator: Any
    signatures: Any
    logged: list[str]

    def call(self, name: str, texts: list) -> dict[str, np.ndarray]:
        """Calls a signature."""
        import tensorflow as tf

        answer = self.signatures[name](text=tf.constant(texts, tf.string))
        return {key: value.numpy() for key, value in answer.items()}


@contextmanager
def share_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Gives a folder of all processes of this test run to one of them at a time."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / ".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Any:
    """Returns a model with large random weights, so that no two hypotheses have nearly equal scores."""
    # Imported here because Keras is slow to import, and many tests do not need it.
    from nmt.model_folder import ModelFolder, get_fingerprints
    from nmt.models.seq2seq import make_seq2seq
    from nmt.weights import get_arrays

    with share_folder(tmp_path_factory, "dev") as dev:
        files = CorpusFiles(source=dev / "dev.en", target=dev / "dev.de")
        if not files.target.exists():
            long = "reads " * 100
            files.source.write_text("\n".join([*SENTENCES[::11], "", long]) + "\n")
            files.target.write_text("\n".join([*SENTENCES[1::11][: len(SENTENCES[::11])], "nothing", long]) + "\n")
    tokenizer = train_tokenizer(SENTENCES, kind="unigram", vocabulary_size=316)
    config = Config(
        data=DataConfig(source_language="en", target_language="de", train=[files], dev=files, max_length=MAX_TOKENS),
        model=ModelConfig(embedding_units=16, encoder_units=16, decoder_units=16, attention_heads=2),
        training=TrainingConfig(max_epochs=1),
        decoding=DecodingConfig(max_length=30),
        export=ExportConfig(max_characters=MAX_CHARACTERS, max_batch=MAX_BATCH, nbest=NBEST, sample=500),
    )
    size = tokenizer.vocabulary_size
    model = make_seq2seq(config.model, source_vocabulary_size=size, target_vocabulary_size=size)
    random = np.random.default_rng(1)
    weights = {
        name: random.normal(0, 0.8, array.shape).astype("float32")
        for name, array in get_arrays(model.trainable_variables).items()
    }
    return ModelFolder(config, tokenizer, tokenizer, weights, {"update": 7, **get_fingerprints(tokenizer, tokenizer)})


@pytest.fixture(scope="session")
def exported(model_folder, tmp_path_factory) -> Iterator[Exported]:
    """Exports the model once for all processes of this test run, as a user does.

    A process reads the export once: it takes three seconds, and the first calls of its signatures as many again.
    """
    import tensorflow as tf

    from nmt.exporting.savedmodel import export
    from nmt.translators.model import ModelTranslator
    from nmt.translators.savedmodel import SavedModelTranslator

    with share_folder(tmp_path_factory, "exported") as home:
        version, log = home / "served" / "1", home / "log.json"
        if not log.exists():
            model_folder.save(home / "model")
            logged: list[str] = []
            assert export(home / "model", home / "served", log=logged.append) == version
            log.write_text(json.dumps(logged))
        logged = json.loads(log.read_text())
    loaded = SavedModelTranslator.load(version)
    translator = ModelTranslator.load(home / "model", precision="float32")
    load = tf.saved_model.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf.saved_model, "load", lambda path, *rest: loaded._model if path == str(version) else load(path, *rest)
        )
        yield Exported(home / "model", version, translator, loaded._model.signatures, logged)


@pytest.fixture(scope="session")
def exported_litert(exported, tmp_path_factory) -> tuple[Path, list[str]]:
    """Exports the model for LiteRT once for all processes of this test run, as a user does: the folder, and the log.

    A process without TensorFlow checks it.
    """
    from nmt.exporting.litert import export_litert

    with share_folder(tmp_path_factory, "litert") as home:
        folder, log = home / "phone", home / "log.json"
        if not log.exists():
            logged: list[str] = []
            assert export_litert(exported.model, folder, log=logged.append) == folder
            log.write_text(json.dumps(logged))
        return folder, json.loads(log.read_text())


def round_weights(model: Any, kind: str) -> None:
    """Quantizes and restores every weight of a model, number by number."""
    from nmt.weights import assign_arrays, get_arrays

    before = get_arrays(model.trainable_variables)
    after = {name: round_weight(name, array, kind) for name, array in before.items()}
    assign_arrays(model.trainable_variables, after, "rounded")


def round_weight(name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """Quantizes and restores a weight."""
    if array.ndim < 2:
        return array
    if kind == "bfloat16":
        return array.astype(ml_dtypes.bfloat16).astype("float32")
    lines = array if name.endswith("/matrix") else array.T
    after = np.zeros_like(lines)
    for n, line in enumerate(lines):
        scale = np.float32(max(abs(value) for value in line) / np.float32(127))
        after[n] = [np.float32(round(float(value / scale))) * scale for value in line]
    return after if name.endswith("/matrix") else after.T


@pytest.fixture
def copied_graph(exported, monkeypatch) -> None:
    """Makes `export` copy the existing graph, whose outputs were compared before, because tracing takes long."""
    from nmt.exporting.job import ExportJob

    def copy(job: Any, folder: Path) -> None:
        shutil.copytree(exported.version, folder, ignore=shutil.ignore_patterns("assets.extra"))

    monkeypatch.setattr(ExportJob, "trace", copy)
    monkeypatch.setattr("nmt.exporting.parity.compare_outputs", lambda *arguments: {})


@pytest.fixture
def moved_model(model_folder, tmp_path) -> Callable[..., Path]:
    """Saves the model with changed weights or configuration."""

    def save(**changes: Any) -> Path:
        replace(model_folder, **changes).save(tmp_path / "moved")
        return tmp_path / "moved"

    return save
