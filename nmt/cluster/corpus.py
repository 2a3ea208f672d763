"""A corpus of many shards, translated by workers of Ray Data.

A shard is one unit of work. It is written aside and renamed, so whatever dies, each line comes out exactly once: Ray
gives the shard of a dead worker to another, and a later start does only the shards that are missing.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nmt.cluster.session import Notice, Share, noticed_signals, ray_session, settle
from nmt.cluster.shards import Shard, clear_parts, find_shards, keep_to, parts, translate_shard
from nmt.errors import InterruptionError, UserError
from nmt.files import folder_lock

DEATHS = 3  # of workers at one shard; one that takes every worker with it must not be tried for ever


class ShardTranslator:
    """What a worker does: it opens the model once, and translates one shard after the other.

    Args:
        model: path of the model.
        settings: decoding settings other than the model's own.
        folder: the user's working directory.
        threads: of its arithmetic.
        gpu: whether it has one.
    """

    def __init__(self, model: str, settings: dict[str, Any], *, folder: str, threads: int, gpu: bool):
        settle(folder, threads, gpu=gpu)
        self.model, self.settings = Path(model), settings
        self.translator: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns what became of a shard: its number of lines, or why it could not be translated."""
        began = time.monotonic()
        shard = Shard(Path(row["source"]), Path(row["target"]))
        lines, mistake = 0, ""
        try:
            _check_deaths(shard)
            # Not when it is made: Ray would take a mistake there for a worker that cannot be started.
            lines = translate_shard(self._opened(), shard)
        except UserError as error:
            mistake = str(error)
        except Exception as error:  # a full disk, or a defect: it must be told, and stop no other shard
            mistake = f"{shard.source}: {type(error).__name__}: {error}"
        return {"name": shard.source.name, "lines": lines, "mistake": mistake, "seconds": time.monotonic() - began}

    def _opened(self) -> Any:
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
    announce: Callable[[str], None] = print,
) -> None:
    """Translates every file of a corpus to a file of the same name, but for those that are translated already.

    Args:
        model: a run folder, a model folder or an export.
        source: a folder of files, plain, .gz or .xz; one file; or a pattern.
        folder: where translations go; it must be seen by all workers, as must the model and the text.
        settings: decoding settings other than the model's own, such as {"beam_size": 1}.
        workers: processes that translate; None is one for each GPU, or else one for every four cores.
        address: of a Ray cluster; None starts a Ray on this machine.
        announce: prints a line.

    Raises:
        UserError: the model, the text or the folder do not allow it, or some shards could not be translated; all
            others are.
        InterruptionError: a signal came; what is done stays.
    """
    shards = find_shards(source, folder)
    with folder_lock(folder, doing="at work"):
        keep_to(folder, shards, model, settings or {})
        clear_parts(shards)
        missing = [shard for shard in shards if not shard.done]
        before = f", {len(shards) - len(missing):,} of them translated before" if len(missing) < len(shards) else ""
        announce(f"{len(shards):,} shards{before}.")
        if missing:
            with noticed_signals() as notice:
                try:
                    _translate(model, missing, settings or {}, workers=workers, address=address, announce=announce)
                except (KeyboardInterrupt, SystemExit):
                    raise _stopped(shards, notice) from None
                finally:
                    clear_parts(shards)


def _translate(
    model: Path,
    shards: list[Shard],
    settings: Mapping[str, Any],
    *,
    workers: int | None,
    address: str | None,
    announce: Callable[[str], None],
) -> None:
    began, lines, mistakes = time.monotonic(), 0, []
    with ray_session(address, workers=workers, announce=announce) as session:
        share = session.share(len(shards))
        session.announce(f"Translating {len(shards):,} with {share}.")
        for number, row in enumerate(_rows(shards, model, settings, share), start=1):
            lines += row["lines"]
            if row["mistake"]:
                mistakes.append(row["mistake"])
            told = "refused" if row["mistake"] else f"{row['lines']:,} lines · {row['seconds']:.1f} s"
            session.announce(f"shard {number:,} of {len(shards):,} · {row['name']} · {told}")
    if mistakes:
        raise UserError(_refused(mistakes, len(shards)))
    announce(f"{len(shards):,} shards, {lines:,} lines, {time.monotonic() - began:.1f} s.")


def _rows(shards: list[Shard], model: Path, settings: Mapping[str, Any], share: Share) -> Iterator[dict[str, Any]]:
    """Yields what became of each shard, as they are done, from an actor pool of Ray Data."""
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    rows = [{"source": str(shard.source), "target": str(shard.target)} for shard in shards]
    translated = data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardTranslator,
        fn_constructor_args=(str(model), dict(settings)),
        fn_constructor_kwargs={"folder": str(Path.cwd()), "threads": share.threads, "gpu": share.gpus > 0},
        # A shard waits for the first worker that is free, not for one that still has another to do.
        compute=data.ActorPoolStrategy(size=share.workers, max_tasks_in_flight_per_actor=1),
        # Not both: Ray Data calls that experimental.
        **({"num_gpus": share.gpus} if share.gpus else {"num_cpus": share.threads}),
    )
    # Without prefetching, which would hold each one back until the next is there.
    for block in translated.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        yield from (dict(zip(block, row, strict=True)) for row in zip(*block.values(), strict=True))


def _check_deaths(shard: Shard) -> None:
    """Refuses a shard at which workers died: each of them left what it had begun to write.

    Raises:
        UserError: there were `DEATHS` of them.
    """
    deaths = len(parts(shard))
    if deaths >= DEATHS:
        raise UserError(
            f"{shard.source}: the workers that translated it died, {deaths} in a row, perhaps for want of memory. "
            "Fewer --workers have more each."
        )


def _refused(mistakes: list[str], shards: int) -> str:
    told = "\n  ".join(dict.fromkeys(mistakes))
    return f"{len(mistakes):,} of {shards:,} shards could not be translated; all others are.\n  {told}"


def _stopped(shards: list[Shard], notice: Notice) -> InterruptionError:
    done = sum(shard.done for shard in shards)
    return InterruptionError(
        f"Interrupted; {done:,} of {len(shards):,} shards are translated and stay. The same command does the others.",
        notice.signal_number,
    )
