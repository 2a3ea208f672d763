"""The folder of a run: its files, its lock, and which changes of the configuration it accepts.

config.yaml       the effective configuration
source.model, target.model
checkpoints/      the last few checkpoints
best/             a model folder with the best weights so far
history.jsonl     one record per line: training, validation, or average (of the last checkpoints)
validations/      the translations of the dev text by each validation, one per line
pair_losses.npy   the lowest loss of each training pair
data.json         what training read: files, pairs kept and dropped, tokens
tensorboard/
cache/            line indexes and tokens, rebuilt when missing
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from nmt.config.file import dump_config, find_differences, load_stored_config
from nmt.config.schema import Config
from nmt.data.preparation import TOKENIZER_FILES, Log
from nmt.errors import UserError
from nmt.files import atomic_write, discard, discard_stale_below, folder_lock, get_current_version, recover
from nmt.model_folder import WEIGHTS, is_ensemble
from nmt.weights import load_arrays

# Keys that a resumed run may change, since no update depends on them. decoding.tag changes what validation scores.
MAY_CHANGE = re.compile(
    r"run_dir|data\.(cache|promises)|decoding\.(?!tag)|export\."
    r"|training\.(max_(updates|epochs|minutes)|validate_every|checkpoint_every|keep_checkpoints|patience|max_skipped|max_rollbacks|on_full_disk|log_every|tensorboard|keep_(translations|pair_losses))"
)

# Schedule plateau sets the learning rate by validations, so that it also depends on these.
PLATEAU_MAY_NOT_CHANGE = re.compile(r"decoding\.|training\.validate_every")


class RunFolder:
    """The folder of one run.

    Args:
        path: created by `lock`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.history = path / "history.jsonl"
        self.tensorboard = path / "tensorboard"
        self.cache = path / "cache"
        self.data = path / "data.json"
        self.pair_losses = path / "pair_losses.npy"

    def locate_translations(self, update: int, name: str) -> Path:
        """Returns the file with the translations of a dev set after an update, whether it exists or not."""
        return self.path / "validations" / f"update-{update:09d}.{quote(name, safe='')}.txt"

    @property
    def remedy(self) -> str:
        """What to do if the run cannot be resumed: the end of a sentence."""
        return f"choose another run_dir. With training.start_from={self.path}, a new run begins with these weights."

    def check_no_other_model(self) -> None:
        """Checks that no model is in the folder that training from scratch would replace.

        Raises:
            UserError: there is one.
        """
        if is_ensemble(self.path):
            raise UserError(f"run_dir: {self.path} is an ensemble, not the folder of a run: choose another run_dir.")
        if (self.path / WEIGHTS).is_file():
            raise UserError(f"run_dir: {self.path} is a model folder, not the folder of a run: {self.remedy}")
        best = get_current_version(self.best)
        if not (best / WEIGHTS).is_file() or self.has_checkpoints():
            return
        if self.config.is_file():
            # A run that was killed between its first validation and its first checkpoint starts again.
            _, facts = load_arrays(best / WEIGHTS)
            if facts.get("update", 0) < load_stored_config(self.config).training.checkpoint_every:
                return
        raise UserError(
            f"run_dir: {self.path} has the model {best}, but no run with checkpoints that could be resumed. Training "
            f"would replace the model: {self.remedy}"
        )

    def accept(self, config: Config) -> None:
        """Writes the configuration of a run that starts or is resumed.

        Changed settings of decoding and export also apply to the best model that the run has already.

        Raises:
            UserError: the run was started with a configuration that differs in a key that affects training.
        """
        if self.config.is_file():
            before = load_stored_config(self.config)
            changed = [line for line in find_differences(before, config) if not _may_change(line.split(":")[0], before)]
            if not self.can_keep_tokenizers():
                for name in TOKENIZER_FILES:
                    discard(self.path / name)
            elif changed:
                raise UserError(
                    f"The run in {self.path} was started with another configuration:\n  "
                    + "\n  ".join(changed)
                    + f"\nRestore the old values, or {self.remedy}"
                )
            if _get_changeable(before) != _get_changeable(config):
                self._change_best(config)
        with atomic_write(self.config) as aside:
            aside.write_text(dump_config(config), encoding="utf-8")

    def _change_best(self, config: Config) -> None:
        path = get_current_version(self.best) / "config.yaml"
        if path.is_file():
            best = load_stored_config(path)
            data = best.data.model_copy(update={"promises": config.data.promises})
            best = best.model_copy(update={"data": data, "decoding": config.decoding, "export": config.export})
            with atomic_write(path) as aside:
                aside.write_text(dump_config(best), encoding="utf-8")

    def has_checkpoints(self) -> bool:
        """Whether the run can be resumed."""
        return any(self.checkpoints.glob("update-*.h5"))

    def can_keep_tokenizers(self) -> bool:
        """Whether training uses the tokenizers in the folder, if there are any.

        Nothing was trained with those of a run without checkpoints, and its settings and its text may have changed.
        """
        return self.has_checkpoints() or not self.config.is_file()

    def check_shared(self) -> None:
        """Checks that this machine sees what the chief has just written.

        Raises:
            UserError: it does not.
        """
        if not self.config.is_file():
            raise UserError(
                f"run_dir: expected a folder on a file system that all workers share, but {self.path} does not have "
                "the files that worker 0 wrote there."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this folder. The lock ends with the process, however that ends.

        A training that is refused before its first update leaves nothing in an empty folder. It would train its
        tokenizers again. One that is interrupted leaves what it has indexed.
        """
        provisional = (self.config.name, *TOKENIZER_FILES, self.data.name, self.tensorboard.name)
        with folder_lock(
            self.path, doing="training", key="run_dir", provisional=provisional, reusable=[self.cache.name]
        ):
            discard_stale_below(self.path)
            recover(self.best)
            yield


def _may_change(key: str, config: Config) -> bool:
    """Returns whether a resumed run with a configuration may change a key."""
    is_fixed = config.training.schedule == "plateau" and PLATEAU_MAY_NOT_CHANGE.match(key)
    return bool(MAY_CHANGE.match(key)) and not is_fixed


def _get_changeable(config: Config) -> tuple[Any, ...]:
    """Returns the settings of a model that a resumed run may change."""
    return config.decoding, config.export, config.data.promises


class Writer:
    """Writes files of a run. A file that cannot be written, as on a full disk, is a warning or ends the run.

    Args:
        on_full_disk: the setting `training.on_full_disk`.
        log: receives the warnings.
    """

    def __init__(self, on_full_disk: Literal["continue", "stop"], log: Log):
        self.on_full_disk, self.log = on_full_disk, log

    def try_write(self, write: Callable[[], object], name: str, *, update: int) -> bool:
        """Calls a function that writes a file atomically, and returns whether it could.

        Args:
            write: the function.
            name: what it writes, for messages.
            update: the last update, for messages.

        Raises:
            UserError: it could not, and `on_full_disk` is stop.
        """
        try:
            write()
            return True
        except (OSError, UserError) as error:
            failed = f"update {update:,}: {name} could not be written"
            if self.on_full_disk == "stop":
                raise UserError(f"{failed}, and training.on_full_disk is stop. {error}") from error
            self.log(f"{failed}; training continues without it. {error}")
            return False
