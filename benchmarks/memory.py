"""Measures whether memory stays flat while `nmt translate` works through a large file."""

from benchmarks.corpus import SOURCE, Text, add_noise, write_lines
from benchmarks.latency import translate_by_command
from benchmarks.ours import BFLOAT16
from benchmarks.ratios import pick_evenly
from benchmarks.settings import Settings
from benchmarks.training import get_model
from nmt.data.corpus import read_lines


def measure(settings: Settings, text: Text) -> dict:
    """Translates the test text repeatedly, with noise, and samples the resident memory."""
    model = get_model(settings, text, BFLOAT16)
    source = settings.work / "many-lines.txt"
    lines = read_lines(text.get_file("test", SOURCE))
    write_lines(source, add_noise(lines, settings.memory_lines, seed=1))
    run = translate_by_command(settings, model, source)
    print(f"memory: at most {run.peak_mb:.0f} MB in {run.seconds:.0f} s", flush=True)
    return {
        "lines": settings.memory_lines,
        "seconds": round(run.seconds, 1),
        "peak_mb": round(run.peak_mb),
        "course": [{"seconds": round(at, 1), "mb": round(mb)} for at, mb in pick_evenly(run.memory, 11)],
    }
