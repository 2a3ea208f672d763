"""`nmt train`, `nmt tune`, `nmt doctor`: from a configuration to a trained model."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import (
    Address,
    ConfigFile,
    Device,
    Json,
    Overrides,
    Threads,
    Workers,
    log_line,
    print_line,
    set_up_process,
)
from nmt.errors import UserError


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a model, or resume an interrupted run."""
    started = time.monotonic()  # limits of time count the imports below, which take seconds
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    set_up_process(device, threads)
    from nmt.process import check_device
    from nmt.training.train import train as train_model

    check_device()
    best = train_model(settings, log=log_line, started=started)
    log_line(f"The best model is in {best}. Try: nmt translate {best.parent}")


def tune(
    config: ConfigFile,
    space: Annotated[Path, typer.Option(help="YAML file: keys, each with a list of values or {low, high, log}.")],
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    grace: Annotated[int, typer.Option(min=1, help="Validations before a trial may be stopped early.")] = 2,
    into: Annotated[Path | None, typer.Option(help="Folder of the search; default: run_dir with -tune added.")] = None,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Search for the best settings with Ray Tune, or resume a search."""
    from nmt.cluster.tune import tune as search
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    best = search(
        settings, space, folder=into, trials=trials, grace=grace, workers=workers, address=address, log=log_line
    )
    if best:
        log_line(f"The best trial is {best}; its configuration is {best.parent / 'best.yaml'}.")


def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(
            help="Source of a test set that must not occur in the training text; may be repeated, as for several "
            "references of the same source."
        ),
    ] = None,
    reference: Annotated[list[Path] | None, typer.Option(help="Reference of each --test, in the same order.")] = None,
    json: Json = False,
) -> None:
    """Check text, tokenizer, memory and disk before training; exit code 1 if the training would fail."""
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    if len(test or []) != len(reference or []):
        raise UserError(f"Every --test needs its --reference; found {len(test or [])} and {len(reference or [])}.")
    set_up_process()
    from nmt.doctor.examine import examine, read_tests
    from nmt.doctor.findings import as_json, as_table, has_errors

    findings = list(examine(settings, tests=read_tests(test or [], reference or [])))
    print_line(as_json(findings) if json else as_table(findings))
    if has_errors(findings):
        sys.exit(1)
