"""Reports the progress of a run: lines or a progress bar, history.jsonl, and files for TensorBoard."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nmt.data.preparation import DevSet, Log
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.files import append_line, atomic_write, read_json_lines
from nmt.process import read_peak_memory
from nmt.training.run_folder import RunFolder
from nmt.training.tensorboard import TensorBoardWriter
from nmt.training.update import Outcome
from nmt.training.validation import Validation

UNDONE = "undone"
"""Kind of the record of a best model whose updates a rollback has undone."""
SAMPLES = 8
"""Dev sentences whose translations TensorBoard shows."""


class RunLog:
    """Records updates and validations, by the names of their metrics.

    Args:
        folder: holds the history and the curves.
        log: receives one message per line.
        every: number of updates between two records of training.
        total: number of updates expected, or None if it is not known.
        tensorboard: whether to write for TensorBoard.
        dev: the text that validations translate.
        keep_translations: whether to keep the translations of validations.
        silent: write and log nothing, as every worker but the chief.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: Log,
        *,
        every: int,
        total: int | None,
        tensorboard: bool,
        dev: Sequence[DevSet] = (),
        keep_translations: bool = False,
        silent: bool = False,
    ):
        self.folder = folder
        self.log = log if not silent else lambda _: None
        self.every = every
        self.dev, self.keep_translations = dev, keep_translations
        self.silent = silent
        self.total, self.tensorboard = total, tensorboard
        self.curves: TensorBoardWriter | None = None
        self.bar: _Bar | None = None
        self._has_gap = False
        self._recent: list[Outcome] = []
        self._recent_tokens = 0
        self._recent_since = time.perf_counter()

    def start(self) -> None:
        """Shows the progress bar and opens the file of the curves, until `close`."""
        if self.tensorboard and not self.silent:
            self.curves = TensorBoardWriter(self.folder.tensorboard)
        if sys.stderr.isatty() and not self.silent:
            self.bar = _Bar(self.total)

    def forget_after(self, update: int, *, is_validated: bool = True, best: Mapping[str, float] = {}) -> None:
        """Removes from the history what a resumed run repeats: the records of later updates.

        The best model may be of such an update, which a rollback has undone. Its record is kept with the kind "undone",
        so that it is not taken for that of the repeated update. Damaged lines are removed as well. The damaged file is
        kept under another name.

        Args:
            update: the last update that is not repeated.
            is_validated: whether its validation is not repeated either.
            best: the scores of the best model by name, if there is one.
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
            if record.get("kind") != UNDONE
            and (
                record["update"] < update
                or (record["update"] == update and (is_validated or record.get("kind") == "training"))
            )
        ]
        scored = (one for one in records if one[1].get("kind") != "training")
        # The first of equal ones, as in training.
        line, record = next((one for one in scored if best and best.items() <= one[1].items()), ("", {}))
        if record and line not in kept:
            kept.append(json.dumps({**record, "kind": UNDONE}))
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
        speed = {
            "learning_rate": learning_rate,
            "tokens_per_second": tokens_per_second,
            "memory_mib": read_peak_memory() / 2**20,
        }
        self._record(update, "training", {"epoch": epoch, **means, **speed})
        if not self.bar:
            self.log(
                f"update {update:,} · epoch {epoch + 1} · loss {means['loss']:.3f} · {tokens_per_second:,.0f} tokens/s"
            )
        self._start_afresh()

    def record_validation(self, update: int, validation: Validation, is_best: bool) -> None:
        """Records and logs a validation, and keeps its translations."""
        self._record(update, "validation", validation.as_record())
        translations = {one.name: validation.get_translations(one.name) for one in self.dev}
        if self.keep_translations and any(translations.values()):
            self._try_write(update, lambda: self._write_translations(update, translations))
        if self.curves:
            self._try_write(update, lambda: self._add_samples(update, translations))
        self.log(f"update {update:,} · validation: {validation}" + (" · best so far" if is_best else ""))
        # The time of a validation must not count as time of training, so the means start again.
        self._start_afresh()

    def record_average(self, update: int, validation: Validation, *, is_best: bool, num_checkpoints: int) -> None:
        """Records the scores of the average of the last checkpoints, and whether it became the best model."""
        scores = {**validation.as_record(), "is_best": is_best, "num_checkpoints": num_checkpoints}
        self._record(update, "average", scores)

    def record_attention(self, update: int, links: Sequence[WordLinks]) -> None:
        """Draws the attention of the first samples of a validation for TensorBoard."""
        if self.curves:
            pictures = {f"attention/{number}": one for number, one in enumerate(links, 1) if one.weights.size}
            self._try_write(update, partial(self.curves.add_attention, update, pictures))

    def record_embeddings(self, update: int, tables: Mapping[str, tuple[np.ndarray, Tokenizer]]) -> None:
        """Writes token vectors for TensorBoard's projector; see `TensorBoardWriter.write_embeddings`."""
        if self.curves:
            self._try_write(update, partial(self.curves.write_embeddings, tables))

    def choose_samples(self) -> list[tuple[str, int]]:
        """Returns dev set and line of the sentences that TensorBoard shows, evenly spaced over all sets."""
        every = [(one.name, line) for one in self.dev for line in range(len(one.targets))]
        return [every[n] for n in np.unique(np.linspace(0, len(every) - 1, min(SAMPLES, len(every))).astype(int))]

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
        line = json.dumps({"update": update, "kind": kind, **finite}, allow_nan=False)
        curves = {f"{kind}/{name}": value for name, value in values.items()}
        self._try_write(update, lambda: self._write_record(update, line, curves))

    def _write_record(self, update: int, line: str, curves: Mapping[str, float]) -> None:
        append_line(self.folder.history, line)
        if self.curves:
            self.curves.add_scalars(update, curves)

    def _write_translations(self, update: int, translations: Mapping[str, Sequence[str]]) -> None:
        for name, lines in translations.items():
            with atomic_write(self.folder.locate_translations(update, name)) as aside:
                # A byte token could write a line break.
                aside.write_text("".join(f"{line.replace(chr(10), ' ')}\n" for line in lines), encoding="utf-8")

    def _add_samples(self, update: int, translations: Mapping[str, Sequence[str]]) -> None:
        assert self.curves is not None
        dev = {one.name: one for one in self.dev}
        texts = {
            f"dev/{number}": [
                ("source", dev[name].sources[line]),
                ("reference", dev[name].targets[line]),
                ("translation", translations[name][line]),
            ]
            for number, (name, line) in enumerate(self.choose_samples(), 1)
            if translations[name]
        }
        self.curves.add_texts(update, texts)

    def _try_write(self, update: int, write: Callable[[], None]) -> None:
        """Writes records; the first failure is logged, and training continues without them."""
        if self.silent:
            return
        try:
            write()
        except (OSError, UserError) as error:
            if not self._has_gap:
                self.log(f"update {update:,}: from here on, history.jsonl is incomplete. {error}")
            self._has_gap = True


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
