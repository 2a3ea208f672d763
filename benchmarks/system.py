"""One toolkit of the comparison: trained and asked to translate by a driver, in an environment of its own."""

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
    """What is measured, and how it is called on the page."""

    key: str
    """For files and options."""
    title: str
    description: str
    """In what its model differs from the others."""
    driver: str
    shapes: Callable[[int], Shapes]
    """Of its model, for a size of vocabulary."""
    packages: Sequence[str]
    """Whose versions are stated."""
    environment: Environment | None = None
    """None is the one that the benchmark itself runs in; such a system reads text, peers read pieces."""
    overrides: Sequence[str] = ()
    """Changes of this toolkit's configuration, KEY=VALUE."""
    export: Sequence[str] = ()
    """How an export is made that translates, with its own beam, in place of ours; options of `nmt export`."""

    def prepare(self) -> None:
        """Builds the environment where it must be built."""
        if self.environment:
            self.environment.build()

    def versions(self) -> dict[str, str]:
        """The versions of its packages, as far as they are installed."""
        if self.environment:
            return self.environment.versions(self.packages)
        return {name: version(name) for name in self.packages}

    def command(self) -> list[str]:
        """What runs the driver, but for the job."""
        interpreter = self.environment.interpreter if self.environment else sys.executable
        return [str(interpreter), str(DRIVERS / self.driver)]

    def train(
        self, text: Text, model: Path, *, updates: int, seed: int, threads: int, cache: Path | None = None
    ) -> Run:
        """Trains a new model into a folder.

        Args:
            cache: where ours keeps what it knows of the text; by default in the model's folder, which begins empty.

        Returns:
            The run, whose report holds `updates`: [moment, target pieces] of each.
        """
        shutil.rmtree(model, ignore_errors=True)
        job = {
            **self._job("train", text, model),
            "train": str(text.prefix("train", pieces=self.reads_pieces)),
            "dev": str(text.prefix("dev", pieces=self.reads_pieces)),
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
        """Translates a file of text, or of pieces where the system reads those.

        Args:
            decoding: other settings of ours, of `DecodingConfig`.

        Returns:
            The run, whose report holds the moments `loaded` and `ready` (the first line translated), and the `seconds`
            of each pass over all lines; and the translations as text.
        """
        folder = model.with_name(f"{model.name}.translate")
        output = folder / "translations.txt"
        job = {
            **self._job("translate", text, model),
            "source": str(source),
            "output": str(output),
            "beam_size": beam_size,
            "decoding": decoding or {},
            "passes": passes,
        }
        run = self._run(job, folder, threads)
        lines = read_lines(output)
        return run, text.joined(lines) if self.reads_pieces else lines

    def run(self, task: str, text: Text, model: Path, *, threads: int, **values: object) -> Run:
        """Runs another task of its driver."""
        return self._run({**self._job(task, text, model), **values}, model.with_name(f"{model.name}.{task}"), threads)

    @property
    def reads_pieces(self) -> bool:
        """Whether its text is cut for it beforehand."""
        return self.environment is not None

    def _job(self, task: str, text: Text, model: Path) -> dict:
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
        # The toolkit is that of this checkout, whatever is installed; peers are to see nothing of it.
        environment = {"PYTHONPATH": "" if self.environment else str(ROOT)}
        return run_driver(self.command(), job, folder=folder, threads=threads, environment=environment)
