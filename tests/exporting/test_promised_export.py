"""An export whose translations break a promise is not written."""

from dataclasses import replace
from pathlib import Path

import pytest

from nmt.config.file import replace_values
from nmt.errors import BrokenPromiseError, UserError
from nmt.evaluation.promises import read_promises
from nmt.exporting import job
from nmt.exporting.job import ExportJob, find_promises
from nmt.exporting.savedmodel import export


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "p.yaml").write_text("- {source: a, contains: A}\n- {source: b, contains: X, severity: warning}\n")
    return tmp_path / "p.yaml"


@pytest.mark.parametrize(("first", "is_kept"), [("A", True), ("a", False)])
def test_the_artefact_itself_must_keep_promises(exported, file, monkeypatch, first, is_kept):
    monkeypatch.setattr(job, "run_artefact", lambda folder, sources: {"translations": [first, *sources[1:]]})
    logged: list[str] = []
    nothing: dict = dict.fromkeys(("path", "folder", "sources", "references", "quantize"))
    one = ExportJob(**nothing, translator=exported.translator, promises=read_promises(file))
    if is_kept:
        one.check_promises(Path("aside"), logged.append)
    else:
        with pytest.raises(BrokenPromiseError, match="nothing was written"):
            one.check_promises(Path("aside"), logged.append)
    assert f"{file}:2: warning" in logged[0] and f"all: {int(is_kept)} of 2 promises kept" in logged[0]


def test_the_models_promises_are_found_or_replaced(model_folder, file, tmp_path):
    config = replace_values(model_folder.config, {"data.promises": str(tmp_path / "gone.yaml")}, "test")
    assert find_promises(config, None) is None
    with pytest.raises(UserError, match=r"gone\.yaml"):
        find_promises(config, tmp_path / "gone.yaml")
    assert find_promises(config, file) == read_promises(file)
    assert find_promises(replace_values(config, {"data.promises": str(file)}, "test"), None) == read_promises(file)
    assert find_promises(model_folder.config, None) is None


def test_an_export_goes_on_with_a_warning_where_the_models_promises_are_gone(model_folder, tmp_path):
    config = replace_values(model_folder.config, {"data.promises": str(tmp_path / "gone.yaml")}, "test")
    nothing: dict = dict.fromkeys(("path", "translator", "sources", "references", "quantize", "promises"))
    logged: list[str] = []
    ExportJob(**nothing, folder=replace(model_folder, config=config)).check_promises(Path("aside"), logged.append)
    assert len(logged) == 1 and "gone.yaml (data.promises) are not checked" in logged[0]


def test_the_artefact_gets_the_tags_that_the_model_adds(model_folder, moved_model, file, monkeypatch, tmp_path):
    """An artefact does not know `decoding.tag`: its clients write the tag."""
    data = model_folder.config.data
    train = [files.model_copy(update={"tag": "<bt>"}) for files in data.train]
    model = moved_model(
        config=model_folder.config.model_copy(update={"data": data.model_copy(update={"train": train})})
    )
    (tmp_path / "sample").write_text("a\n<bt> b\n\n")
    options: dict = {"quantize": None, "export": None, "promises": file, "sample": tmp_path / "sample"}
    found = ExportJob.load(model, decoding={"tag": "<bt>"}, **options)
    assert found.sources == ["<bt> a", "<bt> b", ""]
    given: list[str] = []
    monkeypatch.setattr(job, "run_artefact", lambda folder, sources: given.extend(sources) or {"translations": "Ab"})
    found.check_promises(Path("aside"), lambda text: None)
    assert given == ["<bt> a", "<bt> b"]
    assert ExportJob.load(model, decoding=None, **options).sources == ["a", "<bt> b", ""]


def test_a_mistake_in_the_file_is_found_before_any_work(exported, tmp_path):
    (tmp_path / "p.yaml").write_text("- source: x\n")
    with pytest.raises(UserError, match=r"p\.yaml:1"):
        export(exported.model, tmp_path / "out", promises=tmp_path / "p.yaml", log=pytest.fail)
    assert not (tmp_path / "out").exists()
