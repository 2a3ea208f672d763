"""What a run says of itself: lines or a progress bar for people, history.jsonl for programs, curves for TensorBoard."""

import contextlib
import json
import math
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nmt.data.preparation import Log
from nmt.errors import UserError
from nmt.files import append_line, atomic_write
from nmt.training.run_folder import RunFolder
from nmt.training.tensorboard import TensorBoardWriter
from nmt.training.update import Outcome
from nmt.training.validation import Validation


class RunLog:
    """Takes what happens in a run and passes it on.

    Args:
        folder: where history and curves go.
        log: receives one message per line.
        every: updates between records of training.
        total: updates expected, or None where it is not known.
        tensorboard: whether to write curves.
        silent: write nothing, as every worker but the chief.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: Log,
        *,
        every: int,
        total: int | None,
        tensorboard: bool,
        silent: bool = False,
    ):
        self.folder = folder
        self.log = log if not silent else lambda _: None
        self.every = every
        self.silent = silent
        self.curves = TensorBoardWriter(folder.tensorboard) if tensorboard and not silent else None
        self.bar = _Bar(total) if sys.stderr.isatty() and not silent else None
        self._gap = False
        self._recent: list[Outcome] = []
        self._since = time.perf_counter()

    def forget_after(self, update: int) -> None:
        """Drops the history's records of updates that a resumed run does again."""
        if self.silent or not self.folder.history.is_file():
            return
        lines = self.folder.history.read_text(encoding="utf-8").splitlines()
        with atomic_write(self.folder.history) as aside:
            aside.write_text("".join(f"{line}\n" for line in lines if _update_of(line) <= update), encoding="utf-8")

    def record_update(self, update: int, epoch: int, learning_rate: float, outcome: Outcome) -> None:
        """Takes the outcome of one update."""
        self._recent.append(outcome)
        if self.bar:
            self.bar.show(update, f"epoch {epoch + 1} · loss {outcome.loss:.3f}")
        if update % self.every:
            return
        seconds, tokens = time.perf_counter() - self._since, sum(o.num_tokens for o in self._recent)
        mean = {name: self._mean(name) for name in outcome.metrics}
        speed = {"learning_rate": learning_rate, "tokens_per_second": tokens / seconds}
        self._record(update, "training", {"epoch": epoch, **mean, **speed})
        if not self.bar:
            self.log(
                f"update {update:,} · epoch {epoch + 1} · loss {mean['loss']:.3f} · {tokens / seconds:,.0f} tokens/s"
            )
        self._recent, self._since = [], time.perf_counter()

    def record_validation(self, update: int, validation: Validation, is_best: bool) -> None:
        """Takes a validation."""
        self._record(update, "validation", asdict(validation))
        self.log(
            f"update {update:,} · validation: BLEU {validation.bleu:.2f} · perplexity {validation.perplexity:.2f}"
            + (" · best so far" if is_best else "")
        )
        # The time of a validation is none of training, whose means begin anew.
        self._recent, self._since = [], time.perf_counter()

    def close(self) -> None:
        """Ends the bar and the curves."""
        if self.bar:
            self.bar.close()
        if self.curves:
            with contextlib.suppress(OSError):  # a full disk was said before
                self.curves.close()

    def _mean(self, name: str) -> float:
        """The mean over the tokens of the recent updates that were applied; NaN where none was."""
        applied = [o for o in self._recent if o.is_applied]
        tokens = sum(o.num_tokens for o in applied)
        return sum(o.metrics[name] * o.num_tokens for o in applied) / tokens if tokens else math.nan

    def _record(self, update: int, kind: str, values: dict[str, Any]) -> None:
        if self.silent:
            return
        # JSON has no word for what is not finite.
        known = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            append_line(self.folder.history, json.dumps({"update": update, "kind": kind, **known}, allow_nan=False))
            if self.curves:
                self.curves.add_scalars(update, {f"{kind}/{name}": value for name, value in values.items()})
        except (OSError, UserError) as error:
            if not self._gap:
                self.log(f"update {update:,}: the history has a gap from here on. {error}")
            self._gap = True


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


def _update_of(line: str) -> int:
    try:
        return int(json.loads(line)["update"])
    except (ValueError, KeyError):
        return sys.maxsize  # a torn last line
