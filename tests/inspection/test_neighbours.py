import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import nmt
from nmt.cli.main import main
from nmt.config.schema import PlaceholderConfig, TrainingFiles
from nmt.errors import FormatError, UserError
from nmt.inspection import neighbours
from nmt.inspection.inspect import write_text
from nmt.inspection.neighbours import NeighbourIndex, build_index, find_index, open_index
from nmt.translators.model import ModelTranslator
from tests.exported_model import SENTENCES

SOURCES = [*SENTENCES[:60], SENTENCES[3], "", "reads " * 100]  # once more, blank, and too long to be trained on
TARGETS = [*SENTENCES[60:120], SENTENCES[63], "nothing", "reads " * 100]
NUM_SENTENCES = 60


@pytest.fixture(scope="module")
def run(model_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("indexed")
    files = TrainingFiles(source=home / "train.en", target=home / "train.de", alignments=home / "not needed")
    files.source.write_text("\n".join(SOURCES) + "\n")
    files.target.write_text("\n".join(TARGETS) + "\n")
    config = model_folder.config
    # What draws at random, or what only the updates read, must not change the index.
    drawing = {"train": [files], "join_pairs": 0.3, "placeholders": PlaceholderConfig(kinds=["number"], share=1.0)}
    guided = config.training.model_copy(update={"guided_alignment": 0.5})
    config = config.model_copy(update={"data": config.data.model_copy(update=drawing), "training": guided})
    replace(model_folder, config=config).save(home / "run" / "best")
    build_index(home / "run")
    return home / "run"


@pytest.fixture(scope="module")
def translator(run):
    return ModelTranslator.load(run, precision="float32").with_settings(max_length=8)


@pytest.fixture(scope="module")
def index(run, translator):
    return NeighbourIndex(run / "index", translator)


def test_a_training_sentence_is_its_own_nearest_neighbour(run, translator):
    found = nmt.inspect(translator, SOURCES[5], TARGETS[5], index=run / "index")
    assert found.neighbours[0][0].tokens == found.target_tokens
    for t, (nearest, *others) in enumerate(found.neighbours):
        assert nearest.sentence == (str(run.parent / "train.en"), 6, SOURCES[5], TARGETS[5])
        assert nearest.token == found.target_tokens[t]
        assert nearest.position == t
        assert nearest.distance < 0.005  # of 16 bits
        assert [nearest.distance, *(one.distance for one in others)] == sorted(
            one.distance for one in (nearest, *others)
        )
    arrays = found.as_arrays()
    assert arrays["neighbour_distances"].shape == (len(found.target_tokens), 3)
    assert (arrays["neighbour_lines"][:, 0] == 6).all()
    last = write_text(found).splitlines()[-1]
    assert last.split()[0] == "</s>"
    assert f"{TARGETS[5]}[</s>]" in last
    assert last.endswith("train.en:6")


def test_the_search_is_exact(run, index, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 8 * 16 * 40)  # some three sentences
    queries = np.random.default_rng(3).normal(0, 0.5, (7, 16))
    lines = [json.loads(line) for line in (run / "index" / "sentences.jsonl").read_text().splitlines()]
    starts, states = index._starts, index._states.astype("float64")
    assert len(lines) == len(starts) - 1 == NUM_SENTENCES
    for query, found in zip(queries, index.find_neighbours(queries, 4), strict=True):
        distances = np.linalg.norm(states - query, axis=1)
        by_sentence = sorted(
            (float(distances[start:end].min()), int(distances[start:end].argmin()), line[1])
            for start, end, line in zip(starts[:-1], starts[1:], lines, strict=True)
        )
        assert [(one.position, one.sentence.line) for one in found] == [best[1:] for best in by_sentence[:4]]
        assert [one.distance for one in found] == pytest.approx([best[0] for best in by_sentence[:4]])


def test_a_sample_has_at_most_so_many_tokens_and_no_pair_twice(run, index, tmp_path, monkeypatch, capsys):
    sentences = [json.loads(line)[2:] for line in (run / "index" / "sentences.jsonl").read_text().splitlines()]
    assert sorted(sentences) == sorted(map(list, set(zip(SOURCES[:61], TARGETS[:61], strict=True))))
    monkeypatch.setattr("sys.argv", ["nmt", "index", str(run), "--into", str(tmp_path / "small"), "--tokens", "100"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    record = json.loads((tmp_path / "small" / "index.json").read_text())
    assert 80 < record["num_tokens"] <= 100
    sizes = f"{record['num_tokens']} target tokens of {record['num_sentences']} training sentences in {tmp_path}/small"
    assert capsys.readouterr().out == f"{sizes} (0.0 MB of states).\n"


def test_an_index_of_other_weights_is_refused_by_name(run, translator, monkeypatch):
    assert find_index(run) == run / "index"
    monkeypatch.setattr(neighbours, "compute_fingerprint", lambda translator: "other")
    with pytest.raises(UserError, match=r"index is stale: .* another model .* Run nmt index again"):
        nmt.inspect(translator, SOURCES[0], index=run / "index")


def test_the_index_of_the_run_is_left_out_if_it_is_stale(run, translator, tmp_path, monkeypatch):
    opened, problem = open_index(None, run, translator)
    assert opened and not problem
    assert open_index(None, tmp_path, translator) == open_index(None, None, translator) == (None, "")
    monkeypatch.setattr(neighbours, "compute_fingerprint", lambda translator: "other")
    opened, problem = open_index(None, run, translator)
    assert opened is None
    assert problem.startswith(f"The nearest training sentences are left out. {run / 'index'} is stale")


def test_the_fingerprint_changes_with_a_weight(translator):
    before = neighbours.compute_fingerprint(translator)
    bias = translator.model.projection.bias
    value = bias.value.numpy()
    bias.assign(value + np.eye(1, len(value))[0].astype("float32"))
    assert neighbours.compute_fingerprint(translator) != before
    bias.assign(value)
    assert neighbours.compute_fingerprint(translator) == before


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("index.json", '{"format": 2}', FormatError, "has format 2, but this version of nmt reads format 1"),
        ("index.json", "[1", UserError, "index.json is damaged: JSONDecodeError"),
        ("sentences.jsonl", "[]", UserError, "its files do not belong together"),
        ("states", "no numbers", UserError, "states.*npy is damaged"),
    ],
)
def test_damage_is_reported(run, translator, tmp_path, name, content, error, message):
    shutil.copytree(run / "index", tmp_path / "index")
    [path] = (tmp_path / "index").glob(f"{name}*")
    path.write_text(content)
    with pytest.raises(error, match=message):
        NeighbourIndex(tmp_path / "index", translator)


def test_folders_that_are_no_index_are_left_alone(run, translator, tmp_path):
    with pytest.raises(UserError, match="exists and is not an index"):
        build_index(run, tmp_path)
    with pytest.raises(UserError, match=r"is not an index: expected index.json in it. nmt index writes one."):
        NeighbourIndex(tmp_path, translator)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.tflite").touch()
    with pytest.raises(UserError, match=r"export is an export\. Expected the run folder or model folder"):
        build_index(tmp_path / "export")
