"""`nmt evaluate`, `nmt score`, `nmt align`, `nmt compare`, `nmt check`: measures translations."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from nmt.cli.options import (
    BeamSize,
    Decoding,
    Device,
    Json,
    LengthPenalty,
    Model,
    PruningThreshold,
    Rerank,
    RerankWeight,
    Threads,
    print_error,
    print_line,
    print_warning,
    read_decoding,
    set_up_process,
)
from nmt.errors import UserError
from nmt.streams import STANDARD, check_output, open_output


def evaluate(
    model: Model,
    source: Annotated[Path, typer.Option(help="Test sentences, one per line. Lines are not split. -: stdin.")],
    reference: Annotated[
        list[Path],
        typer.Option(help="Human translations of the test sentences, one per line. Repeat it for several references."),
    ],
    overrides: Decoding = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for the model's translations. -: stdout, and the scores go to stderr."
        ),
    ] = None,
    json: Json = False,
    tok_lc: Annotated[
        bool, typer.Option("--tok-lc", help="Add BLEU in the Multi30k convention: lower-cased, tokenized by Moses.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Another system's translations of the source: adds p-values of the paired bootstrap."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language code of the translations, which chooses BLEU's tokenizer; default: the model's."),
    ] = None,
    removed: Annotated[bool, typer.Option("--lowercase", "--tokenized", hidden=True)] = False,
    rerank: Rerank = None,
    rerank_weight: RerankWeight = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Score a model on a test set: BLEU, chrF and TER, with signature and confidence interval."""
    if removed:
        raise UserError("--lowercase and --tokenized have become one option, --tok-lc.")
    if output:
        check_output(output, source, *reference, baseline)
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    set_up_process(device, threads)
    from nmt.evaluation.evaluate import evaluate as evaluate_model
    from nmt.evaluation.evaluate import report
    from nmt.translators.opening import open_translator

    translator = open_translator(model, rerank=rerank, rerank_weight=rerank_weight, **decoding)
    # Opened first, so that a file that cannot be written is reported before the work.
    with open_output(output) if output else nullcontext() as out:
        result = evaluate_model(
            translator,
            source,
            reference,
            tok_lc=tok_lc,
            baseline=baseline,
            target_language=language,
            warn=print_warning,
        )
        if out:
            out.writelines(f"{line}\n" for line in result.hypotheses)
    (print_error if output == STANDARD else print_line)(report(result, as_json=json))


def calibrate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Run folder, model folder or ensemble, which stores the result.")
    ],
    source: Annotated[
        Path | None, typer.Option(help="Sentences to fit on, one per line; default: the dev text of the model.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Their human translations, one per line.")] = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Fit the confidence of a model on its dev text, and store it with the model.

    A training does so when it ends, unless it has training.budget_minutes.
    """
    if (source is None) != (reference is None):
        raise UserError("--source and --reference go together: give both, or neither for the dev text of the model.")
    set_up_process(device, threads)
    from nmt.evaluation.calibration import calibrate as calibrate_model
    from nmt.evaluation.calibration import read_text

    confidence = calibrate_model(model, *read_text(model, source, reference))
    print_line(f"Fitted the confidence of {model} on {confidence.sentences:,} sentences.")


def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, model folder or ensemble.")],
    source: Annotated[Path, typer.Option(help="Source lines, plain or compressed. -: stdin.")],
    target: Annotated[Path, typer.Option(help="Their translations, one per line. -: stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the scores; see nmt translate.")] = STANDARD,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, with every token.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Print the log-probability of each given translation, and its mean per token."""
    check_output(output, source, target)
    set_up_process(device, threads)
    from nmt.evaluation.scoring import score_files

    with open_output(output) as out:
        score_files(model, source, target, out, as_json=json)


def align(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, model folder or ensemble.")],
    source: Annotated[Path, typer.Option(help="Source lines, plain or compressed. -: stdin.")],
    target: Annotated[Path, typer.Option(help="Their translations, one per line. -: stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the links; see nmt translate.")] = STANDARD,
    gold: Annotated[
        Path | None,
        typer.Option(help="Gold links, one line per pair, 0-0 sure and 0?1 possible: adds the error rate (AER)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, with attention.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Align the words of given translations by attention, and measure the alignment error rate."""
    check_output(output, source, target, gold)
    set_up_process(device, threads)
    from nmt.evaluation.aligning import align_files

    with open_output(output) as out:
        errors = align_files(model, source, target, out, as_json=json, gold=gold)
    if errors:
        (print_error if output == STANDARD else print_line)(errors.as_line())


def compare(
    systems: Annotated[
        list[Path],
        typer.Argument(
            metavar="SYSTEM|KEY=VALUE",
            help="Translations, one per line, or a model, which translates --source. The first is the baseline. "
            "Decoding settings, such as decoding.beam_size=8, override those of all models.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        list[Path],
        typer.Option(help="Human translations of the test sentences, one per line. Repeat it for several references."),
    ],
    source: Annotated[Path | None, typer.Option(help="Test sentences, one per line. Lines are not split.")] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language code of the translations, which chooses BLEU's tokenizer; default: the models'."),
    ] = None,
    training_text: Annotated[
        Path | None, typer.Option(help="Target text in which words are counted; default: the first reference.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Number of sentences to show of those that differ most.")] = 10,
    json: Json = False,
    html: Annotated[
        Path | None,
        typer.Option(help="File for a web page with the same tables and sentences. -: stdout, and no tables."),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Compare systems: scores with significance tests, by length, by word frequency, and by sentence."""
    overrides = [str(one) for one in systems if "=" in str(one) and not one.exists()]
    systems = [one for one in systems if str(one) not in overrides]
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    if (decoding or device or threads) and not any(system.is_dir() for system in systems):
        raise UserError("Decoding settings, --device and --threads are for models, but all systems are files.")
    if json and html == STANDARD:
        raise UserError("--json and --html - both print to standard output. Give a file for the page.")
    if html:
        check_output(html, source, *systems, *reference, training_text)
    set_up_process(device, threads)
    from nmt.evaluation.compare_report import compare_files, write_html, write_json, write_text

    with open_output(html) if html else nullcontext() as page:
        report = compare_files(
            systems,
            reference,
            source=source,
            target_language=language,
            training_text=training_text,
            decoding=decoding,
            warn=print_warning,
        )
        if page:
            page.write(write_html(report, examples=examples))
    if html != STANDARD:
        print_line(write_json(report) if json else write_text(report, examples=examples))


def check(
    model: Model,
    promises: Annotated[Path, typer.Argument(metavar="PROMISES", help="YAML file of promises about translations.")],
    overrides: Decoding = None,
    json: Json = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Check promises about the content of translations; exit code 1 if a promise of severity error is broken."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    from nmt.evaluation.promises import has_errors, read_promises, report_promises

    entries = read_promises(promises)
    set_up_process(device, threads)
    from nmt.translators.opening import open_translator

    translator = open_translator(model, **decoding)
    outcomes = entries.check(translator.translate(entries.sources, split=False))
    print_line(report_promises(outcomes, as_json=json))
    if has_errors(outcomes):
        sys.exit(1)
