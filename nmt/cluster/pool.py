"""Translates shards, in this process or with workers of Ray Data.

The file of a shard is written under a temporary name and renamed, so no line is lost or duplicated if a process dies.
Ray gives the shard of a dead worker to another worker, and a later run translates only the missing shards.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from nmt.cluster.session import WorkerResources, open_session, set_up_worker
from nmt.cluster.shards import Shard, find_parts, remove_parts
from nmt.errors import InterruptionError, UserError
from nmt.progress import format_count
from nmt.signals import SignalFlag, record_signals

MAX_DEATHS = 3  # workers that may die on one shard: a shard that kills every worker must not be retried for ever

Log = Callable[[str], None]


class ShardTranslator:
    """Opens a model once and translates one shard after another.

    Args:
        model: path of the model.
        settings: decoding settings that replace the model's, and other arguments of `open_translator`.
        shards: all shards; a row names one by its number.
    """

    def __init__(self, model: str, settings: Mapping[str, Any], shards: Sequence[Shard]):
        self.model, self.settings, self.shards = Path(model), settings, shards
        self.translator: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Translates a shard and returns its number of lines, or the reason why it could not be translated."""
        began = time.monotonic()
        shard = self.shards[row["number"]]
        lines, mistake = 0, ""
        try:
            _check_deaths(shard)
            # Opened here, since Ray takes an exception in the constructor for a worker that cannot start.
            lines = shard.translate(self.open())
        except UserError as error:
            mistake = str(error)
        except Exception as error:  # a full disk or a defect, which must be reported but must not stop other shards
            mistake = f"{shard.source}: {type(error).__name__}: {error}"
        return {"name": shard.name, "lines": lines, "mistake": mistake, "seconds": time.monotonic() - began}

    def open(self) -> Any:
        """Returns the translator, which is opened on the first call."""
        if self.translator is None:
            from nmt.translators.opening import open_translator

            self.translator = open_translator(self.model, **self.settings)
        return self.translator


class WorkerTranslator(ShardTranslator):
    """Translates shards in a worker of Ray.

    Args:
        *arguments: see `ShardTranslator`.
        folder: the user's working directory.
        threads: number of compute threads.
        gpu: whether the worker has a GPU.
    """

    def __init__(self, *arguments: Any, folder: str, threads: int, gpu: bool):
        set_up_worker(folder, threads, gpu=gpu)
        super().__init__(*arguments)


def translate_missing(
    model: Path,
    shards: Sequence[Shard],
    *,
    settings: Mapping[str, Any],
    workers: int | None,
    address: str | None,
    log: Log,
) -> None:
    """Translates the shards whose files do not exist yet. The caller holds the lock of their folder.

    Args:
        model: a run folder, a model folder, an ensemble or an export.
        shards: all shards, done or not; at least one, and all of one class, which may do other work with the model.
        settings: decoding settings that replace the model's, and other arguments of `open_translator`.
        workers: number of worker processes; 1 means this process. None means one per GPU or, without GPUs, one per four
            cores, and this process if Ray is not installed.
        address: address of a Ray cluster; None means this machine.
        log: prints a line.

    Raises:
        UserError: the model cannot be opened, or some shards could not be translated (all others are).
        InterruptionError: a signal arrived; finished shards stay.
    """
    remove_parts(shards)
    missing = [shard for shard in shards if not shard.is_done]
    before = f", {len(shards) - len(missing):,} of them already {shards[0].done}" if len(missing) < len(shards) else ""
    log(f"{format_count(len(shards), 'shard')}{before}.")
    if not missing:
        return
    began = time.monotonic()
    results = (
        _translate_on_ray(model, missing, settings, workers, address, log)
        if _needs_ray(workers, address)
        else _translate_here(model, missing, settings, log)
    )
    with record_signals() as flag:
        try:
            with closing(results):  # which ends Ray before anything is printed about an exception
                lines = _report(results, missing)
        except (KeyboardInterrupt, SystemExit):
            raise _make_interruption(shards, flag) from None
        finally:
            remove_parts(shards)
    log(f"{format_count(len(missing), 'shard')}, {format_count(lines, 'line')}, {time.monotonic() - began:.1f} s.")


def _needs_ray(workers: int | None, address: str | None) -> bool:
    if workers is None and address is None:
        return importlib.util.find_spec("ray") is not None
    return address is not None or workers != 1


# A result comes with the function that prints while it is there: Ray discards all other output.
Results = Generator[tuple[dict[str, Any], Log], None, None]


def _translate_here(model: Path, shards: Sequence[Shard], settings: Mapping[str, Any], log: Log) -> Results:
    translate = ShardTranslator(str(model), settings, shards)
    log(f"{shards[0].doing.capitalize()} {format_count(len(shards), 'shard')} in this process.")
    translate.open()  # a model that cannot be opened is one mistake, not one per shard
    for number in range(len(shards)):
        yield translate({"number": number}), log


def _translate_on_ray(
    model: Path,
    shards: Sequence[Shard],
    settings: Mapping[str, Any],
    workers: int | None,
    address: str | None,
    log: Log,
) -> Results:
    with open_session(address, workers=workers, log=log) as session:
        resources = session.allocate(len(shards))
        session.log(f"{shards[0].doing.capitalize()} {format_count(len(shards), 'shard')} on {resources}.")
        for result in _stream_from_ray(model, shards, settings, resources):
            yield result, session.log


def _stream_from_ray(
    model: Path, shards: Sequence[Shard], settings: Mapping[str, Any], resources: WorkerResources
) -> Iterator[dict[str, Any]]:
    """Yields the result of each shard when it is done, from an actor pool of Ray Data."""
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    rows = [{"number": number} for number in range(len(shards))]
    translated = data.from_items(rows, override_num_blocks=len(rows)).map(
        WorkerTranslator,
        fn_constructor_args=(str(model), dict(settings), list(shards)),
        fn_constructor_kwargs={"folder": str(Path.cwd()), "threads": resources.threads, "gpu": resources.gpus > 0},
        # A shard goes to the first worker that is free, and never waits behind another shard.
        compute=data.ActorPoolStrategy(size=resources.workers, max_tasks_in_flight_per_actor=1),
        # Not both, which Ray Data calls experimental.
        **({"num_gpus": resources.gpus} if resources.gpus else {"num_cpus": resources.threads}),
    )
    # Prefetching would hold each result back until the next one is there.
    for block in translated.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        yield from (dict(zip(block, row, strict=True)) for row in zip(*block.values(), strict=True))


def _report(results: Results, shards: Sequence[Shard]) -> int:
    """Prints a line per result and returns the number of lines translated.

    Raises:
        UserError: some shards could not be translated.
    """
    lines, mistakes = 0, []
    for number, (row, say) in enumerate(results, start=1):
        lines += row["lines"]
        if row["mistake"]:
            mistakes.append(row["mistake"])
        result = "failed" if row["mistake"] else f"{format_count(row['lines'], 'line')} · {row['seconds']:.1f} s"
        say(f"shard {number:,} of {len(shards):,} · {row['name']} · {result}")
    if mistakes:
        raise UserError(_list_failures(mistakes, len(shards), shards[0].done))
    return lines


def _check_deaths(shard: Shard) -> None:
    """Raises UserError if `MAX_DEATHS` workers died on a shard, each of which left a partial file."""
    deaths = len(find_parts(shard))
    if deaths >= MAX_DEATHS:
        raise UserError(
            f"{shard.source}: {deaths} workers in a row died while {shard.doing} it, perhaps because memory ran out. "
            "With fewer --workers, each has more memory."
        )


def _list_failures(mistakes: list[str], shards: int, done: str) -> str:
    different = dict.fromkeys(mistakes)
    if len(mistakes) == shards and len(different) == 1:
        return mistakes[0]
    listed = "\n  ".join(different)
    return f"{len(mistakes):,} of {shards:,} shards could not be {done}. The others are.\n  {listed}"


def _make_interruption(shards: Sequence[Shard], flag: SignalFlag) -> InterruptionError:
    done = sum(shard.is_done for shard in shards)
    return InterruptionError(
        f"Interrupted. {done:,} of {len(shards):,} shards are {shards[0].done}; run the same command for the others.",
        flag.signal_number,
    )
