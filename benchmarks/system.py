"""A system of the comparison. A driver trains it and translates with it, in its own environment."""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import settings as common
from benchmarks.arithmetic import Shapes
from benchmarks.corpus import ROOT, SOURCE, TARGET, Text
from benchmarks.environment import DRIVERS, Environment
from benchmarks.measure import Run, run_driver
from nmt.data.corpus import read_lines

SIZES = {
    "embedding_units": common.EMBEDDING_UNITS,
    "encoder_units": common.ENCODER_UNITS,
    "decoder_units": common.DECODER_UNITS,
}
TRAINING = {
    "batch_sentences": common.BATCH_SENTENCES,
    "dropout": common.DROPOUT,
    "label_smoothing": common.LABEL_SMOOTHING,
    "learning_rate": common.LEARNING_RATE,
    "clip_norm": common.CLIP_NORM,
    "max_length": common.MAX_LENGTH,
}


@dataclass(frozen=True)
class System:
    """One toolkit, or one variant of nmt."""

    key: str
    """Name in files and options."""
    title: str
    description: str
    """How its model differs from the others."""
    driver: str
    shapes: Callable[[int], Shapes]
    """Returns the shapes of its model for a vocabulary size."""
    packages: Sequence[str]
    """Packages whose versions are stored."""
    environment: Environment | None = None
    """Environment of a peer, which reads tokenized text. nmt has None: it runs in this one and reads plain text."""
    overrides: Sequence[str] = ()
    """Configuration overrides for nmt, KEY=VALUE."""
    export: Sequence[str] = ()
    """Options of `nmt export`. If given, the export translates in place of the model."""

    def prepare(self) -> None:
        """Builds the environment of a peer, unless it is up to date."""
        if self.environment:
            self.environment.build()

    def get_versions(self) -> dict[str, str]:
        """Returns the versions of its packages."""
        if self.environment:
            return self.environment.get_versions(self.packages)
        return {name: version(name) for name in self.packages}

    def make_command(self) -> list[str]:
        """Returns the command that runs its driver, without the job."""
        interpreter = self.environment.interpreter if self.environment else sys.executable
        return [str(interpreter), str(DRIVERS / self.driver)]

    def train(
        self, text: Text, model: Path, *, updates: int, seed: int, threads: int, cache: Path | None = None
    ) -> Run:
        """Trains a new model into a folder, which is emptied first.

        Args:
            cache: folder for the token cache of nmt, by default in the model's folder.

        Returns:
            The run. Its report has `updates`, a list of [time of its end, target tokens].
        """
        shutil.rmtree(model, ignore_errors=True)
        job = {
            **self._make_job("train", text, model),
            "train": str(text.get_prefix("train", tokens=self.reads_tokens)),
            "dev": str(text.get_prefix("dev", tokens=self.reads_tokens)),
            "updates": updates,
            "seed": seed,
            "cache": cache and str(cache),
            "overrides": list(self.overrides),
        }
        return self._run(job, model.with_name(f"{model.name}.train"), threads)

    def translate(
        self,
        text: Text,
        model: Path,
        source: Path,
        *,
        beam_size: int,
        passes: int,
        threads: int,
        decoding: dict | None = None,
    ) -> tuple[Run, list[str]]:
        """Translates a file.

        Args:
            source: plain text for nmt, tokenized text for peers.
            decoding: overrides for the `decoding` section of nmt.

        Returns:
            The run, and the translations as plain text. The report of the run has the times `loaded` and `ready` (when
            the first line was translated), and the `seconds` of each pass over all lines.
        """
        folder = model.with_name(f"{model.name}.translate")
        output = folder / "translations.txt"
        job = {
            **self._make_job("translate", text, model),
            "source": str(source),
            "output": str(output),
            "beam_size": beam_size,
            "decoding": decoding or {},
            "passes": passes,
        }
        run = self._run(job, folder, threads)
        lines = read_lines(output)
        return run, text.join_tokens(lines) if self.reads_tokens else lines

    def run(self, task: str, text: Text, model: Path, *, threads: int, **values: object) -> Run:
        """Runs another task of its driver."""
        return self._run(
            {**self._make_job(task, text, model), **values}, model.with_name(f"{model.name}.{task}"), threads
        )

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads tokenized text."""
        return self.environment is not None

    def _make_job(self, task: str, text: Text, model: Path) -> dict:
        return {
            "task": task,
            "model": str(model),
            "source_language": SOURCE,
            "target_language": TARGET,
            "tokenizer": str(text.tokenizer),
            "vocabulary": str(text.vocabulary),
            "sizes": SIZES,
            "training": TRAINING,
        }

    def _run(self, job: dict, folder: Path, threads: int) -> Run:
        # nmt runs from this checkout, even if another version is installed. Peers must not see it.
        environment = {"PYTHONPATH": "" if self.environment else str(ROOT)}
        return run_driver(self.make_command(), job, folder=folder, threads=threads, environment=environment)
