"""`nmt distill`, `nmt back-translate`, `nmt clean`: makes or filters training text with a model."""

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
    Threads,
    TranslatingWorkers,
    choose_workers,
    log_line,
    read_decoding,
)
from nmt.errors import UserError

Into = Annotated[Path, typer.Option(help="Folder for the pairs and data.yaml, which lists them for data.train.")]


def distill(
    model: Model,
    into: Into,
    overrides: Decoding = None,
    config: Annotated[
        str | None,
        typer.Option(help="Configuration whose training text is translated; default: the one that MODEL stores."),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="File to translate instead of the training text. Repeat it for several files."),
    ] = None,
    nearest: Annotated[
        str | None,
        typer.Option(
            metavar="bleu|chrf", help="Take the hypothesis of the beam that is nearest to the reference by this score."
        ),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
    workers: TranslatingWorkers = None,
    address: Address = None,
) -> None:
    """Translate training text for a student to learn from (Kim and Rush 2016); run again to resume."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    from nmt.config.file import load_config
    from nmt.synthesis.distillation import distill as distill_text

    fragment = distill_text(
        model,
        into=into,
        config=load_config(config) if config else None,
        sources=source or (),
        nearest=nearest,
        settings=decoding,
        workers=choose_workers(workers, address, device, threads),
        address=address,
        log=log_line,
    )
    log_line(f"The entries for data.train are in {fragment}.")


def back_translate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Run folder, model folder, ensemble or export that translates from the target."
        ),
    ],
    monolingual: Annotated[
        Path, typer.Argument(metavar="MONOLINGUAL", help="Text in the target language, plain or compressed.")
    ],
    into: Into,
    overrides: Decoding = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Drop, blank and move words of the sources (Edunov et al. 2018).")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the noise; default: 1.")] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="Symbol put before each source in training, such as '<bt>' (Caswell et al. 2019)."),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
    workers: TranslatingWorkers = None,
    address: Address = None,
) -> None:
    """Make training pairs from text in the target language (Sennrich et al. 2016); run again to resume."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    if seed is not None and not noise:
        raise UserError("--seed is the seed of --noise, which is not given.")
    from nmt.synthesis.back_translation import back_translate as back_translate_text

    fragment = back_translate_text(
        model,
        [monolingual],
        into=into,
        noise_seed=(1 if seed is None else seed) if noise else None,
        tag=tag,
        settings=decoding,
        workers=choose_workers(workers, address, device, threads),
        address=address,
        log=log_line,
    )
    log_line(f"The entries for data.train are in {fragment}.")


def clean(
    source: Annotated[Path, typer.Option(help="File of source lines, plain or compressed.")],
    target: Annotated[Path, typer.Option(help="File of their translations, line by line.")],
    into: Annotated[
        Path, typer.Option(help="Folder for the pairs that are kept, in files of the same names, and for verdicts.tsv.")
    ],
    by_score: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Run folder, model folder or ensemble: drop pairs with a low mean log-probability per target token.",
        ),
    ] = None,
    reverse: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Model of the opposite direction, to score by dual conditional cross-entropy (Junczys-Dowmunt 2018).",
        ),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Lowest score to keep, 0 or less.")] = None,
    keep: Annotated[float | None, typer.Option(help="Share of the scored pairs to keep, such as 0.8.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of tokens of either side; default: data.max_length of the model."),
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option(min=1, help="Maximum ratio of the lengths of the two sides, in tokens.")
    ] = None,
    drop_identical: Annotated[
        bool, typer.Option("--drop-identical", help="Drop pairs whose two sides are the same text.")
    ] = False,
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="Drop later copies of a pair.")] = False,
    device: Device = None,
    threads: Threads = None,
    workers: TranslatingWorkers = None,
    address: Address = None,
) -> None:
    """Filter a parallel corpus by rules and by a model's scores; run again to resume, or with another threshold."""
    for name, value in (("--reverse", reverse), ("--min-score", min_score), ("--keep", keep)):
        if value is not None and by_score is None:
            raise UserError(f"{name} has no effect without --by-score, the model that scores the pairs.")
    from nmt.cluster.cleaning import Rules, ScoreRule, clean_files

    report = clean_files(
        source,
        target,
        into=into,
        rules=Rules(max_length, max_ratio, drop_identical, drop_duplicates),
        by_score=ScoreRule(by_score, reverse, min_score, keep) if by_score else None,
        workers=choose_workers(workers, address, device, threads),
        address=address,
        log=log_line,
    )
    log_line(f"{report}\nThe pairs are in {into}; verdicts.tsv there has a verdict for each line.")
