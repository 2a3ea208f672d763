"""`nmt report`: writes a web page about runs."""

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import Device, Threads, log_line, print_line, set_up_process
from nmt.streams import STANDARD, open_output


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, also of runs that are still training.", show_default=False),
    ],
    html: Annotated[Path, typer.Option(help="File for the web page, which needs no other file. -: stdout.")] = Path(
        "report.html"
    ),
    examples: Annotated[
        int, typer.Option(min=0, help="Number of sentences per list; 0 shows none and opens no model.")
    ] = 10,
    pairs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of training pairs to score by the best model, if training did not keep their losses, to list "
            "those with the highest loss; 0 lists none.",
        ),
    ] = 5000,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Write a web page about runs: curves, configuration, data, dev sentences, and improbable training pairs."""
    set_up_process(device, threads)
    from nmt.report.page import report_runs, write_html

    with open_output(html) as out:
        found = report_runs(runs, examples=examples, pairs=pairs, log=log_line if html != STANDARD else lambda _: None)
        out.write(write_html(found, examples=examples))
    if html != STANDARD:
        print_line(str(html))
