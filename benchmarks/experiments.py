"""Trains each setting of a file of runs with each seed, and compares the settings in one table.

    python -m benchmarks.experiments RUNS.yaml --into DIR [--workers N]

The file of runs:

    config: multi30k-en-de                    # a recipe or a file
    overrides: [training.max_updates=11800]   # of every setting
    seeds: [1, 2, 3]
    tok_lc: true                              # score the Multi30k convention as well
    settings:                                 # the others are compared with the first
      - name: plain
      - {name: r-drop-3, overrides: [training.consistency=3]}
      - {name: mine, config: mine.yaml, seeds: [1]}

Every run is an `nmt train` of its own. The same command again resumes interrupted runs and skips finished ones.
`nmt evaluate` scores the dev text with the same search for all. A run has in DIR/NAME its folder `seed-N`, its
log, its translations `seed-N.txt`, and `seed-N.json`, which marks it as finished.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import Field, ValidationError
from sacrebleu.metrics import BLEU

from benchmarks.results import describe_run
from nmt.config.file import config_from_text, dump_config, find_differences, load_config
from nmt.config.schema import Config, CorpusFiles, Section
from nmt.config.yaml_lines import read_yaml
from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.evaluation.metrics import make_bleu, tokenize_lowercase
from nmt.files import atomic_write
from nmt.process import count_cpus
from nmt.signals import exit_on_sigterm

PACKAGES = ("tensorflow", "jax", "keras", "sentencepiece", "sacrebleu")
PROGRAM = (sys.executable, "-m", "nmt")
# One search for all experiments: a setting must not win by its search.
SEARCH = ("beam_size=5", "length_penalty=1.0", "pruning_threshold=0", "precision=float32")
NUM_RESAMPLES = 1000
HEAD_START = 60.0  # seconds in which the first run on a GPU compiles for the others
NVIDIA = Path("/proc/driver/nvidia/version")

Statistics = np.ndarray  # [seeds, sentences, 10]: lengths of hypothesis and reference, matches and n-grams by order


class Setting(Section):
    """One setting of a file of runs. What it leaves out is taken from the top of the file."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    config: str | None = None
    overrides: tuple[str, ...] = ()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None


class RunsFile(Section):
    """A file of runs."""

    config: str
    overrides: tuple[str, ...] = ()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    tok_lc: bool = False
    settings: Annotated[list[Setting], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class Run:
    """One training: a setting with a seed."""

    name: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    """Arguments of `nmt train`."""
    config: Config

    def get_path(self, suffix: str) -> Path:
        """Returns the path of a file of this run, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}{suffix}")

    def is_finished(self) -> bool:
        """Returns whether the run was trained and scored.

        Raises:
            UserError: it was, but with other settings.
        """
        record = self.get_path(".json")
        if not record.is_file():
            return False
        before = config_from_text(json.loads(record.read_text(encoding="utf-8"))["config"], str(record))
        if changed := find_differences(before, self.config):
            raise UserError(
                f"{record} is of another configuration:\n  " + "\n  ".join(changed) + "\nGive the setting another "
                f"name, or remove {record} and {self.folder}."
            )
        return True


@dataclass
class Programs:
    """Runs nmt in processes of low priority, several at once."""

    environment: Mapping[str, str]
    threads: int
    _running: set[subprocess.Popen] = field(default_factory=set)

    def run(self, run: Run, *arguments: str) -> str:
        """Runs one command of nmt and returns its standard output, which is also appended to the run's log.

        Raises:
            UserError: the command failed.
        """
        command = ["nice", "-n", "10", *PROGRAM, *arguments, "--threads", str(self.threads)]
        lines = []
        with (
            run.get_path(".log").open("a", encoding="utf-8") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C reaches it once, by `terminate`
            ) as process,
        ):
            self._running.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines.append(line)
        self._running.discard(process)
        if process.returncode:
            raise UserError(f"nmt {arguments[0]} failed. See {run.get_path('.log')}.")
        return "".join(lines)

    def terminate(self) -> None:
        """Asks all running commands to save their work and end."""
        for process in list(self._running):
            process.terminate()


def read_runs(path: Path, into: Path) -> tuple[list[Run], bool]:
    """Reads a file of runs.

    Returns:
        The runs, setting by setting, and whether to score tok-lc as well.

    Raises:
        UserError: there is a mistake in the file, or in a configuration that it makes.
    """
    values, _ = read_yaml("\n".join(read_lines(path)), str(path))
    try:
        file = RunsFile.model_validate(values)
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UserError("\n".join(lines)) from error
    runs = []
    for setting in file.settings:
        overrides = [*file.overrides, *setting.overrides]
        if own := [one for one in overrides if one.startswith(("seed=", "run_dir="))]:
            raise UserError(f"{path}: {setting.name}: {own[0]}: seeds and --into set this key.")
        for seed in setting.seeds or file.seeds:
            folder = into / setting.name / f"seed-{seed}"
            arguments = (setting.config or file.config, *overrides, f"seed={seed}", f"run_dir={folder}")
            runs.append(Run(setting.name, seed, folder, arguments, load_config(arguments[0], arguments[1:])))
    if len({run.folder for run in runs}) < len(runs):
        raise UserError(f"{path}: two runs have the same name and seed.")
    if len({get_dev(run.config) for run in runs}) > 1:
        raise UserError(f"{path}: all settings need the same data.dev, on which they are compared.")
    return runs, file.tok_lc


def get_dev(config: Config) -> CorpusFiles:
    """Returns the dev text of a configuration.

    Raises:
        UserError: there are several.
    """
    if isinstance(config.data.dev, list):
        raise UserError("data.dev: experiments need one dev text, found a list.")
    return config.data.dev


def choose_environment(into: Path, workers: int) -> dict[str, str]:
    """Returns environment variables that let several processes share a GPU. What is set already stays."""
    if not NVIDIA.exists():
        return {}
    shared = {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / workers:.2f}",
        "JAX_COMPILATION_CACHE_DIR": str((into / "compiled").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {name: value for name, value in shared.items() if name not in os.environ}


def train_and_score(run: Run, programs: Programs, *, tok_lc: bool) -> None:
    """Trains one run, or resumes it, and scores it on its dev text."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    is_new, started = not run.folder.exists(), time.monotonic()
    programs.run(run, "train", *run.arguments)
    minutes = (time.monotonic() - started) / 60
    dev, decoding = get_dev(run.config), [f"decoding.{one}" for one in SEARCH]
    files = ["--source", str(dev.source), "--reference", str(dev.target), "--output", str(run.get_path(".txt"))]
    options = ["--json", *(["--tok-lc"] if tok_lc else [])]
    scores = json.loads(programs.run(run, "evaluate", str(run.folder), *files, *options, *decoding))
    # The minutes of a resumed training are not known.
    record = {"minutes": minutes if is_new else None, "config": dump_config(run.config), "scores": scores}
    with atomic_write(run.get_path(".json")) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def train_all(runs: Sequence[Run], programs: Programs, *, workers: int, tok_lc: bool) -> int:
    """Trains and scores the runs that are not finished, several at once, and returns how many failed."""
    missing = [run for run in runs if not run.is_finished()]
    num_failed = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = {}
            for run in missing:
                futures[pool.submit(train_and_score, run, programs, tok_lc=tok_lc)] = run
                if NVIDIA.exists() and len(futures) == 1:
                    wait(futures, timeout=HEAD_START)
            for future in as_completed(futures):
                error = future.exception()
                num_failed += error is not None
                typer.echo(
                    f"{futures[future].name}, seed {futures[future].seed}: {error or 'finished'}", err=bool(error)
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            programs.terminate()
            raise
    return num_failed


def count_matches(metric: BLEU, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Returns what BLEU is computed from, for each sentence, [sentences, 10]. The sum over sentences is the corpus'."""
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score = metric.corpus_score([hypothesis], [[reference]])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, dtype=np.int64)


def score_counts(counts: np.ndarray) -> float:
    """Returns BLEU of summed counts, [10]."""
    hypothesis_length, reference_length, *others = counts.tolist()
    return BLEU.compute_bleu(others[:4], others[4:], hypothesis_length, reference_length, smooth_method="exp").score


def compare_settings(settings: Mapping[str, Statistics], num_resamples: int = NUM_RESAMPLES) -> list[dict[str, Any]]:
    """Compares settings with the first one.

    The paired bootstrap (Koehn 2004) resamples sentences, the same ones for all settings, each with the translations of
    all seeds: three seeds are not three times as many sentences. A resample's score is the mean over the seeds.

    Args:
        settings: the counts of each setting by name. All have the same sentences.

    Returns:
        For each setting its name, the BLEU of each seed, `mean` and `sd` (None of one seed), and except for the first:
        `difference`, its 95 % `interval`, and `p_value`, two-sided as in sacreBLEU.
    """
    num_sentences = next(iter(settings.values())).shape[1]
    chosen = np.random.default_rng(12345).integers(num_sentences, size=(num_resamples, num_sentences))
    times = np.stack([np.bincount(row, minlength=num_sentences) for row in chosen])  # how often each sentence occurs
    rows: list[dict[str, Any]] = []
    baseline = None
    for name, counts in settings.items():
        scores = [score_counts(one) for one in counts.sum(axis=1)]
        row: dict[str, Any] = {"name": name, "scores": scores, "mean": statistics.mean(scores)}
        row["sd"] = statistics.stdev(scores) if len(scores) > 1 else None
        resampled = np.mean([[score_counts(one) for one in times @ seed] for seed in counts], axis=0)
        if baseline is None:
            baseline = row["mean"], resampled
        else:
            difference, differences = row["mean"] - baseline[0], resampled - baseline[1]
            row |= {"difference": difference, "interval": np.quantile(differences, [0.025, 0.975]).tolist()}
            extreme = np.abs(differences - differences.mean()) >= abs(difference)
            row["p_value"] = (int(extreme.sum()) + 1) / (num_resamples + 1)
        rows.append(row)
    return rows


def gather_statistics(runs: Sequence[Run], *, tok_lc: bool) -> dict[str, Statistics]:
    """Returns the counts of each setting by its name, from the translations of its finished runs."""
    config = runs[0].config
    language = config.data.target_language
    metric = BLEU(lowercase=True, tokenize="none", force=True) if tok_lc else make_bleu(language)

    def read(path: Path) -> list[str]:
        return tokenize_lowercase(read_lines(path), language) if tok_lc else read_lines(path)

    references = read(get_dev(config).target)
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        if run.is_finished():
            found.setdefault(run.name, []).append(count_matches(metric, read(run.get_path(".txt")), references))
    return {name: np.stack(counts) for name, counts in found.items()}


def render_table(rows: Sequence[Mapping[str, Any]], minutes: Mapping[str, float | None], title: str) -> str:
    """Returns a Markdown table of `compare_settings`."""
    lines = [f"| Setting | Seeds | {title} | Difference | 95 % interval | p | Minutes |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        score = f"{row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {row['sd']:.2f}")
        compared = ["–", "–", "–"]
        if "difference" in row:
            low, high = row["interval"]
            compared = [f"{row['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{row['p_value']:.3f}"]
        took = minutes[row["name"]]
        cells = [row["name"], str(len(row["scores"])), score, *compared, "–" if took is None else f"{took:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_results(runs: Sequence[Run], into: Path, *, tok_lc: bool, command: str) -> str:
    """Writes results.md and results.json about the finished runs, and returns the tables."""
    finished = [run for run in runs if run.is_finished()]
    if not finished:
        return "No run is finished.\n"
    records = {run: json.loads(run.get_path(".json").read_text(encoding="utf-8")) for run in finished}
    minutes: dict[str, float | None] = {}
    for name in dict.fromkeys(run.name for run in finished):
        known = [record["minutes"] for run, record in records.items() if run.name == name and record["minutes"]]
        minutes[name] = statistics.mean(known) if known else None
    measures = {"BLEU": False} | ({"tok-lc": True} if tok_lc else {})
    compared = {title: compare_settings(gather_statistics(finished, tok_lc=is_lc)) for title, is_lc in measures.items()}
    dev, described = get_dev(finished[0].config), describe_run(command)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    tables = "\n".join(render_table(rows, minutes, title) for title, rows in compared.items())
    note = (
        f"*{dev.target}, mean ± standard deviation over seeds, {', '.join(SEARCH)}. Differences are from "
        f"{finished[0].name}, by a paired bootstrap over sentences. Minutes are those of one training. "
        f"{described['machine']}, {backend}, {described['date']}: `{command}`.*\n"
    )
    result = {
        **described,
        "backend": backend,
        "versions": versions,
        "search": SEARCH,
        "measures": compared,
        "minutes": minutes,
        "runs": [
            {"setting": run.name, "seed": run.seed, "arguments": run.arguments, **records[run]} for run in finished
        ],
    }
    text = f"{tables}\n{note}"
    for suffix, content in (("json", json.dumps(result, indent=1, ensure_ascii=False) + "\n"), ("md", text)):
        with atomic_write(into / f"results.{suffix}") as aside:
            aside.write_text(content, encoding="utf-8")
    return text


def experiment(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.yaml", help="File of runs.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Folder for the runs and the table.", show_default=False)],
    workers: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
) -> None:
    """Train every setting with every seed, or what is missing of it, and compare them on the dev text."""
    listed, tok_lc = read_runs(runs, into)
    into.mkdir(parents=True, exist_ok=True)
    programs = Programs(choose_environment(into, workers), threads=max(1, math.floor(count_cpus() / workers)))
    num_failed = train_all(listed, programs, workers=workers, tok_lc=tok_lc)
    command = f"python -m benchmarks.experiments {runs} --into {into} --workers {workers}"
    typer.echo(write_results(listed, into, tok_lc=tok_lc, command=command))
    if num_failed:
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line. A `UserError` is printed without a traceback."""
    exit_on_sigterm()
    try:
        typer.run(experiment)
    except UserError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
