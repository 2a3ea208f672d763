"""Arguments and options that several commands share, and how they become settings."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nmt.errors import UserError
from nmt.streams import write_standard_output

ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a recipe that comes with nmt, such as demo.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys to override, such as training.batch_size=32."),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, model folder, ensemble or export.")]
Decoding = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Decoding settings to override, such as decoding.min_length=2."),
]
BeamSize = Annotated[int | None, typer.Option(help="Beam size; 1 is greedy search. Short for decoding.beam_size=N.")]
LengthPenalty = Annotated[
    float | None, typer.Option(help="Exponent of the length penalty. Short for decoding.length_penalty=X.")
]
PruningThreshold = Annotated[
    float | None,
    typer.Option(
        help="Log-probability below the best at which hypotheses are pruned; 0 prunes none. Short for "
        "decoding.pruning_threshold=X."
    ),
]
Rerank = Annotated[
    Path | None,
    typer.Option(metavar="MODEL", help="Second model, whose scores rerank the hypotheses of the beam; not an export."),
]
RerankWeight = Annotated[float | None, typer.Option(min=0, max=1, help="Weight of the second model; default: 0.5.")]
Device = Annotated[str | None, typer.Option(help="cpu, gpu, or one GPU by number, such as gpu:1.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of compute threads; default: all cores.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of worker processes; default: one per GPU, or one per 4 cores.")
]
TranslatingWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of processes; more than 1 requires Ray. Default: one per GPU or per 4 cores with Ray, else 1.",
    ),
]
Address = Annotated[str | None, typer.Option(help="Address of a Ray cluster; default: start Ray on this machine.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings(
    overrides: Sequence[str] | None, *sections: str, **shorthands: float | None
) -> dict[str, dict[str, Any]]:
    """Reads KEY=VALUE arguments, and options that are short for one of the keys of `decoding`.

    Args:
        overrides: such as "decoding.beam_size=8".
        sections: the sections that the command accepts keys of.
        **shorthands: values of the options by the name of their key; None where the option was not given.

    Returns:
        The values by section and key. Each value has the right type and range by itself.

    Raises:
        UserError: every mistake found, one per line.
    """
    from nmt.config.file import read_overrides

    given = {f"decoding.{name}": value for name, value in shorthands.items() if value is not None}
    for override in overrides or []:
        key = override.partition("=")[0]
        if key in given:
            option = key.removeprefix("decoding.").replace("_", "-")
            raise UserError(f"command line: {override}: --{option} sets the same key; give one of the two.")
    return read_overrides([*(overrides or []), *(f"{key}={value}" for key, value in given.items())], *sections)


def read_decoding(
    overrides: Sequence[str] | None,
    beam_size: int | None,
    length_penalty: float | None,
    pruning_threshold: float | None,
) -> dict[str, Any]:
    """Returns the settings of `decoding` that a command was given, by key; see `read_settings`."""
    shorthands = {"beam_size": beam_size, "length_penalty": length_penalty, "pruning_threshold": pruning_threshold}
    return read_settings(overrides, "decoding", **shorthands)["decoding"]


def set_up_process(device: str | None = None, threads: int | None = None) -> None:
    """Chooses the device and the number of threads, which must happen before TensorFlow is imported."""
    from nmt.process import choose_device, choose_threads

    choose_device(device)
    choose_threads(threads)


def choose_workers(workers: int | None, address: str | None, device: str | None, threads: int | None) -> int | None:
    """Returns the number of workers: 1, which means this process, if a device or a number of threads is chosen for it.

    Raises:
        UserError: these options are given together with several workers or a cluster, which have their own.
    """
    if device is None and threads is None:
        return workers
    if workers not in (None, 1) or address is not None:
        raise UserError(
            "--device and --threads are for work in this process; leave them out, or leave out --workers and --address."
        )
    set_up_process(device, threads)
    return 1


def print_line(line: str) -> None:
    """Prints a line at once, also where standard output is a file or a pipe.

    Raises:
        UserError: standard output is closed or cannot be written to.
    """
    with write_standard_output() as out:
        print(line, file=out)


def log_line(line: str) -> None:
    """Prints a line of a log. The work that it is about continues if the line cannot be written, as on a full disk."""
    try:
        print_line(line)
    except (UserError, OSError):
        if sys.stdout is not None:  # Python would try again at the next line, and at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            print_error("Standard output can no longer be written to. The command continues without it.")


def print_error(message: str) -> None:
    """Prints a line to standard error, if that can be written to. There it spoils no output for programs."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr, flush=True)


def print_warning(message: str) -> None:
    """Prints a warning to standard error."""
    print_error(f"Warning: {message}")


def require_packages(command: str, extra: str, *modules: str) -> None:
    """Raises UserError if a module that a command needs is not installed, before anything slow is imported.

    Args:
        command: such as "nmt serve".
        extra: name of the extra that installs the modules.
        *modules: names to import.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f'{command} needs {", ".join(missing)}. Install with: pip install "nmt[{extra}]"')
