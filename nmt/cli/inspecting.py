"""`nmt inspect`: how a model translates one sentence. `nmt index`: which training sentences explain it."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import (
    BeamSize,
    Decoding,
    Device,
    LengthPenalty,
    PruningThreshold,
    Threads,
    log_line,
    print_line,
    print_warning,
    read_decoding,
    require_packages,
    set_up_process,
)
from nmt.streams import open_output


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder or model folder.")],
    sentence: Annotated[str, typer.Argument(metavar="SENTENCE", help="Sentence to translate, in quotes.")],
    overrides: Decoding = None,
    reference: Annotated[
        str | None, typer.Option(help="Translation to describe instead of the one that the model finds.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="File for a web page with attention, gates, cells, gradients and the beam.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Folder for pictures of attention, gradients and every layer, by matplotlib.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            help="Folder of nmt index, for the nearest training sentences; default: that of the run, if it exists and "
            "is up to date."
        ),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Show how a model translates a sentence: probabilities, alternatives, attention, gates, gradients, beam."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    if png:
        require_packages("nmt inspect --png", "inspect", "matplotlib")
    set_up_process(device, threads)
    from nmt.inspection.inspect import inspect as inspect_sentence
    from nmt.inspection.inspect import write_text

    with open_output(html) if html else nullcontext() as out:
        found = inspect_sentence(model, sentence, reference, index=index, **decoding)
        if found.index_problem:
            print_warning(found.index_problem)
        if out:
            from nmt.inspection.page import write_html

            out.write(write_html(found))
        if png:
            from nmt.inspection.pictures import draw_pictures

            for path in draw_pictures(found, png, warn=print_warning):
                log_line(str(path))
    if not html:
        print_line(write_text(found))


def index(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or model folder.")],
    into: Annotated[Path | None, typer.Option(help="Folder of the index; default: index in the run folder.")] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Number of target tokens to sample from the training text.")
    ] = 100_000,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Index training sentences by the states that predict their words, for `nmt inspect` to find the nearest ones."""
    set_up_process(device, threads)
    from nmt.inspection.neighbours import build_index
    from nmt.model_folder import INDEX

    record = build_index(run, into, num_tokens=tokens)
    print_line(
        f"{record.num_tokens:,} target tokens of {record.num_sentences:,} training sentences in {into or run / INDEX} "
        f"({record.num_bytes / 1e6:.1f} MB of states)."
    )
