"""The recipes in configs/: each says how it is trained and what it reaches, and reads text that its commands make."""

import re
from pathlib import Path

import pytest

from nmt.config.file import load_config
from nmt.data.catalog import load_catalog

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "configs").glob("*.yaml"))
OWN_PAIR = (REPOSITORY / "docs" / "tutorials" / "own-language-pair.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_its_command_and_its_score(path):
    header = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))[0]
    assert re.search(rf"^#   (KERAS_BACKEND=jax )?nmt train {path.stem}\b", header, re.MULTILINE)
    score = re.search(r"^# Score:    (.*)", header, re.MULTILINE)[1]
    # A measured score comes with time and machine.
    measured = ("# Time:    " in header, "# Machine: " in header)
    assert (score, measured) == ("not trained yet", (False, False)) or ("BLEU on" in score and all(measured))
    assert load_config(path.stem).run_dir == Path("runs", path.stem)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_reads_what_its_commands_make(path):
    text = path.read_text(encoding="utf-8")
    student = (REPOSITORY / "configs" / "multi30k-en-de-student.yaml").read_text(encoding="utf-8")
    commands = text if path.stem.endswith("-student") else text + student
    folders = {into.replace("$seed", seed) for into in re.findall(r"--into (\S+)\n", commands) for seed in "12"}
    catalog = {
        f"data/{name}/{file}" for name, one in load_catalog().items() for part in one.resources for file in part.files
    }
    data = load_config(path).data
    languages = data.source_language, data.target_language
    for files in (*data.train, data.dev):
        for file, language in zip((str(files.source), str(files.target)), languages, strict=True):
            if file.startswith("data/demo/"):
                assert file.endswith(f".{language}") and "nmt demo" in text
            elif file.startswith("synthetic/"):
                assert str(Path(file).parent) in folders and re.search(r"multi30k-en-..-student", text)
            else:
                assert file in catalog and re.search(rf"\.{language}\.(gz|xz)$", file)
                assert f"nmt download {Path(file).parts[1]}" in text + student


def test_the_documentation_lists_every_recipe():
    assert set(re.findall(r"\(\.\./\.\./configs/([\w-]+)\.yaml\)", OWN_PAIR)) == {path.stem for path in RECIPES}


def test_the_example_of_the_documentation_is_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sv-fi.yaml").write_text(re.search(r"```yaml\n(.*?)```", OWN_PAIR, re.DOTALL)[1])
    config = load_config("sv-fi.yaml")
    assert config.run_dir == Path("runs/sv-fi") and config.model.attention_hops == 2
    training = config.training
    assert training.max_updates == training.schedule_updates == pytest.approx(26 * 30_000 / 64, rel=0.01)
