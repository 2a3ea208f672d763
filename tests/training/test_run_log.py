import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray

from nmt.data.preparation import DevSet
from nmt.decoding.word_links import WordLinks
from nmt.training.run_folder import RunFolder
from nmt.training.run_log import RunLog
from nmt.training.tensorboard import CELL, MARGIN
from nmt.training.update import Outcome
from nmt.training.validation import Validation

VALIDATION = Validation(loss=1.5, perplexity=4.5, bleu=12.345)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def said():
    return []


@pytest.fixture
def make_log(folder, said):
    logs = []

    def made(**kwargs):
        logs.append(RunLog(folder, said.append, **{"every": 2, "total": None, "tensorboard": False, **kwargs}))
        logs[-1].start()
        return logs[-1]

    yield made
    for log in logs:
        log.close()


def outcome(loss, num_tokens, is_applied=True):
    return Outcome({"loss": loss, "nll": loss / 2, "gradient_norm": 2 * loss}, num_tokens, is_applied)


def records(folder):
    return [json.loads(line) for line in folder.history.read_text().splitlines()]


def curves_of(folder):
    """What TensorBoard reads: values by tag and step."""
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    return {
        (tag, event.step): float(make_ndarray(event.tensor_proto))
        for tag in events.Tags()["tensors"]
        for event in events.Tensors(tag)
    }


def test_a_record_is_the_mean_over_tokens_since_the_last(folder, make_log):
    log = make_log()
    for update, (loss, num_tokens) in enumerate([(9.0, 1), (1.0, 3), (4.0, 5), (2.0, 5)], 1):
        log.record_update(update, 6, 0.25, outcome(loss, num_tokens), num_tokens=9)
    first, second = records(folder)
    assert first.pop("tokens_per_second") > 0
    assert first.pop("memory_mib") > 10
    means = {"loss": 3.0, "nll": 1.5, "gradient_norm": 6.0}
    assert first == {"update": 2, "kind": "training", "epoch": 6, "learning_rate": 0.25, **means}
    assert (second["update"], second["loss"]) == (4, 3.0)


def test_whatever_an_update_reports_is_recorded_by_its_name(folder, make_log):
    log = make_log(tensorboard=True)
    for update, (value, num_tokens) in enumerate([(1.0, 3), (5.0, 1)], 1):
        log.record_update(
            update, 0, 0.25, Outcome({"loss": 3.0, "gradient_norm": 1.0, "kl": value}, num_tokens, True), num_tokens=2
        )
    log.close()
    assert records(folder)[0]["kl"] == 2.0
    assert curves_of(folder)["training/kl", 2] == 2.0


def test_the_speed_counts_tokens_whatever_their_weights(folder, make_log, monkeypatch):
    monkeypatch.setattr("nmt.training.run_log.time", SimpleNamespace(perf_counter=iter([0, 5, 5, 7, 9]).__next__))
    log = make_log()
    for update in range(1, 5):
        log.record_update(update, 0, 0.25, outcome(1.0, 700.0), num_tokens=10 * update)
    assert [record["tokens_per_second"] for record in records(folder)] == [30 / 5, 70 / 2]


def test_updates_that_were_not_applied_are_left_out_of_the_mean(folder, make_log):
    log = make_log()
    not_applied = outcome(float("nan"), 5, is_applied=False)
    for update, one in enumerate([outcome(3.0, 2), not_applied, not_applied, not_applied], 1):
        log.record_update(update, 0, 0.25, one, num_tokens=2)
    first, second = records(folder)
    assert (first["loss"], first["nll"], first["gradient_norm"]) == (3.0, 1.5, 6.0)
    assert (second["loss"], second["nll"], second["gradient_norm"]) == (None, None, None)


def test_training_is_announced_in_words(make_log, said):
    log = make_log(every=1)
    log.record_update(1234, 1, 0.25, outcome(3.0, 100), num_tokens=2)
    assert len(said) == 1
    assert said[0].startswith("update 1,234 · epoch 2 · loss 3.000 · ")
    assert said[0].endswith(" tokens/s")


def test_a_validation_is_recorded_and_announced(folder, make_log, said):
    log = make_log()
    log.record_validation(7, VALIDATION, is_best=True)
    log.record_validation(8, VALIDATION, is_best=False)
    expected = {"kind": "validation", "loss": 1.5, "perplexity": 4.5, "bleu": 12.345}
    assert records(folder) == [{"update": 7, **expected}, {"update": 8, **expected}]
    assert said == [
        "update 7 · validation: BLEU 12.35 · perplexity 4.50 · best so far",
        "update 8 · validation: BLEU 12.35 · perplexity 4.50",
    ]
    log.record_validation(9, Validation(1.5, 4.5, 12.345, 40.0), is_best=False)
    assert records(folder)[-1] == {"update": 9, **expected, "chrf": 40.0}
    assert said[-1] == "update 9 · validation: BLEU 12.35 · chrF 40.00 · perplexity 4.50"


def test_what_will_be_done_again_is_forgotten(folder, make_log):
    log = make_log(every=1)
    for update in range(1, 6):
        log.record_update(update, 0, 0.25, outcome(1.0, 2), num_tokens=2)
        log.record_validation(update, VALIDATION, is_best=False)
    with folder.history.open("a") as history:
        history.write('{"update": 2, "ki')  # a process was killed while it wrote
    log.forget_after(3)
    assert [record["update"] for record in records(folder)] == [1, 1, 2, 2, 3, 3]
    log.forget_after(0)
    assert records(folder) == []


def test_a_validation_that_will_be_done_again_is_forgotten(folder, make_log):
    log = make_log(every=1)
    for update in (1, 2):
        log.record_update(update, 0, 0.25, outcome(1.0, 2), num_tokens=2)
        log.record_validation(update, VALIDATION, is_best=False)
    log.forget_after(2, is_validated=False)
    assert [(r["update"], r["kind"]) for r in records(folder)] == [
        (1, "training"),
        (1, "validation"),
        (2, "training"),
    ]


def validate_each(log, *bleu, first=1):
    for update, score in enumerate(bleu, first):
        log.record_validation(update, replace(VALIDATION, bleu=score), is_best=False)


def scores_of(folder):
    return [(record["update"], record["kind"], record["bleu"]) for record in records(folder)]


def test_the_record_of_a_best_model_that_a_rollback_undoes_is_kept_until_a_better_one(folder, make_log):
    log, best = make_log(), {"bleu": 7.0, "loss": 1.5}
    validate_each(log, 5.0, 6.0, 7.0, 4.0)
    log.forget_after(2, best=best)
    validate_each(log, 3.0, first=3)
    log.forget_after(2, best=best)  # another rollback
    assert scores_of(folder) == [(1, "validation", 5.0), (2, "validation", 6.0), (3, "undone", 7.0)]
    validate_each(log, 8.0, first=3)
    log.forget_after(3, best={"bleu": 8.0, "loss": 1.5})
    assert scores_of(folder) == [(n, "validation", bleu) for n, bleu in ((1, 5.0), (2, 6.0), (3, 8.0))]


def test_a_validation_that_only_equals_the_best_one_is_forgotten(folder, make_log):
    log = make_log()
    validate_each(log, 5.0, 5.0, 5.0)
    log.forget_after(2, best={"bleu": 5.0, "loss": 1.5})
    assert scores_of(folder) == [(1, "validation", 5.0), (2, "validation", 5.0)]


def test_a_damaged_history_is_kept_apart_from_its_undamaged_lines(folder, make_log, said):
    lines = [b'{"update": 1}', b'{"update": 2', b"\xff\xfe", b'{"update": 3}', b"[]", b'{"update": 9}', b'{"upd']
    content = b"\n".join(lines)
    folder.history.write_bytes(content)
    make_log().forget_after(3)
    assert folder.history.read_bytes() == b'{"update": 1}\n{"update": 3}\n'
    copy = folder.path / "history.jsonl.damaged"
    assert copy.read_bytes() == content
    assert said == [f"{folder.history}: removed damaged lines (2, 3, 5). The old file is {copy}."]


def test_an_average_is_recorded_with_the_decision(folder, make_log):
    log = make_log(tensorboard=True)
    log.record_average(9, Validation(1.5, 4.5, 12.0, 30.0), is_best=False, num_checkpoints=3)
    log.close()
    scores = {"loss": 1.5, "perplexity": 4.5, "bleu": 12.0, "chrf": 30.0}
    assert records(folder) == [{"update": 9, "kind": "average", **scores, "is_best": False, "num_checkpoints": 3}]
    curves = curves_of(folder)
    assert (curves["average/chrf", 9], curves["average/is_best", 9], curves["average/num_checkpoints", 9]) == (30, 0, 3)


def test_records_of_older_versions_are_kept_when_a_run_is_resumed(folder, make_log):
    old = '{"update": 2, "kind": "training", "epoch": 0, "loss": 1.5, "nll": 1.2, "pieces_per_second": 1000.0}\n'
    folder.history.write_text(old + '{"update": 4, "kind": "training", "pieces_per_second": 1000.0}\n')
    log = make_log()
    log.forget_after(2)
    log.record_update(3, 0, 0.25, outcome(1.0, 2), num_tokens=2)
    log.record_update(4, 0, 0.25, outcome(1.0, 2), num_tokens=2)
    assert folder.history.read_text().startswith(old)
    assert [record["update"] for record in records(folder)] == [2, 4]
    assert "tokens_per_second" in records(folder)[1]


def test_nothing_to_forget_in_a_new_run(folder, make_log):
    make_log().forget_after(0)
    assert not folder.history.exists()


def test_all_workers_but_the_chief_are_silent(folder, make_log, said):
    folder.history.write_text('{"update": 5}\n')
    log = make_log(every=1, silent=True, tensorboard=True)
    log.forget_after(0)
    log.record_update(1, 0, 0.25, outcome(1.0, 2), num_tokens=2)
    log.record_validation(1, VALIDATION, is_best=True)
    assert said == []
    assert folder.history.read_text() == '{"update": 5}\n'
    assert not folder.tensorboard.exists()


def test_curves_can_be_read_back(folder, make_log):
    log = make_log(every=1, tensorboard=True)
    log.record_update(3, 0, 0.25, outcome(1.5, 2), num_tokens=2)
    log.record_validation(4, VALIDATION, is_best=True)
    log.close()
    curves = curves_of(folder)
    assert curves["training/loss", 3] == 1.5
    assert curves["training/learning_rate", 3] == 0.25
    assert curves["validation/bleu", 4] == pytest.approx(12.345)


def test_a_terminal_gets_a_bar_instead_of_lines(folder, make_log, said, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = make_log(every=1, total=10)
    log.record_update(4, 0, 0.25, outcome(1.5, 2), num_tokens=2)
    assert said == []
    assert [record["update"] for record in records(folder)] == [4]
    assert log.bar.progress.tasks[0].completed == 4
    assert log.bar.progress.tasks[0].total == 10
    assert log.bar.progress.tasks[0].description == "epoch 1 · loss 1.500"
    log.record_validation(4, VALIDATION, is_best=False)
    assert len(said) == 1


DEV = DevSet("dev", ["a b", "c"], ["A B", "C"])
LINKS = WordLinks(["the", "日本語", "of"], ["das", "عالم"], np.array([[0.1, 0.9, 0.0], [0.0, 0.0, 1.0]]))


def test_translations_are_kept_one_per_line(folder, make_log):
    validation = replace(VALIDATION, translations=["x\ny", "z"])
    make_log(dev=[DEV], keep_translations=True).record_validation(7, validation, is_best=True)
    assert (folder.path / "validations" / "update-000000007.dev.txt").read_text() == "x y\nz\n"
    make_log(dev=[DEV]).record_validation(8, validation, is_best=True)
    make_log(dev=[DEV], keep_translations=True, silent=True).record_validation(9, validation, is_best=True)
    assert len(list((folder.path / "validations").iterdir())) == 1


def test_translations_of_several_sets_are_kept_apart(folder, make_log):
    sets = {name: replace(VALIDATION, translations=[name]) for name in ("to/de", "fr")}
    dev = [DevSet(name, ["a"], ["A"]) for name in sets]
    make_log(dev=dev, keep_translations=True).record_validation(7, replace(VALIDATION, sets=sets), is_best=True)
    for name in sets:
        assert folder.locate_translations(7, name).read_text() == f"{name}\n"


def test_samples_are_shown_in_tensorboard(folder, make_log):
    log = make_log(tensorboard=True, dev=[DEV])
    log.record_validation(7, replace(VALIDATION, translations=["x", "z"]), is_best=True)
    log.close()
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    [event] = events.Tensors("dev/2")
    rows = [[cell.decode() for cell in row] for row in make_ndarray(event.tensor_proto)]
    assert rows == [["source", "c"], ["reference", "C"], ["translation", "z"]]


def test_attention_is_darkest_where_the_weight_is(folder, make_log):
    log = make_log(tensorboard=True)
    log.record_attention(7, [LINKS])
    log.close()
    [event] = EventAccumulator(str(folder.tensorboard)).Reload().Tensors("attention/1")
    width, height, png = make_ndarray(event.tensor_proto)
    pixels = np.asarray(Image.open(io.BytesIO(png)), int)
    assert pixels.shape == (int(height), int(width))
    cells = pixels[-(2 * CELL + MARGIN) : -MARGIN, -(3 * CELL + MARGIN) : -MARGIN]
    middle = cells[CELL // 2 :: CELL, CELL // 2 :: CELL]
    np.testing.assert_allclose(middle, 240 * (1 - LINKS.weights), atol=1)
    assert (pixels[: -(2 * CELL + MARGIN)] < 128).any()  # words above
    assert (pixels[:, : -(3 * CELL + MARGIN)] < 128).any()  # words on the left


def test_the_projector_finds_tokens_and_their_vectors(folder, make_log):
    vectors = np.arange(12, dtype="float32").reshape(4, 3)
    tokens = SimpleNamespace(get_token=["<pad>", "▁a", " ", "\n"].__getitem__)
    log = make_log(tensorboard=True)
    log.record_embeddings(7, {"source_embedding": (vectors, tokens)})
    config = text_format.Parse((folder.tensorboard / "projector_config.pbtxt").read_text(), ProjectorConfig())
    [table] = config.embeddings
    read = np.fromfile(folder.tensorboard / table.tensor_path, "float32").reshape(list(table.tensor_shape))
    np.testing.assert_array_equal(read, vectors)
    assert (folder.tensorboard / table.metadata_path).read_text() == "<pad>\n▁a\n\\x20\n\\n\n"
