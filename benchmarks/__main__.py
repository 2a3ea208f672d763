"""`python -m benchmarks PART`: measures one part, or all, and renders docs/benchmarks.md."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import (
    ceiling,
    doctor,
    latency,
    memory,
    replicas,
    results,
    scale,
    serving,
    soak,
    table,
    training,
    translation,
)
from benchmarks.corpus import ROOT, Text, make_text
from benchmarks.machine import OtherWork
from benchmarks.peers import TRAINING, TRANSLATION, chosen
from benchmarks.profile import profile
from benchmarks.settings import RESULTS, Settings, make_settings
from benchmarks.system import System
from nmt.errors import UserError

PAGE = ROOT / "docs" / "benchmarks.md"
BUSY = 0.1  # cores
SOAK_MINUTES = 10

app = typer.Typer(
    help="Speed, memory and quality beside other toolkits, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quick = Annotated[bool, typer.Option("--quick", help="Two minutes or so, only to show that it works.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of every system; all cores if not given.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Alternating runs of every system; 3 if not given.")]
Updates = Annotated[int | None, typer.Option(min=1, help="Updates of the models that translate; 600 if not given.")]
Chosen = Annotated[list[str] | None, typer.Option("--system", help="Only this system beside ours, such as joeynmt.")]


@app.command("training")
def measure_training(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Target tokens a second, peak memory and start-up of training."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = chosen(TRAINING, system)
    _measure("training", settings, lambda text: training.measure(settings, text, systems), systems)


@app.command("translation")
def measure_translation(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Sentences a second by beam and greedy search, and BLEU, with the models of the training part."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = chosen(TRANSLATION, system)
    _measure("translation", settings, lambda text: translation.measure(settings, text, systems), systems)


@app.command("latency")
def measure_latency(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """A file and a line by the command line, and one sentence at a time in process and through the SavedModel."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = [one for one in chosen(TRANSLATION, system) if one.key != "nmt-one-layer"]
    _measure("latency", settings, lambda text: latency.measure(settings, text, systems), systems)


@app.command("memory")
def measure_memory(quick: Quick = False, threads: Threads = None, updates: Updates = None) -> None:
    """Resident memory while 100,000 lines are translated."""
    settings = make_settings(quick=quick, threads=threads, updates=updates)
    _measure("memory", settings, lambda text: memory.measure(settings, text))


@app.command("scale")
def measure_scale(quick: Quick = False, threads: Threads = None, rounds: Rounds = None) -> None:
    """Speed and start-up on 30 thousand and 3 million training pairs."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds)
    _measure("scale", settings, lambda text: scale.measure(settings, text))


@app.command("ceiling")
def measure_ceiling(quick: Quick = False, threads: Threads = None, rounds: Rounds = None) -> None:
    """The largest speed of a matrix product here, and the arithmetic that each model must do."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds)
    _measure("ceiling", settings, lambda text: ceiling.measure(settings, text))


@app.command("serving")
def measure_serving(
    quick: Quick = False,
    threads: Threads = None,
    updates: Updates = None,
    model: Annotated[
        Path | None, typer.Option(help="A trained model, such as runs/demo; that of the training part if not given.")
    ] = None,
    soak_minutes: Annotated[
        float | None, typer.Option("--soak", min=0.1, help="Instead, minutes at the limit; then killed, and stopped.")
    ] = None,
) -> None:
    """Requests a second and latencies of `nmt serve` under load."""
    settings = make_settings(quick=quick, threads=threads, updates=updates)
    text = None if model else make_text(settings.work / "text")
    if soak_minutes is None:
        _record("serving", settings, text, lambda: serving.measure(settings, text, model))
    else:
        _record("soak", settings, text, lambda: soak.measure(settings, text, model, soak_minutes))


@app.command("profile")
def measure_profile(
    config: Annotated[Path, typer.Argument(help="A training configuration.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes of it, key=value.", show_default=False)] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates by the clock, after the first 20.")] = 120,
    operations: Annotated[int, typer.Option(min=0, help="Operations to list.")] = 25,
) -> None:
    """How fast a configuration trains, and which operations take the time of an update."""
    other = OtherWork()
    found = profile(config, overrides or [], updates=updates, profiled=max(1, updates // 4))
    typer.echo(f"{found.pieces_per_second:,.0f} target pieces/s, {found.milliseconds:.1f} ms an update")
    typer.echo("ms an update, over all threads and under the profiler · executions · operation")
    for one in found.operations[:operations]:
        typer.echo(f"{one.milliseconds:9.2f} {one.executions:9.1f}  {one.name}")
    typer.echo(f"Other work kept {other.cores():.1f} cores busy meanwhile.")


@app.command("replicas")
def measure_replicas(
    config: Annotated[Path, typer.Argument(help="A training configuration.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes of it, key=value.", show_default=False)] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates by the clock, after the first 20.")] = 100,
    rounds: Rounds = None,
) -> None:
    """What it costs that two devices, or two processes, share the batches of one."""
    other = OtherWork()
    found = replicas.measure(config, overrides or [], updates=updates, rounds=rounds or 3)
    typer.echo("\n".join(table.replicas(found)))
    typer.echo(f"Other work kept {other.cores():.1f} cores busy meanwhile.")


@app.command("doctor")
def measure_doctor(
    pairs: Annotated[int, typer.Option(min=1, help="Of training text.")] = 1_000_000,
    rounds: Rounds = None,
) -> None:
    """How long `nmt doctor` takes on so many pairs."""
    other = OtherWork()
    settings = make_settings(quick=False)
    seconds = doctor.measure(make_text(settings.work / "text"), pairs, settings.work / "scale", rounds=rounds or 3)
    typer.echo(f"nmt doctor, {pairs:,} pairs: {table.spread(seconds, 1)} seconds")
    typer.echo(f"Other work kept {other.cores():.1f} cores busy meanwhile.")


@app.command("all")
def measure_all(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Every part, one after the other."""
    common: dict[str, Any] = {"quick": quick, "threads": threads}
    measure_ceiling(**common, rounds=rounds)
    measure_training(**common, rounds=rounds, updates=updates, system=system)
    measure_translation(**common, rounds=rounds, updates=updates, system=system)
    measure_latency(**common, rounds=rounds, updates=updates, system=system)
    measure_memory(**common, updates=updates)
    measure_scale(**common, rounds=rounds)
    measure_serving(**common, updates=updates)
    measure_serving(**common, updates=updates, soak_minutes=SOAK_MINUTES)


@app.command("build")
def build() -> None:
    """Only build the peers' environments."""
    for one in TRAINING:
        one.prepare()
        typer.echo(f"{one.title}: {one.versions()}")
    serving.LOCUST.build()


@app.command("render")
def render() -> None:
    """Write docs/benchmarks.md anew from the results that are there."""
    PAGE.write_text(table.render(results.load_all(RESULTS)), encoding="utf-8")


def _measure(part: str, settings: Settings, measure: Callable[[Text], Any], systems: Sequence[System] = ()) -> None:
    text = make_text(settings.work / "text")
    _record(part, settings, text, lambda: measure(text), systems)


def _record(
    part: str, settings: Settings, text: Text | None, measure: Callable[[], Any], systems: Sequence[System] = ()
) -> None:
    other = OtherWork()
    figures = measure()
    cores = other.cores()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    path = results.save(
        part, figures, settings=settings, text=text, systems=systems, command=command, other_cores=cores
    )
    if settings.quick:
        typer.echo(table.render(results.load_all(settings.results)))
    else:
        render()
    typer.echo(f"The figures are in {path}.")
    if cores > BUSY:
        typer.echo(f"Other work kept {cores:.1f} cores busy meanwhile: such figures are not for the page.", err=True)


def main() -> None:
    """Runs the command line; a mistake is answered without a traceback."""
    try:
        app(prog_name="python -m benchmarks")
    except UserError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
