import json
import math
import os
import random
import statistics
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from benchmarks import experiments
from benchmarks.experiments import Programs, choose_environment, compare_settings, count_matches, read_runs
from nmt.errors import UserError
from nmt.signals import restore_handlers

RUNS_FILES = sorted((Path(experiments.__file__).parent / "runs").glob("*.yaml"))
CONFIG = """\
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
training: {max_updates: 9}
"""
RUNS = """\
config: x.yaml
overrides: [training.batch_size=8]
seeds: [1, 2]
tok_lc: true
settings:
  - name: plain
  - {name: smooth, overrides: [training.label_smoothing=0.2], seeds: [1, 2, 3]}
"""
NICE = str(min(19, os.nice(0) + 10))
# Stands for nmt: notes each call, kills itself at the first training of a seed 2, and translates by its seed.
PROGRAM = """\
import json, os, signal, sys
from pathlib import Path
command, *arguments = sys.argv[1:]
values = dict(one.split("=", 1) for one in arguments if "=" in one)
folder = Path(values["run_dir"] if command == "train" else arguments[0])
with open("calls.txt", "a") as calls:
    print(command, folder, os.nice(0), os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"), file=calls)
if command == "train":
    begun = folder.is_dir()
    folder.mkdir(exist_ok=True)
    if folder.name == "seed-2" and not begun:
        os.kill(os.getpid(), signal.SIGKILL)
    print("trained")
else:
    Path(arguments[arguments.index("--output") + 1]).write_text("Ein Hund läuft .\\nEine Katze schläft im Gras .\\n")
    print(json.dumps({"decoding": sorted(one for one in arguments if one.startswith("decoding."))}))
"""


def make_text(seed: int, *, wrong: float, like: list[str] | None = None) -> list[str]:
    """Lines of words; or those of `like`, of which some words are wrong and some are missing."""
    chance = random.Random(seed)
    words = ["der", "die", "das", "Hund", "Katze", "Maus", "sieht", "hört", "ruft", "schnell", "leise", "dort"]
    if like is None:
        return [" ".join(chance.choices(words, k=chance.randint(4, 12))) for _ in range(40)]
    return [
        " ".join(
            chance.choice(words) if chance.random() < wrong else word for word in line.split()[chance.randint(0, 1) :]
        )
        for line in like
    ]


def compute_bleu(hypotheses: list[str], references: list[str]) -> float:
    """BLEU as Papineni et al. (2002) define it, for text without punctuation and with every match above 0."""
    logs = 0.0
    for order in range(1, 5):
        matches = total = 0
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            found, known = (
                Counter(zip(*(line.split()[start:] for start in range(order)), strict=False))
                for line in (hypothesis, reference)
            )
            matches += sum((found & known).values())
            total += sum(found.values())
        logs += math.log(matches / total) / 4
    lengths = [sum(len(line.split()) for line in lines) for lines in (hypotheses, references)]
    return 100 * math.exp(logs + min(0, 1 - lengths[1] / lengths[0]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a file of runs, in which nmt is the program above."""
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(CONFIG)
    Path("runs.yaml").write_text(RUNS)
    Path("dev.de").write_text("Ein Hund läuft .\nEine Katze schläft im hohen Gras .\n")
    Path("program.py").write_text(PROGRAM)
    monkeypatch.setattr(experiments, "PROGRAM", (sys.executable, "program.py"))
    monkeypatch.setattr(experiments, "NVIDIA", Path("no such file"))
    with restore_handlers():
        yield tmp_path


def test_the_comparison_equals_one_that_scores_resampled_text():
    references = make_text(0, wrong=0)
    outputs = {
        "a": [make_text(seed, wrong=0.2, like=references) for seed in (1, 2, 3)],
        "b": [make_text(seed, wrong=0.1, like=references) for seed in (4, 5)],
        "c": [make_text(6, wrong=0.2, like=references)],
    }
    metric = BLEU(force=True)
    counts = {
        name: np.stack([count_matches(metric, one, references) for one in texts]) for name, texts in outputs.items()
    }
    first, *others = rows = compare_settings(counts, num_resamples=25)
    for row in rows:
        scores = [compute_bleu(one, references) for one in outputs[row["name"]]]
        assert row["scores"] == pytest.approx(scores)
        assert row["mean"] == pytest.approx(sum(scores) / len(scores))
        assert row["sd"] == (pytest.approx(statistics.stdev(scores)) if len(scores) > 1 else None)
    assert first.keys() == {"name", "scores", "mean", "sd"}
    chosen = np.random.default_rng(12345).integers(40, size=(25, 40))
    for row in others:
        differences = []
        for sample in chosen:
            mean = {
                name: statistics.mean(
                    compute_bleu([one[line] for line in sample], [references[line] for line in sample])
                    for one in outputs[name]
                )
                for name in ("a", row["name"])
            }
            differences.append(mean[row["name"]] - mean["a"])
        assert row["difference"] == pytest.approx(row["mean"] - first["mean"])
        assert row["interval"] == pytest.approx(np.quantile(differences, [0.025, 0.975]).tolist())
        centre = statistics.mean(differences)
        extreme = sum(abs(one - centre) >= abs(row["difference"]) for one in differences)
        assert row["p_value"] == pytest.approx((extreme + 1) / 26)
    assert others[0]["interval"][0] > 0 and others[0]["p_value"] == pytest.approx(1 / 26)


def test_a_setting_that_equals_the_first_differs_by_nothing():
    references = make_text(0, wrong=0)
    counts = count_matches(BLEU(force=True), make_text(1, wrong=0.2, like=references), references)[None]
    _, same = compare_settings({"a": counts, "b": counts}, num_resamples=9)
    assert (same["difference"], same["interval"], same["p_value"]) == (0, [0, 0], 1)


def test_interrupted_runs_resume_and_finished_ones_are_skipped(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiments", "runs.yaml", "--into", "out", "--workers", "2"])
    for num_calls in (8, 4, 0):  # 3 of 5 trained and scored, 2 killed; these 2 trained and scored; nothing
        Path("calls.txt").write_text("")
        with pytest.raises(SystemExit) as ended:
            experiments.main()
        assert ended.value.code == (1 if num_calls == 8 else 0)
        calls = [line.split() for line in Path("calls.txt").read_text().splitlines()]
        assert len(calls) == num_calls
        assert {nice for _, _, nice, _ in calls} <= {NICE}
    table = Path("out/results.md").read_text().splitlines()
    assert [line.split(" | ")[1] for line in table if line.startswith("| smooth")] == ["3", "3"]  # BLEU and tok-lc
    assert "nmt train failed" not in Path("out/plain/seed-2.log").read_text()
    results = json.loads(Path("out/results.json").read_text())
    assert [(run["setting"], run["seed"], run["minutes"] is None) for run in results["runs"]] == [
        ("plain", 1, False),
        ("plain", 2, True),
        ("smooth", 1, False),
        ("smooth", 2, True),
        ("smooth", 3, False),
    ]
    assert results["runs"][0]["scores"]["decoding"] == [
        "decoding.beam_size=5",
        "decoding.length_penalty=1.0",
        "decoding.precision=float32",
        "decoding.pruning_threshold=0",
    ]
    assert results["measures"]["BLEU"][1]["difference"] == 0


def test_results_say_where_they_are_from_and_survive_an_interrupted_write(folder, monkeypatch):
    run = read_runs(Path("runs.yaml"), Path("out"))[0][0]
    run.folder.mkdir(parents=True)
    record = {"minutes": 1.5, "config": experiments.dump_config(run.config), "scores": {}}
    run.get_path(".json").write_text(json.dumps(record))
    run.get_path(".txt").write_text(Path("dev.de").read_text())
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    text = experiments.write_results([run], Path("out"), tok_lc=False, command="first")
    stored = Path("out/results.json").read_text()
    facts = json.loads(stored)
    assert [facts[name] for name in ("command", "backend")] == ["first", "jax"]
    assert f"{facts['machine']}, jax, {facts['date']}: `first`.*" in text and facts["commit"]

    def write_half(path, content, **options):
        path.write_bytes(content.encode()[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(KeyboardInterrupt):
        experiments.write_results([run], Path("out"), tok_lc=False, command="second")
    assert (Path("out/results.json").read_text(), Path("out/results.md").read_text()) == (stored, text)


def test_a_finished_run_with_other_settings_is_refused(folder):
    runs, _ = read_runs(Path("runs.yaml"), Path("out"))
    for run in runs:
        run.folder.mkdir(parents=True)
        run.get_path(".json").write_text(json.dumps({"config": experiments.dump_config(run.config)}))
    assert all(run.is_finished() for run in runs)
    Path("runs.yaml").write_text(RUNS.replace("0.2", "0.3"))
    changed = read_runs(Path("runs.yaml"), Path("out"))[0][2]
    with pytest.raises(
        UserError, match=r"(?s)smooth/seed-1.json is of another .*label_smoothing: 0.2 became 0.3\nGive"
    ):
        changed.is_finished()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUNS.replace("smooth,", "a/b,"), "runs.yaml: settings.1.name: String should match"),
        (RUNS.replace("settings", "setings"), "runs.yaml: settings: Field required\nruns.yaml: setings: Extra"),
        (RUNS.replace("smooth,", "plain,"), "runs.yaml: two runs have the same name and seed"),
        (
            RUNS.replace("batch_size=8", "batch_sise=8"),
            "command line: training.batch_sise=8: unknown key. Did you mean",
        ),
        (RUNS.replace("training.batch_size=8", "seed=8"), "runs.yaml: plain: seed=8: seeds and --into set this key"),
        (
            RUNS.replace("training.label_smoothing=0.2", "data.dev.source=y"),
            "runs.yaml: all settings need the same data",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(folder, text, message):
    Path("runs.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^{message}"):
        read_runs(Path("runs.yaml"), Path("out"))


def test_processes_share_a_gpu_and_their_compilations(folder, monkeypatch):
    assert choose_environment(Path("out"), 3) == {}
    monkeypatch.setattr(experiments, "NVIDIA", Path("x.yaml"))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    environment = choose_environment(Path("out"), 3)
    assert environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.30" and "JAX_COMPILATION_CACHE_DIR" not in environment
    run = read_runs(Path("runs.yaml"), Path("out"))[0][0]
    run.folder.parent.mkdir(parents=True)
    Programs(environment, threads=1).run(run, "train", *run.arguments)
    assert Path("calls.txt").read_text().split() == ["train", "out/plain/seed-1", NICE, "0.30"]


@pytest.mark.parametrize("path", RUNS_FILES, ids=lambda path: path.stem)
def test_the_files_of_runs_are_valid(path, tmp_path):
    runs, _ = read_runs(path, tmp_path)
    assert len({run.folder for run in runs}) == len(runs) > 1
