"""`nmt translate`, `nmt translate-corpus`: text through a model or an export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import (
    Address,
    BeamSize,
    Decoding,
    Device,
    LengthPenalty,
    Model,
    PruningThreshold,
    Rerank,
    RerankWeight,
    Threads,
    TranslatingWorkers,
    choose_workers,
    log_line,
    print_warning,
    read_decoding,
    set_up_process,
)
from nmt.errors import UserError
from nmt.streams import STANDARD, check_output, replace_home

GlossaryFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File of terms with their translations, one per line: term, tab, translation."),
]
Marks = Annotated[
    bool, typer.Option("--marks", help="Copy text between {{ and }}. \\{, \\} and \\\\ stand for {, } and \\.")
]


class AlignmentFormat(StrEnum):
    """Formats of `--alignments`."""

    pharaoh = "pharaoh"
    json = "json"


def translate(
    model: Model,
    overrides: Decoding = None,
    input: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help="Text to translate, plain or compressed; lines may hold several sentences. -: stdin."
        ),
    ] = STANDARD,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File for the translations; .gz, .bz2, .xz and .zst are compressed. -: stdout.",
        ),
    ] = STANDARD,
    n_best: Annotated[
        int,
        typer.Option("--n-best", "-n", min=1, max=64, help="Translations per line: tab-separated number, score, text."),
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    alignments: Annotated[
        AlignmentFormat | None,
        typer.Option(
            help="Add the alignment of words. pharaoh: links such as 0-0 1-2 after a tab; json: JSON objects with "
            "links and attention weights."
        ),
    ] = None,
    html: Annotated[
        bool,
        typer.Option(
            "--html", help="Translate lines with HTML tags or XLIFF inline elements, and keep tags around their words."
        ),
    ] = False,
    rerank: Rerank = None,
    rerank_weight: RerankWeight = None,
    warnings: Annotated[
        bool,
        typer.Option(
            "--warnings",
            help="Print warnings about translations on standard error: cut off, repetition, lost numbers, addresses, "
            "tags, placeholders, terms and required phrases.",
        ),
    ] = False,
    glossary: GlossaryFile = None,
    marks: Marks = False,
    prefix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the beginning of each translation, one per line; it may end inside a word."
        ),
    ] = None,
    required: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of phrases that each translation must contain, one line per translation, separated by tabs.",
        ),
    ] = None,
    alternatives: Annotated[
        int,
        typer.Option(
            min=0,
            max=32,
            help="Number of alternatives for the next word to print per line, instead of translations: tab-separated "
            "line number, probability, prefix with the next token, and best translation; 0 prints none.",
        ),
    ] = 0,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Translate text, line by line."""
    if html and alignments:
        raise UserError(
            "--html and --alignments cannot be combined, because alignments number the words of plain text."
        )
    if html and (prefix or required):
        raise UserError("--html cannot be combined with --prefix and --required, which are for plain text.")
    if alternatives:
        others = {
            **{"--n-best": n_best > 1, "--alignments": alignments, "--html": html, "--required": required},
            **{"--glossary": glossary, "--marks": marks, "--rerank": rerank, "--warnings": warnings},
        }
        if found := ", ".join(name for name, given in others.items() if given):
            raise UserError(f"--alternatives prints no translations and cannot be combined with {found}.")
    check_output(output, input, glossary, prefix, required)
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    # Imported here, as below, so that the other commands do not wait for NumPy.
    from nmt.data.glossary import read_glossary

    terms = read_glossary(glossary) if glossary else None
    set_up_process(device, threads)
    from nmt.translators.lines import translate_lines
    from nmt.translators.opening import open_translator

    translator = open_translator(
        model, rerank=rerank, rerank_weight=rerank_weight, glossary=terms, marks=marks, **decoding
    )
    translate_lines(
        translator,
        input,
        output,
        n_best=n_best,
        as_json=json,
        alignments=alignments,
        html=html,
        prefixes=prefix,
        required=required,
        alternatives=alternatives,
        warn=print_warning if warnings else lambda message: None,
    )


def translate_corpus(
    model: Model,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="Folder of text files, plain or compressed, or a quoted pattern.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the translations, one file for each.")],
    overrides: Decoding = None,
    rerank: Rerank = None,
    rerank_weight: RerankWeight = None,
    glossary: GlossaryFile = None,
    marks: Marks = False,
    workers: TranslatingWorkers = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
    address: Address = None,
) -> None:
    """Translate many files, with several processes if Ray is installed; run again to translate what is missing."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    from nmt.cluster.corpus import translate_corpus as translate_files
    from nmt.data.glossary import read_glossary

    translate_files(
        model,
        str(replace_home(Path(input))),
        output,
        settings=decoding,
        rerank=rerank,
        rerank_weight=rerank_weight,
        glossary=read_glossary(glossary) if glossary else None,
        marks=marks,
        workers=choose_workers(workers, address, device, threads),
        address=address,
        log=log_line,
    )
