"""Alternating runs: ours right before every run of a peer, so that each ratio is of two neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from benchmarks.system import System
from nmt.errors import UserError

Measurement = Callable[[System, int], dict]
"""Measures a system once; the number says how many times it was measured before."""


def compare(systems: Sequence[System], measure: Measurement, *, rounds: int, num_pieces: int, what: str) -> dict:
    """Measures the first of the systems, ours, and each of the others so many times, in turns.

    Args:
        systems: ours, then those that it is compared with. One that fails is left out from then on. Variants of ours,
            which come first, follow the same run of it, one after the other.
        measure: as above.
        rounds: runs of each of the others.
        num_pieces: size of the vocabulary.
        what: a word for the lines that are printed.

    Returns:
        By key: title, description and shapes; `runs`; `beside`, the run of ours before each of them; and
        `failed`, where something stood in the way.
    """
    ours, *others = systems
    found = {system.key: _entry(system, num_pieces) for system in systems}

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


def _entry(system: System, num_pieces: int) -> dict:
    return {
        "title": system.title,
        "description": system.description,
        "shapes": asdict(system.shapes(num_pieces)),
        "runs": [],
        "beside": [],
    }
