"""The recipes in configs/: each says how it is trained and what it reaches, and reads text that its commands make."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.experiments import read_runs
from nmt.config.file import load_config
from nmt.config.schema import Config
from nmt.data.catalog import load_catalog
from nmt.data.preparation import TOKENIZER_FILES

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "configs").glob("*.yaml"))
FILES_OF_RUNS = sorted((REPOSITORY / "benchmarks" / "runs").glob("*.yaml"))
# Print the arguments of a command on a line, in place of running it.
RECORDER = """
nmt() { printf '%s\\x1f' "$@"; echo; }
python() { printf '%s\\x1f' python "$@"; echo; }
taskset() { shift 2; "$@"; }
zcat() { :; }
"""
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


def list_calls(path: Path, folder: Path) -> list[list[str]]:
    """Returns the arguments of the commands in a header, after those that it tells to run first.

    The shell runs all but the programs in a folder, where it makes the files that are redirected to.
    """
    header = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))[0].partition("# Score:")[0]
    calls = []
    for stem, without_last in re.findall(r"First run all commands of ([\w-]+)( but the last)?\.", header):
        calls += list_calls(REPOSITORY / "configs" / f"{stem}.yaml", folder)
        calls = calls[:-1] if without_last else calls
    lines = re.findall(r"^#   (.*)", header, re.MULTILINE)
    if "own-language-pair.md" in header:
        lines = re.findall(r"^    (.*)", OWN_PAIR.partition("multi30k-captions` adds")[2], re.MULTILINE) + lines
    script = "\n".join([RECORDER, *lines])
    done = subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True, text=True)
    return calls + [line.split("\x1f")[:-1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("path", RECIPES + FILES_OF_RUNS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_commands_of_a_header_read_what_earlier_ones_make(path, tmp_path):
    """Texts, models and tokenizers, with the right languages."""
    calls = list_calls(path, tmp_path)
    texts = {file.name: file.suffix[1:] for file in tmp_path.iterdir()}  # with the language of each
    models: dict[str, tuple[str, str]] = {}

    def train(config: Config) -> None:
        languages = config.data.source_language, config.data.target_language
        for files in (*config.data.train, config.data.dev):
            assert (texts[str(files.source)], texts[str(files.target)]) == languages
        for tokenizer in (config.tokenizer.source_model, config.tokenizer.target_model):
            assert tokenizer is None or (str(tokenizer.parent) in models and tokenizer.name in TOKENIZER_FILES)
        models[str(config.run_dir)] = languages

    for name, *arguments in calls:
        given = [one for before, one in pairwise(["", *arguments]) if not one.startswith("-") and before[:1] != "-"]
        options = {before: one for before, one in pairwise(arguments) if before.startswith("-")}
        into = options.get("--into")
        if name == "demo":
            texts |= {f"data/demo/{part}.{side}": side for part in ("train", "dev") for side in ("en", "de")}
        elif name == "download":
            files = [file for part in load_catalog()[given[0]].resources for file in part.files]
            texts |= {f"data/{given[0]}/{file}": file.split(".")[-2] for file in files}
        elif name == "train":
            train(load_config(given[0], given[1:]))
        elif name == "ensemble":
            [models[given[0]]] = {models[one] for one in given[1:]}
        elif name == "distill":
            config = load_config(options["--config"]) if "--config" in options else None
            sources = [str(one.source) for one in config.data.train] if config else [options["--source"]]
            source, target = models[given[0]]
            assert config is None or (config.data.source_language, config.data.target_language) == (source, target)
            for number, file in enumerate(sources, start=1):
                assert texts[file] == source
                texts |= {f"{into}/distilled-{number}.source": source, f"{into}/distilled-{number}.target": target}
        elif name == "back-translate":
            target, source = models[given[0]]
            assert texts[given[1]] == target
            texts |= {f"{into}/back-translated-1.source": source, f"{into}/back-translated-1.target": target}
        elif name == "translate":
            source, target = models[given[0]]
            assert texts[options["-i"]] == source
            texts[options["-o"]] = target
        else:
            assert options["-m"] == "benchmarks.experiments"
            for run in read_runs(REPOSITORY / given[0], Path(into))[0]:
                train(run.config)
    assert path not in RECIPES or str(load_config(path).run_dir) in models


def test_the_documentation_lists_every_recipe():
    assert set(re.findall(r"\(\.\./\.\./configs/([\w-]+)\.yaml\)", OWN_PAIR)) == {path.stem for path in RECIPES}


def test_the_example_of_the_documentation_is_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sv-fi.yaml").write_text(re.search(r"```yaml\n(.*?)```", OWN_PAIR, re.DOTALL)[1])
    config = load_config("sv-fi.yaml")
    assert config.run_dir == Path("runs/sv-fi") and config.model.attention_hops == 2
    training = config.training
    assert training.max_updates == training.schedule_updates == pytest.approx(26 * 30_000 / 64, rel=0.01)
