"""An export whose translations break a promise is not written."""

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
def test_the_artefact_itself_must_keep_promises(file, monkeypatch, first, is_kept):
    monkeypatch.setattr(job, "run_artefact", lambda folder, sources: {"translations": [first, *sources[1:]]})
    logged: list[str] = []
    nothing: dict = dict.fromkeys(("path", "folder", "translator", "sources", "references", "quantize"))
    one = ExportJob(**nothing, promises=read_promises(file))
    if is_kept:
        one.check_promises(Path("aside"), logged.append)
    else:
        with pytest.raises(BrokenPromiseError, match="nothing was written"):
            one.check_promises(Path("aside"), logged.append)
    assert f"{file}:2: warning" in logged[0] and f"all: {int(is_kept)} of 2 promises kept" in logged[0]


def test_the_models_promises_are_found_or_replaced(model_folder, file, tmp_path):
    config = replace_values(model_folder.config, {"data.promises": str(tmp_path / "gone.yaml")}, "test")
    with pytest.raises(UserError, match=r"gone.yaml \(data.promises\), which no longer exists.* --promises FILE"):
        find_promises(config, None)
    assert find_promises(config, file) == read_promises(file)
    assert find_promises(replace_values(config, {"data.promises": str(file)}, "test"), None) == read_promises(file)
    assert find_promises(model_folder.config, None) is None


def test_a_mistake_in_the_file_is_found_before_any_work(exported, tmp_path):
    (tmp_path / "p.yaml").write_text("- source: x\n")
    with pytest.raises(UserError, match=r"p\.yaml:1"):
        export(exported.model, tmp_path / "out", promises=tmp_path / "p.yaml", log=pytest.fail)
    assert not (tmp_path / "out").exists()
