import signal
import subprocess
import sys
import threading

import pytest

from nmt.signals import SIGNALS, defer_signals, record_signals


@pytest.fixture(autouse=True)
def _usual_handlers():
    """Installs those of a program in the foreground; a shell's background jobs start with Ctrl-C ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_sets_a_flag(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with defer_signals() as flag:
        assert flag.signal_number == 0
        signal.raise_signal(number)
        assert flag.signal_number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_signal_ends_at_once(first):
    with defer_signals():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored_after_a_failure():
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(RuntimeError), defer_signals():
        raise RuntimeError
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_outside_the_main_thread_signals_stay_with_their_owner():
    before = [signal.getsignal(each) for each in SIGNALS]
    seen = []

    def work():
        with defer_signals() as flag:
            seen.append((flag.signal_number, [signal.getsignal(each) for each in SIGNALS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_recorded_signal_still_reaches_its_handler(number):
    received = []
    signal.signal(number, lambda number, frame: received.append(number))
    with record_signals() as flag:
        signal.raise_signal(number)
        assert (flag.signal_number, received) == (number, [number])
    signal.raise_signal(number)
    assert (flag.signal_number, received) == (number, [number, number])


def test_a_recorded_signal_without_a_handler_is_an_interrupt():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with record_signals() as flag, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert flag.signal_number == signal.SIGTERM


def test_sigterm_ends_a_process_after_its_blocks_are_closed():
    program = """
import signal
from nmt.signals import exit_on_sigterm

exit_on_sigterm()
try:
    signal.raise_signal(signal.SIGTERM)
finally:
    print("closed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "closed\n")
