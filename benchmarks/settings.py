"""What every system is given alike: sizes, batch, optimisation, threads; and how long each part measures."""

import os
from dataclasses import dataclass
from pathlib import Path

WORK = Path(__file__).parent / ".work"
RESULTS = Path(__file__).parent / "results"

EMBEDDING_UNITS = 256
ENCODER_UNITS = 256
"""Of each of the two directions."""
DECODER_UNITS = 512
NUM_PIECES = 8000
BATCH_SENTENCES = 64
DROPOUT = 0.3
LABEL_SMOOTHING = 0.1
LEARNING_RATE = 1e-3
CLIP_NORM = 1.0
MAX_LENGTH = 100
"""Most pieces of a training sentence and of a translation."""
BEAM_SIZE = 5


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    threads: int
    rounds: int
    """Alternating runs of each system."""
    updates: int
    """Of the training whose model is then scored and translates."""
    window: tuple[int, int]
    """Speed is measured after the first of these updates until the second is done."""
    test_lines: int
    """Lines translated for sentences a second."""
    latency_lines: int
    """Sentences translated one by one."""
    memory_lines: int
    """Lines translated while memory is watched."""
    scale_pairs: tuple[int, ...]
    """Sizes of training text."""
    serving_seconds: float
    """Of load on a server, for each number of clients."""
    quick: bool

    @property
    def work(self) -> Path:
        """Folder for texts and models; hasty models never pass for others."""
        return WORK / ("quick" if self.quick else "full")

    @property
    def results(self) -> Path:
        """Folder of the results; hasty figures are not for the page."""
        return WORK / "quick" / "results" if self.quick else RESULTS


def make_settings(
    *, quick: bool, threads: int | None = None, rounds: int | None = None, updates: int | None = None
) -> Settings:
    """The settings of a full measurement, or of a hasty one that only shows that everything works."""
    threads = threads or len(os.sched_getaffinity(0))
    if quick:
        return Settings(
            threads=threads,
            rounds=rounds or 1,
            updates=updates or 12,
            window=(4, 12),
            test_lines=64,
            latency_lines=10,
            memory_lines=2000,
            scale_pairs=(30_000, 120_000),
            serving_seconds=3,
            quick=True,
        )
    return Settings(
        threads=threads,
        rounds=rounds or 3,
        updates=updates or 600,
        window=(20, 70),
        test_lines=1000,
        latency_lines=200,
        memory_lines=100_000,
        scale_pairs=(30_000, 3_000_000),
        serving_seconds=25,
        quick=False,
    )
