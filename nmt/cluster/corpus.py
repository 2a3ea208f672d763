"""Translates a corpus of many files (shards) with workers of Ray Data.

A translation is written under a temporary name and renamed, so that each line is translated exactly once, whatever
dies. Ray gives the shard of a dead worker to another one, and a later run translates only the missing shards.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nmt.cluster.session import WorkerResources, open_session, set_up_worker
from nmt.cluster.shards import (
    Shard,
    check_record,
    find_parts,
    find_shards,
    find_subfolders,
    remove_parts,
    translate_shard,
)
from nmt.errors import InterruptionError, UserError
from nmt.files import folder_lock
from nmt.signals import SignalFlag, record_signals

MAX_DEATHS = 3  # workers that may die on one shard: a shard that kills every worker must not be retried for ever


class ShardTranslator:
    """Opens a model once per worker, and translates one shard after the other.

    Args:
        model: path of the model.
        settings: decoding settings that replace the model's.
        folder: the user's working directory.
        threads: number of compute threads.
        gpu: whether the worker has a GPU.
    """

    def __init__(self, model: str, settings: dict[str, Any], *, folder: str, threads: int, gpu: bool):
        set_up_worker(folder, threads, gpu=gpu)
        self.model, self.settings = Path(model), settings
        self.translator: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Translates a shard and returns its number of lines, or the reason why it could not be translated."""
        began = time.monotonic()
        shard = Shard(Path(row["source"]), Path(row["target"]))
        lines, mistake = 0, ""
        try:
            _check_deaths(shard)
            # Opened here, since Ray takes an exception in the constructor for a worker that cannot start.
            lines = translate_shard(self._open(), shard)
        except UserError as error:
            mistake = str(error)
        except Exception as error:  # a full disk or a defect, which must be reported but must not stop other shards
            mistake = f"{shard.source}: {type(error).__name__}: {error}"
        return {"name": shard.source.name, "lines": lines, "mistake": mistake, "seconds": time.monotonic() - began}

    def _open(self) -> Any:
        if self.translator is None:
            from nmt.translators.opening import open_translator

            self.translator = open_translator(self.model, **self.settings)
        return self.translator


def translate_corpus(
    model: Path,
    source: str,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Translates every file of a corpus to a file of the same name, except those that are translated already.

    Args:
        model: a run folder, a model folder or an export.
        source: a folder of plain, .gz or .xz files, one file, or a pattern.
        folder: folder for the translations. All workers must see it, the model and the text.
        settings: decoding settings that replace the model's, such as {"beam_size": 1}.
        workers: number of worker processes; None means one per GPU or, without GPUs, one per four cores.
        address: address of a Ray cluster; None starts Ray on this machine.
        log: prints a line.

    Raises:
        UserError: model, text or folder cannot be used, or some shards could not be translated (all others are).
        InterruptionError: a signal arrived; finished translations stay.
    """
    shards = find_shards(source, folder)
    if skipped := [subfolder for subfolder in find_subfolders(source) if subfolder.resolve() != folder.resolve()]:
        log(
            f"Skipped, since only files are translated: {', '.join(f'{subfolder}/' for subfolder in skipped)}. "
            "Each folder needs a command of its own."
        )
    with folder_lock(folder, doing="translating"):
        check_record(folder, shards, model, settings or {})
        remove_parts(shards)
        missing = [shard for shard in shards if not shard.is_done]
        before = f", {len(shards) - len(missing):,} of them already translated" if len(missing) < len(shards) else ""
        log(f"{len(shards):,} shards{before}.")
        if missing:
            with record_signals() as flag:
                try:
                    _translate(model, missing, settings or {}, workers=workers, address=address, log=log)
                except (KeyboardInterrupt, SystemExit):
                    raise _make_interruption(shards, flag) from None
                finally:
                    remove_parts(shards)


def _translate(
    model: Path,
    shards: list[Shard],
    settings: Mapping[str, Any],
    *,
    workers: int | None,
    address: str | None,
    log: Callable[[str], None],
) -> None:
    began, lines, mistakes = time.monotonic(), 0, []
    with open_session(address, workers=workers, log=log) as session:
        resources = session.allocate(len(shards))
        session.log(f"Translating {len(shards):,} {'shard' if len(shards) == 1 else 'shards'} on {resources}.")
        for number, row in enumerate(_translate_shards(shards, model, settings, resources), start=1):
            lines += row["lines"]
            if row["mistake"]:
                mistakes.append(row["mistake"])
            result = "failed" if row["mistake"] else f"{row['lines']:,} lines · {row['seconds']:.1f} s"
            session.log(f"shard {number:,} of {len(shards):,} · {row['name']} · {result}")
    if mistakes:
        raise UserError(_list_failures(mistakes, len(shards)))
    log(f"{len(shards):,} shards, {lines:,} lines, {time.monotonic() - began:.1f} s.")


def _translate_shards(
    shards: list[Shard], model: Path, settings: Mapping[str, Any], resources: WorkerResources
) -> Iterator[dict[str, Any]]:
    """Yields the result of each shard when it is done, from an actor pool of Ray Data."""
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    rows = [{"source": str(shard.source), "target": str(shard.target)} for shard in shards]
    translated = data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardTranslator,
        fn_constructor_args=(str(model), dict(settings)),
        fn_constructor_kwargs={"folder": str(Path.cwd()), "threads": resources.threads, "gpu": resources.gpus > 0},
        # A shard goes to the first worker that is free, and never waits behind another shard.
        compute=data.ActorPoolStrategy(size=resources.workers, max_tasks_in_flight_per_actor=1),
        # Not both, which Ray Data calls experimental.
        **({"num_gpus": resources.gpus} if resources.gpus else {"num_cpus": resources.threads}),
    )
    # Prefetching would hold each result back until the next one is there.
    for block in translated.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        yield from (dict(zip(block, row, strict=True)) for row in zip(*block.values(), strict=True))


def _check_deaths(shard: Shard) -> None:
    """Raises UserError if `MAX_DEATHS` workers died on a shard, each of which left a partial file."""
    deaths = len(find_parts(shard))
    if deaths >= MAX_DEATHS:
        raise UserError(
            f"{shard.source}: {deaths} workers in a row died while translating it, perhaps because memory ran out. "
            "With fewer --workers, each has more memory."
        )


def _list_failures(mistakes: list[str], shards: int) -> str:
    listed = "\n  ".join(dict.fromkeys(mistakes))
    return f"{len(mistakes):,} of {shards:,} shards could not be translated. The others are.\n  {listed}"


def _make_interruption(shards: list[Shard], flag: SignalFlag) -> InterruptionError:
    done = sum(shard.is_done for shard in shards)
    return InterruptionError(
        f"Interrupted. {done:,} of {len(shards):,} shards are translated; run the same command for the others.",
        flag.signal_number,
    )
