"""Signals and standard streams of a real process of `nmt`, without a model and without TensorFlow (echo.py)."""

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nmt.__main__ import main as start

LINE = "eins " * 40 + "zwei"
TEXT = f"{LINE}\n" * 1_000  # more than a pipe holds
ECHO = f"{sys.executable} {Path(__file__).with_name('echo.py')}"


def run(command, cwd):
    """Runs a line of bash, and returns exit code, standard output and standard error."""
    line = f"set -o pipefail; {command.replace('nmt ', f'{ECHO} ')}"
    done = subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "Interrupted.\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_ends_a_command_that_waits_for_input(tmp_path, number, code, words):
    # A shell starts jobs in the background with Ctrl-C ignored, and this test may be one of them.
    process = subprocess.Popen(
        [*ECHO.split(), "translate", "m", "--output", tmp_path / "out"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        text=True,
    )
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write("eins\n")
    process.stdin.flush()
    while not list(tmp_path.glob(".out.*.part")):
        assert process.poll() is None
    process.send_signal(number)
    assert (process.wait(60), process.stderr.read()) == (code, words)
    assert list(tmp_path.iterdir()) == []  # not half a file
    process.stdin.close()
    process.stderr.close()


def test_closed_and_full_standard_streams_get_one_message(tmp_path):
    (tmp_path / "in").write_text(TEXT)
    assert run("nmt translate m --input in | head -1", tmp_path) == (0, f"{LINE}\n", "")
    lines = [
        "nmt translate m --input in >/dev/full; echo $?",
        "nmt translate m --input in >&-; echo $?",
        "nmt translate m <&-; echo $?",
        "nmt translate m --input in --output out <&- >&- 2>&-; echo $?",
        "nmt --help >/dev/full; echo $?",
    ]
    code, out, err = run("; ".join(lines), tmp_path)
    assert (code, out.split()) == (0, ["2", "2", "2", "0", "1"])
    assert err.splitlines() == [
        "Cannot write to standard output: No space left on device.",
        "Standard output is closed.",
        "Standard input is closed. Give a file.",
        "No space left on device.",
    ]
    assert (tmp_path / "out").read_text() == TEXT


def test_an_interruption_of_the_import_has_no_traceback(monkeypatch, capsys):
    class Interrupted(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "nmt.cli.main", Interrupted("nmt.cli.main"))
    with pytest.raises(SystemExit) as ended:
        start()
    assert (ended.value.code, capsys.readouterr().err) == (130, "Interrupted.\n")
