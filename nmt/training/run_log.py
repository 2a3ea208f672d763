"""What a run reports: lines or a progress bar for people, history.jsonl for programs, curves for TensorBoard."""

import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from nmt.data.preparation import Log
from nmt.errors import UserError
from nmt.files import append_line, atomic_write, read_json_lines
from nmt.training.run_folder import RunFolder
from nmt.training.update import Outcome
from nmt.training.validation import Validation

# The first record of a file that TensorBoard reads.
FILE_VERSION = "brain.Event:2"


class RunLog:
    """Records updates and validations, by the names of their metrics.

    Args:
        folder: holds the history and the curves.
        log: receives one message per line.
        every: number of updates between two records of training.
        total: number of updates expected, or None if it is not known.
        tensorboard: whether to write curves.
        silent: write and log nothing, as every worker but the chief.
    """

    def __init__(
        self, folder: RunFolder, log: Log, *, every: int, total: int | None, tensorboard: bool, silent: bool = False
    ):
        self.folder = folder
        self.log = log if not silent else lambda _: None
        self.every = every
        self.silent = silent
        self.curves = TensorBoardWriter(folder.tensorboard) if tensorboard and not silent else None
        self.bar = _Bar(total) if sys.stderr.isatty() and not silent else None
        self._has_gap = False
        self._recent: list[Outcome] = []
        self._recent_tokens = 0
        self._recent_since = time.perf_counter()

    def forget_after(self, update: int, *, is_validated: bool = True) -> None:
        """Removes from the history what a resumed run repeats: the records of later updates.

        Damaged lines are removed as well. The damaged file is kept under another name.

        Args:
            update: the last update that is not repeated.
            is_validated: whether its validation is not repeated either.
        """
        history = self.folder.history
        if self.silent or not history.is_file():
            return
        content = history.read_bytes()
        records, damaged = read_json_lines(history, key="update")
        if damaged:
            copy = history.with_name(f"{history.name}.damaged")
            with atomic_write(copy) as aside:
                aside.write_bytes(content)
            self.log(f"{history}: removed damaged lines ({', '.join(map(str, damaged))}). The old file is {copy}.")
        kept = [
            line
            for line, record in records
            if record["update"] < update
            or (record["update"] == update and (is_validated or record.get("kind") == "training"))
        ]
        with atomic_write(history) as aside:
            aside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def record_update(
        self, update: int, epoch: int, learning_rate: float, outcome: Outcome, *, num_tokens: int
    ) -> None:
        """Collects the outcome of an update, and records the means over the last few.

        Args:
            update: number of the update.
            epoch: counted from 0.
            learning_rate: of the update.
            outcome: its outcome.
            num_tokens: target tokens of its batch, with EOS, whatever their weights.
        """
        self._recent.append(outcome)
        self._recent_tokens += num_tokens
        if self.bar:
            self.bar.show(update, f"epoch {epoch + 1} · loss {outcome.loss:.3f}")
        if update % self.every:
            return
        tokens_per_second = self._recent_tokens / (time.perf_counter() - self._recent_since)
        means = {name: self._average(name) for name in outcome.metrics}
        speed = {"learning_rate": learning_rate, "tokens_per_second": tokens_per_second}
        self._record(update, "training", {"epoch": epoch, **means, **speed})
        if not self.bar:
            self.log(
                f"update {update:,} · epoch {epoch + 1} · loss {means['loss']:.3f} · {tokens_per_second:,.0f} tokens/s"
            )
        self._start_afresh()

    def record_validation(self, update: int, validation: Validation, is_best: bool) -> None:
        """Records and logs a validation."""
        self._record(update, "validation", validation.as_record())
        self.log(f"update {update:,} · validation: {validation}" + (" · best so far" if is_best else ""))
        # The time of a validation must not count as time of training, so the means start again.
        self._start_afresh()

    def record_average(self, update: int, validation: Validation, *, is_best: bool, num_checkpoints: int) -> None:
        """Records the scores of the average of the last checkpoints, and whether it became the best model."""
        scores = {**validation.as_record(), "is_best": is_best, "num_checkpoints": num_checkpoints}
        self._record(update, "average", scores)

    def close(self) -> None:
        """Closes the progress bar and the curves."""
        if self.bar:
            self.bar.close()
        if self.curves:
            with contextlib.suppress(OSError):  # a full disk was reported before
                self.curves.close()

    def _start_afresh(self) -> None:
        self._recent, self._recent_tokens, self._recent_since = [], 0, time.perf_counter()

    def _average(self, name: str) -> float:
        """Returns the mean per token over the recent updates that were applied, or NaN if none was."""
        applied = [o for o in self._recent if o.is_applied]
        tokens = sum(o.num_tokens for o in applied)
        return sum(o.metrics[name] * o.num_tokens for o in applied) / tokens if tokens else math.nan

    def _record(self, update: int, kind: str, values: dict[str, Any]) -> None:
        if self.silent:
            return
        # JSON has neither infinity nor NaN.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            append_line(self.folder.history, json.dumps({"update": update, "kind": kind, **finite}, allow_nan=False))
            if self.curves:
                self.curves.add_scalars(update, {f"{kind}/{name}": value for name, value in values.items()})
        except (OSError, UserError) as error:
            if not self._has_gap:
                self.log(f"update {update:,}: from here on, history.jsonl is incomplete. {error}")
            self._has_gap = True


class TensorBoardWriter:
    """Writes one file of curves for TensorBoard.

    It uses TensorBoard's pure Python, so that it works on both backends. `tensorboard.summary.Writer` would import
    TensorFlow wherever that is installed.

    Args:
        folder: created if it is missing.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._write(file_version=FILE_VERSION)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each of several curves, by their tags, and flushes them to the file."""
        for tag, value in values.items():
            self._write(step=step, summary=scalar_pb(tag, value))
        self._records.flush()

    def close(self) -> None:
        """Closes the file. It may be called again."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())


class _Bar:
    """A progress bar on standard error."""

    def __init__(self, total: int | None):
        columns = (
            TextColumn("{task.completed:,} updates"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.progress.add_task("", total=total)
        self.progress.start()

    def show(self, update: int, text: str) -> None:
        self.progress.update(self.task, completed=update, description=text)

    def close(self) -> None:
        self.progress.stop()
