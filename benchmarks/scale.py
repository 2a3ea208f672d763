"""Measures what a larger corpus costs in speed and start-up time, on a text repeated with noise."""

import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.corpus import SOURCE, TARGET, Text, add_noise, write_lines
from benchmarks.ours import NMT
from benchmarks.ratios import compute_speed
from benchmarks.settings import Settings
from nmt.data.corpus import read_lines


def measure(settings: Settings, text: Text) -> list[dict]:
    """Trains on each size, once without a cache, then repeatedly with the cache of the first training."""
    texts = [enlarge_text(text, pairs, settings.work / "scale" / str(pairs)) for pairs in settings.scale_pairs]
    found: list[dict] = [
        {"pairs": large.num_train, "first": _run(settings, large, first=True), "again": []} for large in texts
    ]
    for number in range(settings.rounds):
        for large, entry in zip(texts, found, strict=True):
            entry["again"].append(_run(settings, large, first=False))
            print(f"scale, round {number + 1}: {large.num_train:,} pairs: {entry['again'][-1]}", flush=True)
    return found


def _run(settings: Settings, text: Text, *, first: bool) -> dict:
    cache = text.folder / "cache"
    if first:
        shutil.rmtree(cache, ignore_errors=True)
    model = text.folder / "model"
    run = NMT.train(text, model, updates=settings.window[1], seed=1, threads=settings.threads, cache=cache)
    updates = run.report["updates"]
    return {
        "pieces_per_second": round(compute_speed(updates, settings.window), 1),
        "startup_seconds": round(updates[0][0] - run.started, 2),
        "peak_mb": round(run.peak_mb),
    }


def enlarge_text(text: Text, pairs: int, folder: Path) -> Text:
    """Repeats a text with noise until it has `pairs` pairs. Tokenizer and dev text stay the same."""
    large = replace(text, folder=folder, num_train=pairs)
    if not folder.is_dir():
        aside = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for path in (text.tokenizer, text.vocabulary, text.get_file("dev", SOURCE), text.get_file("dev", TARGET)):
            shutil.copyfile(path, aside / path.name)
        for seed, language in enumerate((SOURCE, TARGET)):
            lines = read_lines(text.get_file("train", language))
            write_lines(aside / f"train.{language}", add_noise(lines, pairs, seed=seed))
        aside.rename(folder)
    return large
