"""The order of the queue, without a thread."""

from concurrent.futures import Future
from itertools import count

from nmt.config.schema import SearchSettings
from nmt.server.fair_queue import FairQueue, Job, Options

NARROW, WIDE = Options(SearchSettings(beam_size=1)), Options(SearchSettings(beam_size=9))
numbers = count()


def jobs(text, *, options=NARROW, work=1):
    return [Job(letter, options, work, Future(), 0.0, next(numbers)) for letter in text]


def take(queue, max_jobs=100, max_work=1000):
    lead = queue.find_next()
    return "".join(job.text for job in queue.remove_batch(lead, max_jobs=max_jobs, max_work=max_work))


def test_work_grows_with_tokens_of_text_and_translation_and_with_hypotheses():
    assert NARROW.estimate_work(9) == 10 + 30  # with EOS; twice the source and 10 more
    assert WIDE.estimate_work(9) == 9 * 40
    assert Options(SearchSettings(beam_size=2), n_best=5).estimate_work(9) == 5 * 40
    assert Options(SearchSettings(beam_size=1, max_length=20)).estimate_work(9) == 10 + 20
    assert Options(SearchSettings(beam_size=1, max_length_ratio=12.5)).estimate_work(9) == 10 + 135
    assert Options(SearchSettings(beam_size=1, max_length_ratio=100)).estimate_work(9) == 10 + 256


def test_clients_take_turns():
    queue = FairQueue()
    queue.add("one", jobs("abcd"))
    queue.add("two", jobs("xy"))
    assert take(queue) == "axbycd"
    assert len(queue) == queue.work == 0


def test_a_client_with_longer_texts_has_fewer_turns():
    queue = FairQueue()
    queue.add("long", jobs("AB", work=3))
    queue.add("short", jobs("abcde"))
    assert take(queue) == "AabcBde"


def test_a_client_that_comes_later_is_next_and_owes_nothing():
    queue = FairQueue()
    queue.add("one", jobs("abcdef"))
    assert take(queue, 4) == "abcd"
    queue.add("two", jobs("xyz"))
    # From now on they take turns: what was taken before counts for neither.
    assert take(queue, 4) == "xeyf"


def test_the_next_batch_has_the_options_of_the_client_whose_turn_it_is():
    queue = FairQueue()
    queue.add("one", jobs("ab") + jobs("AB", options=WIDE))
    queue.add("two", jobs("X", options=WIDE) + jobs("x"))
    assert take(queue) == "axb"
    assert (queue.count_matching(NARROW), queue.count_matching(WIDE)) == (0, 3)
    assert take(queue) == "XAB"


def test_a_batch_ends_before_it_is_too_much_work_but_holds_at_least_one_text():
    queue = FairQueue()
    queue.add("one", jobs("abc", work=4))
    assert take(queue, max_work=9) == "ab"
    assert take(queue, max_work=3) == "c"


def test_cancelled_texts_are_dropped_and_cost_no_turn():
    queue = FairQueue()
    gone = jobs("abc", work=5)
    queue.add("gone", gone)
    queue.add("stays", jobs("xy"))
    for job in gone:
        job.result.cancel()
    assert queue.find_next().text == "x"
    assert (len(queue), queue.work, queue.count("gone"), queue.count("stays")) == (2, 2, 0, 2)
    queue.add("gone", half := jobs("de"))
    half[0].result.cancel()
    queue.drop_cancelled()
    assert (len(queue), queue.work, queue.count("gone")) == (3, 3, 1)
    assert sorted(take(queue)) == ["e", "x", "y"]
    assert queue.find_next() is None
