"""`nmt translate`, `nmt translate-corpus`, `nmt evaluate`: text through a model or an export."""

from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import (
    Address,
    BeamSize,
    Decoding,
    Device,
    Json,
    LengthPenalty,
    Model,
    PruningThreshold,
    Threads,
    Workers,
    print_line,
    print_warning,
    read_settings,
    set_up_process,
    stream_path,
)
from nmt.errors import UserError


def translate(
    model: Model,
    overrides: Decoding = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Text to translate, one sentence per line; default or -: stdin."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the translations; default or -: stdout.")
    ] = None,
    n_best: Annotated[
        int,
        typer.Option("--n-best", "-n", min=1, max=64, help="Translations per line: tab-separated number, score, text."),
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Translate text, line by line."""
    settings = read_settings(
        overrides,
        "decoding",
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning_threshold=pruning_threshold,
    )
    set_up_process(device, threads)
    from nmt.translators.lines import translate_lines
    from nmt.translators.opening import open_translator

    translator = open_translator(model, **settings["decoding"])
    translate_lines(translator, stream_path(input), stream_path(output), n_best=n_best, as_json=json)


def translate_corpus(
    model: Model,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Folder of text files (plain, .gz or .xz), or a quoted pattern.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the translations, one file for each.")],
    overrides: Decoding = None,
    workers: Workers = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    address: Address = None,
) -> None:
    """Translate many files with Ray Data; run again to translate what is missing."""
    settings = read_settings(
        overrides,
        "decoding",
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning_threshold=pruning_threshold,
    )
    from nmt.cluster.corpus import translate_corpus as translate_files

    translate_files(
        model, input, output, settings=settings["decoding"], workers=workers, address=address, log=print_line
    )


def evaluate(
    model: Model,
    source: Annotated[Path, typer.Option(help="Test sentences, one per line.")],
    reference: Annotated[Path, typer.Option(help="Human translations of the test sentences, one per line.")],
    overrides: Decoding = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the model's translations.")] = None,
    json: Json = False,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="With --tokenized: also score tok-lc.")] = False,
    tokenized: Annotated[bool, typer.Option("--tokenized", help="With --lowercase: also score tok-lc.")] = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Score a model on a test set: BLEU, chrF and TER, with signature and confidence interval."""
    if lowercase != tokenized:
        raise UserError(
            "--lowercase and --tokenized only work together: they add a score in the Multi30k convention (tok-lc)."
        )
    settings = read_settings(
        overrides,
        "decoding",
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning_threshold=pruning_threshold,
    )
    set_up_process(device, threads)
    from nmt.evaluation.evaluate import evaluate as evaluate_model
    from nmt.evaluation.evaluate import report
    from nmt.files import atomic_write
    from nmt.translators.opening import open_translator

    translator = open_translator(model, **settings["decoding"])
    result = evaluate_model(translator, source, reference, tokenized=tokenized, warn=print_warning)
    if output:
        with atomic_write(output) as aside:
            aside.write_text("".join(f"{line}\n" for line in result.hypotheses), encoding="utf-8")
    print_line(report(result, as_json=json))
