"""Translates a corpus of many files, each of which is a shard."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmt.cluster.pool import translate_missing
from nmt.cluster.shards import check_record, find_shards, find_subfolders
from nmt.files import folder_lock


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
        workers: number of worker processes; 1 means this process, None what suits the machine (see
            `translate_missing`).
        address: address of a Ray cluster; None means this machine.
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
        check_record(folder, [shard.target for shard in shards], model, settings or {})
        translate_missing(model, shards, settings=settings or {}, workers=workers, address=address, log=log)
