"""Runs `python -m benchmarks PART`, which measures one part or all of them and renders the page of docs/."""

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
from benchmarks.peers import TRAINING, TRANSLATION, choose_systems
from benchmarks.profile import profile
from benchmarks.settings import RESULTS, Settings, make_settings
from benchmarks.system import System
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.process import count_cpus

PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
BUSY = 0.1  # cores
SOAK_MINUTES, QUICK_SOAK_MINUTES = 10, 0.1

app = typer.Typer(
    help="Compare speed, memory and quality of nmt with other toolkits on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quick = Annotated[
    bool, typer.Option("--quick", help="Run a short test of about two minutes, whose figures are not published.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each system. Default: all cores.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Alternating runs of each system. Default: 3.")]
Updates = Annotated[
    int | None, typer.Option(min=1, help="Training updates of the models that translate. Default: 600.")
]
Chosen = Annotated[
    list[str] | None, typer.Option("--system", help="Compare nmt with this system only, such as joeynmt.")
]


@app.command("training")
def measure_training(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Measure speed, peak memory and start-up time of training."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = choose_systems(TRAINING, system)
    _measure("training", settings, lambda text: training.measure(settings, text, systems), systems)


@app.command("translation")
def measure_translation(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Measure speed and BLEU of beam and greedy search, with the models of the training part."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = choose_systems(TRANSLATION, system)
    _measure("translation", settings, lambda text: translation.measure(settings, text, systems), systems)


@app.command("latency")
def measure_latency(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Measure how long a file, a line and a single sentence take, in a model and in its exports."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds, updates=updates)
    systems = [one for one in choose_systems(TRANSLATION, system) if one.key != "nmt-one-layer"]
    _measure("latency", settings, lambda text: latency.measure(settings, text, systems), systems)


@app.command("memory")
def measure_memory(quick: Quick = False, threads: Threads = None, updates: Updates = None) -> None:
    """Measure resident memory while 100,000 lines are translated."""
    settings = make_settings(quick=quick, threads=threads, updates=updates)
    _measure("memory", settings, lambda text: memory.measure(settings, text))


@app.command("scale")
def measure_scale(quick: Quick = False, threads: Threads = None, rounds: Rounds = None) -> None:
    """Measure speed and start-up time with 30 thousand and 3 million training pairs."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds)
    _measure("scale", settings, lambda text: scale.measure(settings, text))


@app.command("ceiling")
def measure_ceiling(quick: Quick = False, threads: Threads = None, rounds: Rounds = None) -> None:
    """Measure the peak speed of a matrix product, and count the arithmetic of each model."""
    settings = make_settings(quick=quick, threads=threads, rounds=rounds)
    _measure("ceiling", settings, lambda text: ceiling.measure(settings, text))


@app.command("serving")
def measure_serving(
    quick: Quick = False,
    threads: Threads = None,
    updates: Updates = None,
    model: Annotated[
        Path | None, typer.Option(help="A trained model, such as runs/demo. Default: that of the training part.")
    ] = None,
    soak_minutes: Annotated[
        float | None,
        typer.Option("--soak", min=0.1, help="Overload a server for so many minutes instead, then kill and stop it."),
    ] = None,
) -> None:
    """Measure requests per second and latency of `nmt serve` under load."""
    settings = make_settings(quick=quick, threads=threads, updates=updates)
    text = None if model else make_text(settings.work / "text")
    if soak_minutes is None:
        _record("serving", settings, text, lambda: serving.measure(settings, text, model))
    else:
        _record("soak", settings, text, lambda: soak.measure(settings, text, model, soak_minutes))


@app.command("profile")
def measure_profile(
    config: Annotated[Path, typer.Argument(help="A training configuration.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides, KEY=VALUE.", show_default=False)] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates to time, after the first 20.")] = 120,
    operations: Annotated[int, typer.Option(min=0, help="Number of operations to list.")] = 25,
) -> None:
    """Measure how fast a configuration trains, and which operations take the time of an update."""
    other = OtherWork()
    found = profile(config, overrides or [], updates=updates, profiled=max(1, updates // 4))
    typer.echo(f"{found.tokens_per_second:,.0f} target tokens/s, {found.milliseconds:.1f} ms per update")
    typer.echo("ms per update, over all threads and under the profiler · executions · operation")
    for one in found.operations[:operations]:
        typer.echo(f"{one.milliseconds:9.2f} {one.executions:9.1f}  {one.name}")
    typer.echo(f"Other programs used {other.measure_cores():.1f} cores meanwhile.")


@app.command("replicas")
def measure_replicas(
    config: Annotated[Path, typer.Argument(help="A training configuration.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides, KEY=VALUE.", show_default=False)] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates to time, after the first 20.")] = 100,
    rounds: Rounds = None,
) -> None:
    """Measure the cost of dividing the batches of one device among two devices or two processes."""
    other = OtherWork()
    found = replicas.measure(config, overrides or [], updates=updates, rounds=rounds or 3)
    typer.echo("\n".join(table.render_replicas(found)))
    typer.echo(f"Other programs used {other.measure_cores():.1f} cores meanwhile.")


@app.command("doctor")
def measure_doctor(
    pairs: Annotated[int, typer.Option(min=1, help="Number of training pairs.")] = 1_000_000,
    rounds: Rounds = None,
) -> None:
    """Measure how long `nmt doctor` takes on a large corpus."""
    other = OtherWork()
    settings = make_settings(quick=False)
    seconds = doctor.measure(make_text(settings.work / "text"), pairs, settings.work / "scale", rounds=rounds or 3)
    typer.echo(f"nmt doctor, {pairs:,} pairs: {table.format_spread(seconds, 1)} seconds")
    typer.echo(f"Other programs used {other.measure_cores():.1f} cores meanwhile.")


@app.command("long_range")
def measure_long_range(
    quick: Annotated[
        bool, typer.Option("--quick", help="Run a short test, whose models are too little trained to compare.")
    ] = False,
    into: Annotated[Path, typer.Option(help="Folder for the table, the picture and the figures.")] = RESULTS,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; may be repeated. Default: 1, 2 and 3.")] = None,
) -> None:
    """Measure over how many steps an LSTM, an LSTM without forget gate and a plain recurrent cell remember."""
    from benchmarks.long_range import choose_settings, write_results

    if quick and into == RESULTS:
        into = make_settings(quick=True).results
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    typer.echo(write_results(into, choose_settings(quick=quick, seeds=seed), command))


@app.command("without_attention")
def measure_without_attention(
    config: Annotated[str, typer.Argument(help="A training configuration or recipe.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Folder for both runs, the table and the picture.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides, KEY=VALUE.", show_default=False)] = None,
    source: Annotated[Path | None, typer.Option(help="Sentences to score on. Default: data.dev.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Their translations.")] = None,
) -> None:
    """Measure BLEU by length of sentences, of a model with and without attention."""
    from benchmarks.without_attention import compare_by_length

    if (source is None) != (reference is None):
        raise UserError("Expected both --source and --reference, or neither, found one of them.")
    test = (source, reference) if source and reference else None
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    typer.echo(compare_by_length(config, overrides or [], into, test=test, command=command))


@app.command("equal_time")
def measure_equal_time(
    recipe: Annotated[str, typer.Argument(help="A training configuration or recipe.", show_default=False)],
    model: Annotated[str, typer.Argument(help="lstm or transformer.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Folder for text, checkpoints and results.", show_default=False)],
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes of training.")] = 45,
    seed: Annotated[int, typer.Option(min=1, help="Seed of the training.")] = 1,
    threads: Threads = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use a GPU, and the PyTorch of this environment.")] = False,
) -> None:
    """Measure the BLEU of a model of OpenNMT-py after so many minutes of training."""
    from benchmarks.equal_time import train_and_score

    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    typer.echo(
        train_and_score(
            recipe, model, into, minutes=minutes, seed=seed, threads=threads or count_cpus(), gpu=gpu, command=command
        )
    )


@app.command("ctranslate2")
def measure_ctranslate2(
    checkpoint: Annotated[Path, typer.Argument(help="A Transformer of OpenNMT-py.", show_default=False)],
    tokenizer: Annotated[Path, typer.Argument(help="Its tokenizer.model.", show_default=False)],
    models: Annotated[list[Path], typer.Argument(help="Models or exports of nmt.", show_default=False)],
    source: Annotated[Path, typer.Option(help="Sentences to translate.", show_default=False)],
    reference: Annotated[Path, typer.Option(help="Their translations.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Folder for translations and results.", show_default=False)],
    language: Annotated[str, typer.Option(help="Language of the translations.")] = "de",
    threads: Threads = None,
    rounds: Rounds = None,
) -> None:
    """Measure sentences per second and BLEU of CTranslate2 in int8, beside models of nmt."""
    from benchmarks.ctranslate2 import compare_engines

    found = compare_engines(
        checkpoint,
        Tokenizer.load(tokenizer),
        models,
        into,
        text=(source, reference),
        language=language,
        threads=threads or count_cpus(),
        rounds=rounds or 3,
        command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
    )
    typer.echo(found)


@app.command("all")
def measure_all(
    quick: Quick = False,
    threads: Threads = None,
    rounds: Rounds = None,
    updates: Updates = None,
    system: Chosen = None,
) -> None:
    """Measure all parts."""
    common: dict[str, Any] = {"quick": quick, "threads": threads}
    measure_ceiling(**common, rounds=rounds)
    measure_training(**common, rounds=rounds, updates=updates, system=system)
    measure_translation(**common, rounds=rounds, updates=updates, system=system)
    measure_latency(**common, rounds=rounds, updates=updates, system=system)
    measure_memory(**common, updates=updates)
    measure_scale(**common, rounds=rounds)
    measure_serving(**common, updates=updates)
    measure_serving(**common, updates=updates, soak_minutes=QUICK_SOAK_MINUTES if quick else SOAK_MINUTES)


@app.command("build")
def build() -> None:
    """Build the environments of the peers."""
    for one in TRAINING:
        one.prepare()
        typer.echo(f"{one.title}: {one.get_versions()}")
    serving.LOCUST.build()


@app.command("render")
def render() -> None:
    """Write docs/explanation/benchmarks.md from the stored results."""
    PAGE.write_text(table.render(results.load_all(RESULTS)), encoding="utf-8")


def _measure(part: str, settings: Settings, measure: Callable[[Text], Any], systems: Sequence[System] = ()) -> None:
    text = make_text(settings.work / "text")
    _record(part, settings, text, lambda: measure(text), systems)


def _record(
    part: str, settings: Settings, text: Text | None, measure: Callable[[], Any], systems: Sequence[System] = ()
) -> None:
    other = OtherWork()
    figures = measure()
    cores = other.measure_cores()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    path = results.save(
        part, figures, settings=settings, text=text, systems=systems, command=command, other_cores=cores
    )
    if settings.quick:
        typer.echo(table.render(results.load_all(settings.results)))
    else:
        render()
    typer.echo(f"Wrote {path}.")
    if cores > BUSY:
        typer.echo(f"Other programs used {cores:.1f} cores meanwhile. Do not publish these figures.", err=True)


def main() -> None:
    """Runs the command line. A `UserError` is printed without a traceback."""
    try:
        app(prog_name="python -m benchmarks")
    except UserError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
