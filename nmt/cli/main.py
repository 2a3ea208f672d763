"""The command line: registers the commands, and turns exceptions into messages and exit codes.

A command's module parses its arguments and calls the rest of the package, nothing else. Commands import what needs
TensorFlow inside their functions, so that help and mistakes in a configuration are answered at once.
"""

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from nmt.cli import deployment, evaluating, information, inspecting, reporting, synthesis, training, translating
from nmt.cli.options import print_error
from nmt.errors import NmtError, UserError
from nmt.files import check_platform
from nmt.process import open_standard_descriptors
from nmt.signals import exit_on_sigterm
from nmt.streams import replace_home
from nmt.version import __version__

PACKAGES = ("tensorflow", "jax", "keras", "sentencepiece", "sacrebleu")
DEFECT = "\nThis looks like a bug in nmt. Set NMT_TRACEBACK=1 to see where it happened."
# Errors with which the operating system refuses a call. They are not bugs of nmt.
REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
}


def _prepare(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command whose paths may begin with ~, and whose failures Typer does not see.

    Typer would end the program with exit code 1 if the reader of a pipe has gone.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        with _explain_failures():
            command(**{name: _replace_home(value) for name, value in arguments.items()})

    return run


def _replace_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_replace_home(one) for one in value]
    return replace_home(value) if isinstance(value, Path) else value


@contextmanager
def _explain_failures() -> Iterator[None]:
    """Turns exceptions into messages and exit codes."""
    try:
        yield
    except NmtError as error:
        if os.environ.get("NMT_TRACEBACK") and not isinstance(error, UserError):
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has gone, as in `nmt translate … | head -1`. Python would report that at exit; nobody needs it.
        _end(0)
    except Exception as error:
        if os.environ.get("NMT_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.errno in REFUSALS:
            _fail(f"{os.strerror(error.errno)}{f': {error.filename}' if error.filename else ''}.", 1)
        _fail(f"{type(error).__name__}: {error}{DEFECT}", 1)


def _fail(message: str, code: int) -> NoReturn:
    print_error(message)
    _end(code)


def _end(code: int) -> NoReturn:
    """Ends the process, and drops output that cannot be written: Python would try again, and fail, at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


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
    synthesis.distill,
    synthesis.back_translate,
    synthesis.clean,
    evaluating.evaluate,
    evaluating.compare,
    evaluating.calibrate,
    evaluating.check,
    evaluating.score,
    inspecting.inspect,
    reporting.report,
    inspecting.index,
    evaluating.align,
    deployment.ensemble,
    deployment.average,
    deployment.export,
    deployment.serve,
    information.download,
    information.info,
):
    app.command()(_prepare(command))
config_app = typer.Typer(help="Reference of the configuration keys.", no_args_is_help=True)
config_app.command()(_prepare(information.explain))
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
    open_standard_descriptors()
    exit_on_sigterm()
    with _explain_failures():
        check_platform()
        try:
            commands(standalone_mode=True)
        except SystemExit as end:
            if not end.code and sys.stdout is not None:
                sys.stdout.flush()  # here rather than at exit, where a failure could not be explained
            raise
