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
    assert page.count("Not measured yet: `python -m benchmarks ") == 6
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
    provenance = (
        "*2026-01-02, `python -m benchmarks training`. A machine; 2 threads; other work kept at most 0.00 cores"
    )
    assert f"{provenance} busy in a run." in page
    assert "Some text: 29,000 training pairs, 8,000 pieces. nmt 0; torch 1.*" in page


def test_unequal_numbers_of_runs_give_no_ratio():
    assert ratio([1.0, 2.0], [1.0]) == "–"
