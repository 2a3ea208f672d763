"""The command line: registers the commands, and turns exceptions into messages and exit codes.

A command's module parses its arguments and calls the rest of the package, nothing else. Commands import what needs
TensorFlow inside their functions, so that help and mistakes in a configuration are answered at once.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer

from nmt.cli import deployment, information, training, translating
from nmt.errors import NmtError, UserError
from nmt.files import check_platform
from nmt.signals import exit_on_sigterm
from nmt.version import __version__

PACKAGES = ("tensorflow", "jax", "keras", "sentencepiece", "sacrebleu")
DEFECT = "\nThis looks like a bug in nmt. Set NMT_TRACEBACK=1 to see where it happened."

app = typer.Typer(
    help="Recurrent neural machine translation: train, translate, score, export for TensorFlow Serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    information.demo,
    training.train,
    training.tune,
    training.doctor,
    translating.translate,
    translating.translate_corpus,
    translating.evaluate,
    deployment.export,
    deployment.serve,
    information.download,
    information.info,
):
    app.command()(command)
config_app = typer.Typer(help="Reference of the configuration keys.", no_args_is_help=True)
config_app.command()(information.explain)
app.add_typer(config_app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nmt {__version__}")
        for package in PACKAGES:
            try:
                print(f"{package} {version(package)}")
            except PackageNotFoundError:
                continue
        raise typer.Exit


@app.callback()
def _accept_version(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print versions and exit.")
    ] = False,
) -> None:
    pass


def main(commands: typer.Typer = app) -> None:
    """Runs a command line.

    Exit codes: 0 success, 1 failure, 2 a user's mistake, 130 Ctrl-C, 143 SIGTERM. A server that a signal stops has
    succeeded.
    """
    exit_on_sigterm()
    try:
        check_platform()
        commands(standalone_mode=True)
    except NmtError as error:
        if os.environ.get("NMT_TRACEBACK") and not isinstance(error, UserError):
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has gone, as in `nmt translate … | head -1`. Python would report that at exit; nobody needs it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("NMT_TRACEBACK"):
            raise
        _fail(f"{type(error).__name__}: {error}{DEFECT}", 1)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
