"""The queue and its one thread, with an engine that only says what it was asked."""

import threading
import time

import pytest

from nmt.errors import RequestError
from nmt.server.batcher import Batcher
from nmt.server.engine import Answer, Candidate, Options
from nmt.server.limits import Limits

GREEDY, WIDE = Options(beam_size=1), Options(beam_size=9)


class Recorder:
    version, nbest = 1, 1

    def __init__(self):
        self.asked = []
        self.threads = set()
        self.may_go = threading.Event()
        self.may_go.set()

    def settle(self, options):
        return options

    def answer(self, texts, options):
        self.asked.append((list(texts), options))
        self.threads.add(threading.current_thread().name)
        assert self.may_go.wait(10)
        return [Answer([Candidate(f"{text} {options.beam_size}", 0.0)]) for text in texts]


@pytest.fixture
def engine():
    return Recorder()


@pytest.fixture
def held(engine):
    """A batcher whose thread is at work on a first text until `may_go` is set."""
    engine.may_go.clear()
    batcher = Batcher(engine, Limits(max_batch=4, max_queue=6, max_wait=0))
    batcher.submit(["first"], Options())
    while batcher.num_waiting:
        time.sleep(0.001)
    yield batcher
    engine.may_go.set()
    batcher.close(5)


def texts(futures):
    return [future.result(5).candidates[0].text for future in futures]


def test_texts_of_several_requests_are_translated_together_in_order(engine, held):
    one, two = held.submit(["a", "b"], GREEDY), held.submit(["c", "d", "e"], GREEDY)
    engine.may_go.set()
    assert texts(one) == ["a 1", "b 1"] and texts(two) == ["c 1", "d 1", "e 1"]
    assert engine.asked[1:] == [(["a", "b", "c", "d"], GREEDY), (["e"], GREEDY)]
    assert engine.threads == {"translating"}


def test_texts_with_other_options_are_kept_apart(engine, held):
    futures = [held.submit([text], options)[0] for text, options in (("a", GREEDY), ("b", WIDE), ("c", GREEDY))]
    engine.may_go.set()
    assert texts(futures) == ["a 1", "b 9", "c 1"]
    assert engine.asked[1:] == [(["a", "c"], GREEDY), (["b"], WIDE)]


def test_a_text_waits_for_others_as_long_as_it_was_told(engine):
    batcher = Batcher(engine, Limits(max_batch=2, max_wait=0.2))
    started = time.monotonic()
    assert texts(batcher.submit(["a"], GREEDY)) == ["a 1"]
    assert time.monotonic() - started > 0.19
    batcher.close(5)


def test_a_text_that_was_alone_does_not_wait(engine):
    batcher = Batcher(engine, Limits(max_batch=2, max_wait=0.2))
    texts(batcher.submit(["a"], GREEDY))
    started = time.monotonic()
    texts(batcher.submit(["b"], GREEDY))
    assert time.monotonic() - started < 0.1
    texts(batcher.submit(["c", "d"], GREEDY))
    started = time.monotonic()
    texts(batcher.submit(["e"], GREEDY))  # two were there: there may be another
    assert time.monotonic() - started > 0.19
    batcher.close(5)


def test_two_who_take_turns_meet(engine, held):
    """Of two clients, one comes while the other is translated; who then waits a little is translated with both."""
    held._limits = Limits(max_batch=2, max_wait=5)
    [b] = held.submit(["b"], GREEDY)
    engine.may_go.set()
    time.sleep(0.05)
    [a] = held.submit(["a"], GREEDY)
    assert texts([b, a]) == ["b 1", "a 1"]
    assert engine.asked[1:] == [(["b", "a"], GREEDY)]


def test_as_many_texts_as_are_wanted_wait_for_no_others(engine):
    batcher = Batcher(engine, Limits(max_batch=2, max_wait=60))
    assert texts(batcher.submit(["a"], GREEDY) + batcher.submit(["b"], GREEDY)) == ["a 1", "b 1"]
    assert engine.asked == [(["a", "b"], GREEDY)]
    batcher.close(5)


def test_all_of_a_request_is_taken_or_nothing(engine, held):
    held.submit(["a"] * 5, GREEDY)
    with pytest.raises(RequestError, match="Too many texts wait to be translated, 5 of 6") as refused:
        held.submit(["b"] * 2, GREEDY)
    assert (refused.value.status, held.num_waiting) == (429, 5)
    held.submit(["b"], GREEDY)


def test_a_request_larger_than_the_queue_is_taken_when_nothing_else_waits(engine, held):
    futures = held.submit([str(n) for n in range(20)], GREEDY)
    engine.may_go.set()
    assert texts(futures) == [f"{n} 1" for n in range(20)]


def test_closing_translates_what_waits_and_takes_no_more(engine, held):
    futures = held.submit(["a"], GREEDY)
    closing = threading.Thread(target=held.close)
    closing.start()
    while not held._closed:
        time.sleep(0.001)
    with pytest.raises(RequestError, match="The server is stopping") as refused:
        held.submit(["b"], GREEDY)
    assert refused.value.status == 503
    engine.may_go.set()
    closing.join(5)
    assert texts(futures) == ["a 1"] and not closing.is_alive()


def test_an_engine_that_loses_an_answer_is_a_defect_and_not_a_shift(engine, caplog):
    def losing(texts, options):
        found = Recorder.answer(engine, texts, options)
        return found[1:] if "lost" in texts else found

    engine.answer = losing
    batcher = Batcher(engine, Limits(max_wait=0.05))
    good, bad, also_good = batcher.submit(["a", "lost", "b"], GREEDY)
    assert texts([good, also_good]) == ["a 1", "b 1"]
    with pytest.raises(ValueError, match="zip"):
        bad.result(5)
    batcher.close(5)
