"""Translates a corpus of many files, each of which is a shard."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmt.cluster.pool import translate_missing
from nmt.cluster.shards import RECORD, check_record, compute_model_digest, find_shards, find_subfolders
from nmt.data.glossary import Glossary
from nmt.files import folder_lock
from nmt.translators.opening import check_weight


def translate_corpus(
    model: Path,
    source: str,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    rerank: Path | None = None,
    rerank_weight: float | None = None,
    glossary: Glossary | None = None,
    marks: bool = False,
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
        rerank, rerank_weight, glossary, marks: see `nmt.open_translator`.
        workers: number of worker processes; 1 means this process, None what suits the machine (see
            `translate_missing`).
        address: address of a Ray cluster; None means this machine.
        log: prints a line.

    Raises:
        UserError: model, text or folder cannot be used, or some shards could not be translated (all others are).
        InterruptionError: a signal arrived; finished translations stay.
    """
    check_weight(rerank, rerank_weight)
    given = {"rerank": rerank, "rerank_weight": rerank_weight, "glossary": glossary, "marks": marks or None}
    options = {**(settings or {}), **{name: value for name, value in given.items() if value is not None}}
    digests = {
        "rerank": compute_model_digest(rerank) if rerank else None,
        "glossary": glossary.fingerprint if glossary else None,
    }
    shards = find_shards(source, folder)
    if skipped := [subfolder for subfolder in find_subfolders(source) if subfolder.resolve() != folder.resolve()]:
        log(
            f"Skipped, since only files are translated: {', '.join(f'{subfolder}/' for subfolder in skipped)}. "
            "Each folder needs a command of its own."
        )
    with folder_lock(folder, doing="translating", provisional=[RECORD]):
        check_record(folder, [shard.target for shard in shards], model, {**options, **digests})
        translate_missing(model, shards, settings=options, workers=workers, address=address, log=log)
