from benchmarks.table import ratio, render


def system(title, speeds):
    runs = [{"pieces_per_second": speed, "peak_mb": 1000, "startup_seconds": 5.0} for speed in speeds]
    return {"title": title, "description": "as described", "runs": runs, "beside": []}


RECORD = {
    "date": "2026-01-02",
    "command": "python -m benchmarks training",
    "machine": "A machine",
    "other_cores": 0.0,
    "versions": {"nmt": {"nmt": "0"}, "Peer A": {"torch": "1"}},
    "settings": {"threads": 2},
    "text": {"name": "Some text", "num_train": 29000, "num_pieces": 8000},
}


def test_parts_that_were_not_measured_say_so_and_hold_no_figures():
    page = render({})
    assert page.count("Not measured yet: `python -m benchmarks ") == 8
    assert "|" not in page


def test_training_states_ratios_shares_and_failures():
    peer = {**system("Peer A", [1000, 1000, 1000]), "beside": system("nmt", [4000, 4400, 3600])["runs"]}
    failed = {**system("Peer B", []), "failed": "long story\nno such library"}
    systems = {"nmt": system("nmt", [4000, 4400, 3600]), "a": peer, "b": failed}
    ceiling = {
        "size": 2048,
        "gflops": {"float32": [400.0], "bfloat16": [800.0]},
        "source_length": 15.0,
        "target_length": 16.0,
        "mflop_per_piece": {name: {"output": 30.0, "decoder": 20.0} for name in ("nmt", "Peer A", "Peer B")},
    }
    page = render(
        {
            "training": {**RECORD, "figures": {"window": [20, 220], "systems": systems}},
            "ceiling": {**RECORD, "figures": ceiling},
        }
    )
    # 4,000 tokens a second of 50 MFLOP are 200 of 400 GFLOP a second.
    assert "| nmt: as described | 4,000 (3,600–4,400) | – | 50.0 | 50 % | 1,000 (1,000–1,000) |" in page
    assert "| Peer A: as described | 1,000 (1,000–1,000) | 4.00 × (3.60–4.40) | 50.0 | 12 % |" in page
    assert "Peer B did not run to its end: no such library" in page
    provenance = "*2026-01-02, `python -m benchmarks training`. A machine; 2 threads; other work kept 0.00 cores busy."
    assert provenance in page
    assert "Some text: 29,000 training pairs, 8,000 pieces. nmt 0; torch 1.*" in page


def load(speed, **changes):
    times = {"p50_ms": 100.4, "p95_ms": 1200.0, "p99_ms": 1300.0}
    counts = {"checked": 2000, "wrong": 0, "swapped": 0, "statuses": {"200": 2000}, "cores": 0.05}
    return {"requests_per_second": speed, **times, **counts, **changes}


def test_load_is_compared_with_one_sentence_at_a_time():
    ways = {"one": {"1": load(10.0), "64": load(12.0)}, "batches": {"1": load(10.0), "64": load(48.0)}}
    page = render(
        {"serving": {**RECORD, "text": None, "figures": {"sentences": 200, "seconds": 25, "locust": "2", "ways": ways}}}
    )
    assert "| one | 64 | 12.0 | – | 100 | 1,200 | 1,300 | 0 of 2,000 | 0.05 |" in page
    assert "| batches | 64 | 48.0 | 4.00 × | 100 |" in page


def test_a_soak_tells_refusals_memory_and_what_was_lost():
    event = {"checked": 900, "wrong": 0, "swapped": 0, "statuses": {"200": 900, "0": 64, "503": 7}, "exit_code": 0}
    moments = {"away_seconds": 6.5, "answered_before": 400, "answered_after": 500, "lost_before": 0}
    figures = {
        **load(40.0, statuses={"200": 2000, "429": 30}),
        **{"minutes": 10.0, "clients": 64, "queue": 24, "lost": 0, "growth_mb": 1.04},
        "memory": [{"seconds": 0, "mb": 900}, {"seconds": 600, "mb": 1001}],
        "killed": {**event, **moments, "exit_code": -9, "lost_before": 61},
        "stopped": {**event, **moments, "printed": ""},
    }
    page = render({"soak": {**RECORD, "figures": figures}})
    assert "2,000 requests answered by 200, 30 by 429; 0 wrong answers, 0 of them another's; 0 without an" in page
    assert "Resident memory grew by 1.0 MB" in page and "| Resident, MB | 900 | 1,001 |" in page
    assert "400 answers before and 500 after; 900 requests answered by 200, 7 by 503;" in page
    assert "61 requests were lost with it." in page
    assert "0 requests sent before the signal stayed without an answer." in page


def test_unequal_numbers_of_runs_give_no_ratio():
    assert ratio([1.0, 2.0], [1.0]) == "–"
