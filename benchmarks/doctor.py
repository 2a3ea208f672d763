"""Measures how long `nmt doctor` takes on a large corpus: Multi30k repeated with noise."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpus import SOURCE, TARGET, Text
from benchmarks.scale import enlarge_text


def measure(text: Text, pairs: int, folder: Path, *, rounds: int) -> list[float]:
    """Returns the wall-clock seconds of the command for each round. Nothing is cached beforehand.

    Raises:
        subprocess.CalledProcessError: `nmt doctor` found a fatal problem. Its report is on standard output.
    """
    large = enlarge_text(text, pairs, folder / str(pairs))
    return [_measure_once(large) for _ in range(rounds)]


def _measure_once(text: Text) -> float:
    def name_side(part: str) -> dict[str, str]:
        return {"source": str(text.get_file(part, SOURCE)), "target": str(text.get_file(part, TARGET))}

    with tempfile.TemporaryDirectory() as folder:
        languages = {"source_language": SOURCE, "target_language": TARGET}
        config = Path(folder, "doctor.yaml")
        config.write_text(
            json.dumps(
                {
                    "run_dir": f"{folder}/run",
                    "data": {**languages, "train": [name_side("train")], "dev": name_side("dev")},
                    "training": {"max_updates": 1},
                }
            ),
            encoding="utf-8",
        )
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nmt", "doctor", str(config)], check=True)
        return time.perf_counter() - started
