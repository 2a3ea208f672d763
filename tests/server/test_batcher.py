"""The queue and its thread, with a translator that records its calls."""

import gc
import threading
import time
import weakref

import pytest

from nmt.config.schema import SearchSettings
from nmt.errors import RequestError, UserError
from nmt.server.batcher import MAX_SETTINGS, Batcher
from nmt.server.fair_queue import Options
from nmt.server.limits import Limits
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator
from nmt.translators.settings import change_settings

GREEDY, WIDE = Options(SearchSettings(beam_size=1)), Options(SearchSettings(beam_size=9))


class Recorder(Translator):
    """Translates "a" to "a 5" with a beam of 5. Translators made by `with_settings` record in the original."""

    source_language = target_language = None
    max_n_best = 9

    def __init__(self, settings=None, original=None):
        self.settings = settings or SearchSettings()
        self.original = original or self
        self.asked = []
        self.made = []
        self.threads = set()
        self.may_go = threading.Event()
        self.may_go.set()

    def with_settings(self, **changes):
        self.original.made.append(changes)
        return Recorder(change_settings(self.settings, changes), self.original)

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    def translate_batch(self, texts, *, n_best=1, attention=False):
        self.original.asked.append((list(texts), Options(self.settings, n_best, attention)))
        self.original.threads.add(threading.current_thread().name)
        assert self.original.may_go.wait(10)
        return [Translation(text, [Hypothesis(f"{text} {self.settings.beam_size}", 0.0, 0.0)]) for text in texts]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def held(recorder):
    """Yields a batcher whose thread is busy with a first text until `may_go` is set."""
    recorder.may_go.clear()
    batcher = Batcher(recorder, Limits(max_batch=4, max_queue=6, max_wait=0))
    batcher.submit(["first"], Options(SearchSettings()))
    while batcher.num_waiting:
        time.sleep(0.001)
    yield batcher
    recorder.may_go.set()
    batcher.close(5)


def texts(futures):
    return [future.result(5).text for future in futures]


def test_texts_of_several_requests_are_translated_together_in_order(recorder, held):
    one, two = held.submit(["a", "b"], GREEDY), held.submit(["c", "d", "e"], GREEDY)
    recorder.may_go.set()
    assert texts(one) == ["a 1", "b 1"] and texts(two) == ["c 1", "d 1", "e 1"]
    assert recorder.asked[1:] == [(["a", "b", "c", "d"], GREEDY), (["e"], GREEDY)]
    assert recorder.threads == {"translating"}


def test_texts_with_other_options_are_kept_apart(recorder, held):
    futures = [held.submit([text], options)[0] for text, options in (("a", GREEDY), ("b", WIDE), ("c", GREEDY))]
    recorder.may_go.set()
    assert texts(futures) == ["a 1", "b 9", "c 1"]
    assert recorder.asked[1:] == [(["a", "c"], GREEDY), (["b"], WIDE)]


def test_a_text_waits_for_others_for_max_wait(recorder):
    batcher = Batcher(recorder, Limits(max_batch=2, max_wait=0.2))
    started = time.monotonic()
    assert texts(batcher.submit(["a"], GREEDY)) == ["a 1"]
    assert time.monotonic() - started > 0.19
    batcher.close(5)


def test_a_text_that_was_alone_does_not_wait(recorder):
    batcher = Batcher(recorder, Limits(max_batch=2, max_wait=1.0))
    texts(batcher.submit(["a"], GREEDY))
    started = time.monotonic()
    texts(batcher.submit(["b"], GREEDY))
    assert time.monotonic() - started < 0.5
    texts(batcher.submit(["c", "d"], GREEDY))
    started = time.monotonic()
    texts(batcher.submit(["e"], GREEDY))  # the last batch had two texts, so there may be another client
    assert time.monotonic() - started > 0.9
    batcher.close(5)


def test_clients_that_alternate_share_batches(recorder, held):
    """A text that arrives while another client's is translated waits a little, and shares the next batch."""
    held._limits = Limits(max_batch=2, max_wait=5)
    [b] = held.submit(["b"], GREEDY)
    recorder.may_go.set()
    time.sleep(0.05)
    [a] = held.submit(["a"], GREEDY)
    assert texts([b, a]) == ["b 1", "a 1"]
    assert recorder.asked[1:] == [(["b", "a"], GREEDY)]


def test_a_full_batch_does_not_wait(recorder):
    batcher = Batcher(recorder, Limits(max_batch=2, max_wait=60))
    assert texts(batcher.submit(["a"], GREEDY) + batcher.submit(["b"], GREEDY)) == ["a 1", "b 1"]
    assert recorder.asked == [(["a", "b"], GREEDY)]
    batcher.close(5)


def test_a_request_is_queued_as_a_whole_or_not_at_all(recorder, held):
    held.submit(["a"] * 5, GREEDY)
    with pytest.raises(RequestError, match="no room for this request: 5 of 6 places are taken") as refused:
        held.submit(["b"] * 2, GREEDY)
    assert (refused.value.status, held.num_waiting) == (429, 5)
    held.submit(["b"], GREEDY)


def test_a_request_larger_than_the_queue_is_accepted_if_the_queue_is_empty(recorder, held):
    futures = held.submit([str(n) for n in range(20)], GREEDY)
    recorder.may_go.set()
    assert texts(futures) == [f"{n} 1" for n in range(20)]


def test_closing_translates_the_queue_and_refuses_new_texts(recorder, held):
    futures = held.submit(["a"], GREEDY)
    closing = threading.Thread(target=held.close)
    closing.start()
    while not held._is_closed:
        time.sleep(0.001)
    with pytest.raises(RequestError, match="The server is stopping") as refused:
        held.submit(["b"], GREEDY)
    assert refused.value.status == 503
    recorder.may_go.set()
    closing.join(5)
    assert texts(futures) == ["a 1"] and not closing.is_alive()


def test_a_translator_that_drops_a_text_does_not_shift_the_others(recorder, caplog):
    def lose(texts, **options):
        found = Recorder.translate_batch(recorder, texts, **options)
        return found[1:] if "lost" in texts else found

    recorder.translate_batch = lose
    batcher = Batcher(recorder, Limits(max_wait=0.05))
    good, bad, also_good = batcher.submit(["a", "lost", "b"], Options(recorder.settings))
    assert texts([good, also_good]) == ["a 5", "b 5"]
    with pytest.raises(ValueError, match="zip"):
        bad.result(5)
    batcher.close(5)


def test_requests_for_the_same_settings_share_a_batch_however_they_ask(recorder):
    batcher = Batcher(recorder, Limits())
    own = batcher.make_options()
    assert own == Options(SearchSettings()) == batcher.make_options({"beam_size": 5, "length_penalty": None})
    assert batcher.make_options({"beam_size": 4}) != own
    assert batcher.make_options(n_best=3, attention=True) == Options(SearchSettings(), 3, attention=True)
    batcher.close(5)


def test_the_number_of_translations_is_checked_with_the_settings_of_the_request(recorder, monkeypatch):
    def check(self, n_best):
        if n_best > self.settings.beam_size:
            raise UserError("too many")

    monkeypatch.setattr(type(recorder), "check_n_best", check)
    batcher = Batcher(recorder, Limits())
    assert batcher.make_options({"beam_size": 3}, n_best=3).n_best == 3
    with pytest.raises(UserError, match="too many"):
        batcher.make_options({"beam_size": 2}, n_best=3)
    batcher.close(5)


def test_options_that_the_translator_does_not_support_are_refused_at_once(recorder):
    batcher = Batcher(recorder, Limits())
    for changes, options, words in (
        ({"beam_size": 0}, {}, "decoding.beam_size: expected"),
        ({"min_length": 300}, {}, "min_length must be below max_length"),
        ({}, {"n_best": 10}, "n_best: expected 1 to 9"),
    ):
        with pytest.raises(UserError, match=words):
            batcher.make_options(changes, **options)
    batcher.close(5)


def test_translators_are_cached_by_settings_and_the_original_is_reused(recorder):
    batcher = Batcher(recorder, Limits(max_wait=0))
    for beam_size in (5, 1, 2, 3, 1, 2, 3, 5):
        assert texts(batcher.submit(["a"], Options(SearchSettings(beam_size=beam_size)))) == [f"a {beam_size}"]
    assert [made["beam_size"] for made in recorder.made] == [1, 2, 3]
    for beam_size in range(6, 6 + MAX_SETTINGS):  # these replace them in the cache
        texts(batcher.submit(["a"], Options(SearchSettings(beam_size=beam_size))))
    recorder.made.clear()
    texts(batcher.submit(["a"], GREEDY))
    assert [made["beam_size"] for made in recorder.made] == [1]
    batcher.close(5)


def test_equal_options_share_a_batch_although_they_are_different_objects(recorder, held):
    futures = [held.submit([text], Options(SearchSettings(beam_size=7)))[0] for text in "abc"]
    recorder.may_go.set()
    assert texts(futures) == ["a 7", "b 7", "c 7"]
    assert [asked for asked, _ in recorder.asked[1:]] == [["a", "b", "c"]]


class Clock:
    """Seconds that pass only while something is translated."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow(Recorder):
    """Is as fast as the demo's model on two cores: 1,920,000 units of work took it 244 s."""

    def __init__(self, clock, *rest):
        super().__init__(*rest)
        self.clock = clock
        self.ended = {}  # time by text

    def with_settings(self, **changes):
        return Slow(self.clock, change_settings(self.settings, changes), self.original)

    def translate_batch(self, texts, **options):
        found = super().translate_batch(texts, **options)
        self.clock.now += sum(len(text.split()) + 1 for text in texts) * self.settings.beam_size / 7870
        self.original.ended |= dict.fromkeys(texts, self.clock.now)
        return found


def test_other_clients_wait_for_one_batch_of_a_client_with_much_work():
    """200 texts of half a second each wait. Those of others are next, whatever their options."""
    clock = Clock()
    translator = Slow(clock)
    translator.may_go.clear()
    batcher = Batcher(translator, Limits(max_wait=0), clock=clock)
    heavy = batcher.submit(
        [f"{n} " + "word " * 59 for n in range(200)], Options(SearchSettings(beam_size=64)), client="a"
    )
    while batcher.num_waiting == 200:
        time.sleep(0.001)
    light = batcher.submit(["one"], Options(SearchSettings()), client="b")
    light += batcher.submit(["two"], Options(SearchSettings(beam_size=64)), client="c")
    translator.may_go.set()
    texts(light)
    assert max(translator.ended[text] for text in ("one", "two")) < 2
    for future in heavy:
        future.cancel()
    batcher.close(5)


def test_a_batch_holds_about_half_a_second_of_work():
    clock = Clock()
    translator = Slow(clock)
    translator.may_go.clear()
    batcher = Batcher(translator, Limits(max_wait=0, max_batch=32), clock=clock)
    futures = batcher.submit(["word " * 19] * 800, Options(SearchSettings(beam_size=10)))  # 700 units of work each
    translator.may_go.set()
    texts(futures)
    sizes = [len(asked) for asked, _ in translator.asked]
    assert sizes[0] == 23  # 16,100 units, as long as the speed is not known
    assert sizes[-2] == 19  # 13,300 units
    batcher.close(5)


def test_a_client_that_left_takes_no_more_than_the_batch_in_progress(recorder, held):
    gone = held.submit(["a", "b", "c"], GREEDY, client="gone")
    stays = held.submit(["d"], GREEDY, client="stays")
    for future in gone:
        future.cancel()
    recorder.may_go.set()
    assert texts(stays) == ["d 1"]
    assert recorder.asked[1:] == [(["d"], GREEDY)]


def test_one_client_cannot_fill_the_queue_of_others(recorder, held):
    for client in "abcd":
        held.submit(["x"] * (5 if client == "a" else 6), GREEDY, client=client)
        with pytest.raises(RequestError, match=r"[56] of 6 places are taken"):
            held.submit(["x"] * 2, GREEDY, client=client)
    held.submit(["x"], GREEDY, client="e")
    with pytest.raises(RequestError, match="24 of 24 places are taken"):
        held.submit(["x"], GREEDY, client="f")


def test_at_most_four_other_settings_are_kept_and_the_rest_is_released():
    made = []

    class Counted(Recorder):
        def with_settings(self, **changes):
            other = Counted(change_settings(self.settings, changes), self.original)
            if len(changes) > 1:  # not only asked whether the settings are valid
                made.append(weakref.ref(other))
            return other

    batcher = Batcher(Counted(), Limits(max_wait=0))
    for n in range(20):
        options = batcher.make_options({"length_penalty": 2 + n / 100})
        assert texts(batcher.submit(["a"], options)) == ["a 5"]
    texts(batcher.submit(["a"], batcher.make_options()))  # the thread lets go of what it used last
    gc.collect()
    # The model's own settings are one of those kept.
    assert len(made) == 20 and sum(one() is not None for one in made) <= MAX_SETTINGS
    batcher.close(5)
