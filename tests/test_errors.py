import signal

import pytest
import typer

from nmt import errors
from nmt.cli.main import main
from nmt.errors import (
    BrokenPromiseError,
    DivergenceError,
    ExportError,
    FormatError,
    InterruptionError,
    NmtError,
    OperationError,
    OutOfMemoryError,
    ParityError,
    RequestError,
    UnsavedError,
    UserError,
    WorkerLostError,
    suggest_name,
)

EXIT_CODES = [
    (UserError("lines differ"), 2),
    (FormatError("format 2"), 2),
    (DivergenceError("not finite"), 1),
    (UnsavedError("the disk is full"), 1),
    (OutOfMemoryError("no memory"), 1),
    (WorkerLostError("worker 1 is gone"), 1),
    (InterruptionError("saved", signal.SIGINT), 130),
    (InterruptionError("saved", signal.SIGTERM), 143),
    (InterruptionError("saved", 0), 130),  # KeyboardInterrupt without a signal, as in a notebook
    (ExportError("failed"), 1),
    (OperationError("an unknown operation"), 1),
    (ParityError("translates differently"), 1),
    (BrokenPromiseError("a number is missing"), 1),
    (RequestError(400, "no text"), 1),
]


def run_main(error: Exception) -> None:
    """Runs a command line whose only command raises an error."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    main(app)


@pytest.fixture(autouse=True)
def keep_signal_handler(monkeypatch):
    """Undoes what `main` does to this process."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("sys.argv", ["nmt"])
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(("error", "exit_code"), EXIT_CODES, ids=lambda value: type(value).__name__)
def test_the_command_line_prints_the_message_and_exits_with_the_code_of_the_class(error, exit_code, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(error)
    assert ended.value.code == error.exit_code == exit_code
    assert capsys.readouterr().err == f"{error}\n"


def test_every_class_is_tested_and_says_when_it_is_raised():
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, NmtError)}
    assert classes == {type(error) for error, _ in EXIT_CODES} | {NmtError}
    for one in classes:
        assert one.__doc__.startswith("Raised")


def test_any_other_exception_is_reported_as_a_bug(capsys):
    with pytest.raises(SystemExit, match="1"):
        run_main(ZeroDivisionError("division by zero"))
    assert capsys.readouterr().err.startswith("ZeroDivisionError: division by zero\nThis looks like a bug in nmt.")


def test_a_traceback_is_shown_on_request_but_not_for_a_users_mistake(monkeypatch):
    monkeypatch.setenv("NMT_TRACEBACK", "1")
    for error in (ZeroDivisionError("division by zero"), ParityError("translates differently")):
        with pytest.raises(type(error)):
            run_main(error)
    with pytest.raises(SystemExit, match="2"):
        run_main(UserError("lines differ"))


def test_a_user_error_is_a_value_error():
    with pytest.raises(ValueError, match=r"^a.yaml:3: unknown key$"):
        raise UserError("a.yaml:3: unknown key")


def test_the_closest_name_is_suggested():
    assert suggest_name("bacth_size", ["batch_by", "batch_size", "beam_size"]) == " Did you mean 'batch_size'?"


@pytest.mark.parametrize("valid", [[], ["seed", "model"]])
def test_nothing_is_suggested_if_nothing_is_close(valid):
    assert suggest_name("bacth_size", valid) == ""


def test_names_may_come_from_any_iterable():
    assert suggest_name("modl", (name for name in ("data", "model"))) == " Did you mean 'model'?"
    assert suggest_name("modl", {"model": 1}) == " Did you mean 'model'?"
