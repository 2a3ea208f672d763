"""Compares systems in alternating runs: nmt runs right before each peer, and a factor compares two such neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from benchmarks.system import System
from nmt.errors import UserError

Measurement = Callable[[System, int], dict]
"""Measures a system once. The number counts the earlier measurements of the system."""


def compare(systems: Sequence[System], measure: Measurement, *, rounds: int, vocabulary_size: int, what: str) -> dict:
    """Measures every system `rounds` times, in turns.

    Args:
        systems: nmt first, then its variants, then the peers. nmt runs once before all variants and once before each
            peer. A system that fails is skipped from then on.
        vocabulary_size: size of the vocabulary.
        what: prefix of the printed lines.

    Returns:
        A dict for each system key: `title`, `description`, `shapes`, `runs`, `beside` (the run of nmt before each of
        them), and `failed` (the error message of a system that failed).
    """
    ours, *others = systems
    found = {system.key: _make_entry(system, vocabulary_size) for system in systems}

    def run(system: System) -> dict:
        runs = found[system.key]["runs"]
        runs.append(measure(system, len(runs)))
        print(f"{what}: {system.title}, run {len(runs)}: {runs[-1]}", flush=True)
        return runs[-1]

    for _ in range(rounds):
        before = run(ours)
        for number, system in enumerate(others):
            entry = found[system.key]
            if "failed" in entry:
                continue
            if number and system.environment:
                before = run(ours)
            try:
                system.prepare()
                run(system)
                entry["beside"].append(before)
            except UserError as error:
                entry["failed"] = str(error)
                print(f"{what}: {system.title}: {error}", flush=True)
    return found


def _make_entry(system: System, vocabulary_size: int) -> dict:
    return {
        "title": system.title,
        "description": system.description,
        "shapes": asdict(system.shapes(vocabulary_size)),
        "runs": [],
        "beside": [],
    }
