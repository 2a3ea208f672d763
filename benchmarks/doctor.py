"""Measures how long `nmt doctor` takes on a large corpus: Multi30k repeated with noise."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpus import SOURCE, TARGET, Text
from benchmarks.scale import enlarged


def measure(text: Text, pairs: int, folder: Path, *, rounds: int) -> list[float]:
    """Returns the wall-clock seconds of the command for each round. Nothing is cached beforehand.

    Raises:
        subprocess.CalledProcessError: `nmt doctor` found a fatal problem. Its report is on standard output.
    """
    large = enlarged(text, pairs, folder / str(pairs))
    return [_seconds(large) for _ in range(rounds)]


def _seconds(text: Text) -> float:
    def side(part: str) -> dict[str, str]:
        return {"source": str(text.file(part, SOURCE)), "target": str(text.file(part, TARGET))}

    with tempfile.TemporaryDirectory() as folder:
        languages = {"source_language": SOURCE, "target_language": TARGET}
        config = Path(folder, "doctor.yaml")
        config.write_text(
            json.dumps(
                {
                    "run_dir": f"{folder}/run",
                    "data": {**languages, "train": [side("train")], "dev": side("dev")},
                    "training": {"max_updates": 1},
                }
            ),
            encoding="utf-8",
        )
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nmt", "doctor", str(config)], check=True)
        return time.perf_counter() - started
