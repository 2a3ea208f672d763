"""The command line: `nmt train | tune | doctor | translate | translate-corpus | evaluate | export | serve | …`.

Arguments are read here and nothing else is done here. What needs TensorFlow is imported inside the commands, so that
help and mistakes in a configuration answer at once.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from nmt.errors import UserError, nearest

app = typer.Typer(
    help="Recurrent neural machine translation: train, translate, score, export for TensorFlow Serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="What may stand in a configuration file.", no_args_is_help=True)
app.add_typer(config_app, name="config")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/demo.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as training.batch_size=32.")
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder or an export of either kind.")
]
BeamSize = Annotated[int | None, typer.Option(min=1, max=64, help="Hypotheses kept a sentence; 1 is greedy search.")]
LengthPenalty = Annotated[float | None, typer.Option(min=0, max=5, help="Exponent of the length penalty.")]
Pruning = Annotated[
    float | None, typer.Option(min=0, help="How far below the best a hypothesis is given up; 0 keeps all.")
]
Device = Annotated[str | None, typer.Option(help="cpu, gpu, or a GPU's number, such as gpu:1.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the arithmetic; all cores if not given.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes at work; one for each GPU, or for every 4 cores, if not given.")
]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; a Ray on this machine if not given.")]


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    fork: Annotated[bool, typer.Option(help="Start a new run from the weights of the one in run_dir.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a model, or go on with an interrupted run."""
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    _set_up(device, threads)
    from nmt.training.trainer import train as train_model

    best = train_model(settings, fork=fork, announce=_say)
    _say(f"The best model is in {best}. Try: nmt translate {settings.run_dir}")


@app.command()
def tune(
    config: ConfigFile,
    space: Annotated[Path, typer.Option(help="YAML: keys, each with a list or {low, high, log} of values.")],
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 20,
    grace: Annotated[int, typer.Option(min=1, help="Validations before a trial may be stopped early.")] = 2,
    into: Annotated[Path | None, typer.Option(help="Folder of the search; run_dir-tune if not given.")] = None,
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Search for the best settings on Ray Tune, or go on with a search."""
    from nmt.cluster.tune import tune as search
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    best = search(
        settings, space, folder=into, trials=trials, grace=grace, workers=workers, address=address, announce=_say
    )
    if best:
        _say(f"The best trial is {best}; its configuration is {best.parent / 'best.yaml'}.")


@app.command()
def doctor(
    config: ConfigFile,
    overrides: Overrides = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="Source of a test set that must not be in the training text; may repeat.")
    ] = None,
    reference: Annotated[list[Path] | None, typer.Option(help="Its references; one for each --test.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at a training before it begins: text, tokenizer, memory, disk. Exit code 1 if it would fail."""
    from nmt.config.file import load_config

    settings = load_config(config, overrides or [])
    if len(test or []) != len(reference or []):
        raise UserError(f"Every --test needs its --reference; found {len(test or [])} and {len(reference or [])}.")
    _set_up(None, None)
    from nmt.data.preparation import read_pair
    from nmt.doctor.examine import examine
    from nmt.doctor.findings import as_json, as_table, would_fail

    pairs = zip(test or [], reference or [], strict=True)
    tests = {str(source): read_pair(source, target) for source, target in pairs}
    findings = list(examine(settings, tests=tests))
    _say(as_json(findings) if json else as_table(findings))
    if would_fail(findings):
        sys.exit(1)


@app.command()
def translate(
    model: Model,
    input: Annotated[
        Path | None, typer.Option(help="Text to translate, one sentence a line; else standard input.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where translations go; else standard output.")] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning: Pruning = None,
    n_best: Annotated[
        int, typer.Option(min=1, max=64, help="Translations a line: tab-separated number, score, text.")
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Translate text, line by line."""
    _set_up(device, threads)
    from nmt.translators.lines import translate_lines
    from nmt.translators.opening import open_translator

    translator = open_translator(model, beam_size=beam_size, length_penalty=length_penalty, pruning=pruning)
    translate_lines(translator, input, output, num_best=n_best, as_json=json)


@app.command("translate-corpus")
def translate_corpus(
    model: Model,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="A folder of text files, plain, .gz or .xz; or a quoted pattern.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the translations, one file for each.")],
    workers: Workers = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning: Pruning = None,
    address: Address = None,
) -> None:
    """Translate many files on Ray Data; a second start does what is missing."""
    from nmt.cluster.corpus import translate_corpus as translate_files

    translate_files(
        model,
        input,
        output,
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning=pruning,
        workers=workers,
        address=address,
        announce=_say,
    )


@app.command()
def evaluate(
    model: Model,
    source: Annotated[Path, typer.Option(help="Test sentences, one a line.")],
    reference: Annotated[Path, typer.Option(help="Their human translations.")],
    output: Annotated[Path | None, typer.Option(help="Where the model's translations go.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="With --tokenized: also score tok-lc.")] = False,
    tokenized: Annotated[bool, typer.Option("--tokenized", help="With --lowercase: also score tok-lc.")] = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning: Pruning = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Score a model on a test set: BLEU, chrF and TER, with signature and confidence interval."""
    if lowercase != tokenized:
        raise UserError(
            "--lowercase and --tokenized go together: they add a score in the Multi30k convention (tok-lc)."
        )
    _set_up(device, threads)
    from nmt.evaluation.evaluate import evaluate as evaluate_model
    from nmt.evaluation.evaluate import report
    from nmt.files import written_aside
    from nmt.translators.opening import open_translator

    translator = open_translator(model, beam_size=beam_size, length_penalty=length_penalty, pruning=pruning)
    result = evaluate_model(translator, source, reference, tokenized=tokenized)
    if output:
        with written_aside(output) as aside:
            aside.write_text("".join(f"{line}\n" for line in result.hypotheses), encoding="utf-8")
    _say(report(result, as_json=json))


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where versions 1, 2, … are written, or LiteRT's one.")
    ],
    sample: Annotated[Path | None, typer.Option(help="Sentences to compare on, instead of the dev text.")] = None,
    server_version: Annotated[
        str | None, typer.Option(help="The server that will run it, such as 2.21.0, instead of export.server_version.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="savedmodel for TensorFlow Serving, or litert: ids in, ids out, for phones and C++.")
    ] = "savedmodel",
    quantize: Annotated[
        str | None, typer.Option(help="int8 or, in a SavedModel, bfloat16: a smaller artefact; float32 if not given.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="bfloat16 stores it and computes in it, for servers with AMX or AVX-512 BF16; else float32."),
    ] = None,
    max_bleu_loss: Annotated[
        float | None, typer.Option(min=0, help="BLEU points that this may cost; 0.5 if not given.")
    ] = None,
    max_differing: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of sentences that it may change, without references; 0.1 if not given."),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning: Pruning = None,
) -> None:
    """Write a SavedModel for TensorFlow Serving, text in and text out, and compare it with the model."""
    limits = {"max_bleu_loss": max_bleu_loss, "max_differing": max_differing}
    given = {name: value for name, value in limits.items() if value is not None}
    kind = quantize or ("bfloat16" if precision not in (None, "float32") else None)
    if given and kind is None:
        raise UserError("--max-bleu-loss and --max-differing say what --quantize may cost, which is not given.")
    if format not in ("savedmodel", "litert"):
        hint = nearest(format, ("savedmodel", "litert"))
        raise UserError(f"--format: expected savedmodel or litert, found '{format}'.{hint}")
    _set_up("cpu", None)
    from nmt.exporting.quantization import Quantization

    common: dict[str, Any] = {
        "sample": sample,
        "quantize": Quantization(kind, **given, precision=precision or "float32") if kind else None,
        "decoding": {"beam_size": beam_size, "length_penalty": length_penalty, "pruning": pruning},
        "announce": _say,
    }
    if format == "litert":
        from nmt.exporting.litert import export_litert

        _say(f"Exported to {export_litert(model, directory, **common)}.")
        return
    from nmt.exporting.savedmodel import export as export_model

    version = export_model(model, directory, server_version=server_version, **common)
    _say(f"Exported to {version}. How to serve it: {version.parent / 'README.md'}")


@app.command()
def serve(
    model: Model,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8501,
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine need 0.0.0.0.")] = (
        "127.0.0.1"
    ),
    name: Annotated[str | None, typer.Option(help="The model's name in the paths; its folder's if not given.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Holds the key that requests must give; or NMT_API_KEY does.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Texts translated together.")] = 32,
    max_wait: Annotated[float, typer.Option(min=0, max=1000, help="Milliseconds that a text waits for others.")] = 5,
    max_queue: Annotated[int, typer.Option(min=1, help="Texts that wait, before requests are refused.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 1 << 20,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request.")] = 128,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 10_000,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds in which a request is answered.")] = 30,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning: Pruning = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Translate over HTTP, as TensorFlow Serving does and at /translate, until SIGTERM or Ctrl-C."""
    _need_server_packages()
    _set_up(device, threads)
    from nmt.server.limits import Limits
    from nmt.server.run import serve as serve_model

    limits = Limits(
        max_body=max_body,
        max_texts=max_texts,
        max_characters=max_characters,
        max_queue=max_queue,
        max_batch=max_batch,
        max_wait=max_wait / 1000,
        timeout=timeout,
    )
    serve_model(
        model,
        host=host,
        port=port,
        name=name,
        limits=limits,
        key_file=api_key_file,
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning=pruning,
        announce=_say,
    )


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="multi30k, tatoeba or kftt.")],
    mirror: Annotated[Path | None, typer.Option(envvar="NMT_MIRROR", help="A folder that holds NAME/FILE.")] = None,
    into: Annotated[Path | None, typer.Option(help="Where the files go; data/NAME if not given.")] = None,
) -> None:
    """Fetch a public corpus by name, from its home or from a mirror folder."""
    from nmt.data.catalog import download as fetch
    from nmt.progress import byte_progress

    with byte_progress() as progress:
        files = fetch(name, into=into or Path("data", name), mirror=mirror, announce=_say, progress=progress)
    _say("\n".join(str(file) for file in files))


@app.command()
def info(model: Model) -> None:
    """Say what a run folder, a model folder or an export is."""
    from nmt.translators.describe import describe

    _say(describe(model))


@config_app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Such as training.batch_size; all keys if not given.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole reference as a page.")] = False,
) -> None:
    """Print the meaning, unit, range and default of every key, or of one."""
    from nmt.config.reference import explain as explain_key
    from nmt.config.reference import reference_page

    _say(reference_page().rstrip("\n") if markdown else explain_key(key))


def main(commands: typer.Typer = app) -> None:
    """Runs a command line, `nmt` if no other is given.

    Exit codes: 0 done, 1 failure, 2 a user's mistake, 130 Ctrl-C, 143 SIGTERM; a server that a signal ends is done.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        commands(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has gone, as in `nmt translate … | head -1`: nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("NMT_TRACEBACK"):
            raise
        code = getattr(error, "exit_code", 1)
        _fail(str(error) if hasattr(error, "exit_code") else f"{type(error).__name__}: {error}{HINT}", code)


HINT = "\nThis looks like a defect of the toolkit. Set NMT_TRACEBACK=1 to see where it happened."


def _set_up(device: str | None, threads: int | None) -> None:
    """Chooses device and threads while TensorFlow can still be told."""
    from nmt.process import choose_device, choose_threads

    choose_device(device)
    choose_threads(threads)


def _need_server_packages() -> None:
    """Raises UserError where what serves HTTP is not installed, before anything slow is imported."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"nmt serve needs {', '.join(missing)}, not installed here: pip install -r requirements-serve.txt"
        )


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def _say(line: str) -> None:
    print(line, flush=True)
