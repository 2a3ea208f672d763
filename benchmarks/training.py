"""How fast each system trains: alternating runs, each in a process of its own; the first round's models are kept."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import Text
from benchmarks.measure import Run
from benchmarks.ratios import pieces_per_second
from benchmarks.settings import Settings
from benchmarks.system import System, describe, failure_noted


def measure(settings: Settings, text: Text, systems: Sequence[System]) -> dict:
    """Trains every system once a round. What fails is left out of later rounds, and its reason kept."""
    found = {system.key: {**describe(system, text.num_pieces), "versions": {}, "runs": []} for system in systems}
    for number in range(settings.rounds):
        for system in systems:
            entry = found[system.key]
            if "failed" not in entry:
                with failure_noted(entry):
                    entry["versions"] = system.prepare()
                    entry["runs"].append(_run(settings, text, system, number))
                print(
                    f"training, round {number + 1}: {system.title}: {entry.get('failed', entry['runs'][-1:])}",
                    flush=True,
                )
    return {"window": list(settings.window), "systems": found}


def trained(settings: Settings, text: Text, system: System) -> Path:
    """The folder of a system's model after `settings.updates` updates, which is trained unless it is there."""
    model = model_folder(settings, system)
    done = model.with_name(f"{model.name}.done")
    if not done.is_file() or int(done.read_text(encoding="utf-8")) != settings.updates:
        system.prepare()
        _train(settings, text, system, 0)
    return model


def model_folder(settings: Settings, system: System) -> Path:
    """Where the model of the first round is kept."""
    return settings.work / "models" / system.key


def _run(settings: Settings, text: Text, system: System, number: int) -> dict:
    run = _train(settings, text, system, number)
    updates = run.report["updates"]
    return {
        "pieces_per_second": round(pieces_per_second(updates, settings.window), 1),
        "peak_mb": round(run.peak_mb),
        "startup_seconds": round(updates[0][0] - run.started, 2),
        "seconds": round(run.seconds, 1),
        "updates": len(updates),
    }


def _train(settings: Settings, text: Text, system: System, number: int) -> Run:
    model = model_folder(settings, system)
    if number:
        again = model.with_name(f"{system.key}.again")
        return system.train(text, again, updates=settings.window[1], seed=number + 1, threads=settings.threads)
    done = model.with_name(f"{model.name}.done")
    done.unlink(missing_ok=True)
    updates = max(settings.updates, settings.window[1])
    run = system.train(text, model, updates=updates, seed=1, threads=settings.threads)
    done.write_text(str(settings.updates), encoding="utf-8")
    return run
