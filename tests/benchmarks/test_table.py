from benchmarks.table import compare, render


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


def test_parts_that_were_not_measured_name_their_command_and_hold_no_figures():
    page = render({})
    assert page.count("Not measured yet: `python -m benchmarks ") == 8
    assert "---:" not in page.partition("## Training speed")[2]


def test_training_shows_factors_shares_and_failures():
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
    # 4,000 tokens/s of 50 MFLOP each are 200 of 400 GFLOP/s.
    assert "| nmt | 4,000 (3,600–4,400) | – | 50.0 | 50 % | 1,000 (1,000–1,000) |" in page
    assert "| Peer A | 1,000 (1,000–1,000) | 4.00 × slower (3.60–4.40) | 50.0 | 12 % |" in page
    assert "Peer B failed: no such library" in page
    assert (
        "*2026-01-02, `python -m benchmarks training`. A machine, 2 threads. Other programs used 0.00 cores. " in page
    )
    assert "Some text: 29,000 training pairs, 8,000 tokens in the vocabulary. nmt 0. torch 1.*" in page


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
    assert "| batches | 64 | 48.0 | 4.00 × faster | 100 |" in page


def test_a_soak_shows_refusals_memory_and_lost_requests():
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
    assert "| Phase | HTTP 200 | HTTP 429 | HTTP 503 | Wrong | Swapped | Lost |" in page
    assert "| 10 minutes of overload | 2,000 | 30 | 0 | 0 | 0 | 0 |" in page
    assert "| killed and restarted | 900 | 0 | 7 | 0 | 0 | 61 |" in page
    assert "| stopped | 900 | 0 | 7 | 0 | 0 | 0 |" in page
    assert "grew by 1.0 MB" in page and "| Resident memory, MB | 900 | 1,001 |" in page
    assert "It gave 400 answers before and 500 after." in page
    assert "exited within 6.5 s with code 0." in page


def test_a_factor_is_never_below_one():
    assert compare([9.0], [6.0]) == "1.50 × faster (1.50–1.50)"
    assert compare([6.0], [9.0]) == "1.50 × slower (1.50–1.50)"


def test_unequal_numbers_of_runs_give_no_factor():
    assert compare([1.0, 2.0], [1.0]) == "–"
