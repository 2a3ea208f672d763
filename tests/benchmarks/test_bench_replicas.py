import json
import os

from benchmarks.replicas import ARRANGEMENTS, _make_environments


def test_processes_know_each_other_and_share_the_processor():
    first, second = _make_environments(2)
    clusters = [json.loads(one["TF_CONFIG"]) for one in (first, second)]
    assert clusters[0]["cluster"] == clusters[1]["cluster"]
    assert len(set(clusters[0]["cluster"]["worker"])) == 2
    assert [one["task"] for one in clusters] == [{"type": "worker", "index": n} for n in (0, 1)]
    assert int(first["TF_NUM_INTRAOP_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_what_shares_nothing_is_told_nothing():
    assert _make_environments(1) == [{}]
    assert next(iter(ARRANGEMENTS)) == "1 device"  # with which the others are compared
