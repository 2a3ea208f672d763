"""`nmt demo`, `nmt download`, `nmt info`, `nmt config explain`: first steps and reference."""

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import Model, Overrides, log_line, print_line


def demo(
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated corpus.")] = 1,
) -> None:
    """Generate a small corpus, train on it, score the model, export it and translate with the export."""
    from nmt.config.file import load_config

    settings = load_config("demo", overrides or [])
    from nmt.demo.run import run_demo

    run_demo(settings, seed=seed, log=log_line)


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="multi30k, multi30k-captions, tatoeba or kftt.")],
    mirror: Annotated[
        Path | None,
        typer.Option(envvar="NMT_MIRROR", help="Folder with NAME/FILE to copy from, instead of downloading."),
    ] = None,
    into: Annotated[Path | None, typer.Option(help="Folder for the files; default: data/NAME.")] = None,
) -> None:
    """Download a public corpus, or copy it from a mirror folder."""
    from nmt.data.catalog import download as fetch
    from nmt.progress import show_byte_progress

    with show_byte_progress() as progress:
        files = fetch(name, into=into or Path("data", name), mirror=mirror, log=log_line, progress=progress)
    print_line("\n".join(str(file) for file in files))


def info(model: Model) -> None:
    """Describe a run folder, a model folder, an ensemble or an export."""
    from nmt.translators.describe import describe

    print_line(describe(model))


def explain(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="Key or section, such as training.batch_size; default: all.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown: a table, or the whole page of all keys.")
    ] = False,
) -> None:
    """Print the meaning, unit, range and default of configuration keys."""
    from nmt.config.reference import explain as explain_key

    print_line(explain_key(key, markdown=markdown).rstrip("\n") if markdown else explain_key(key))
