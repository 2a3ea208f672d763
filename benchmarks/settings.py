"""Settings that all systems share (sizes, batch, optimizer, threads), and the extent of each part."""

from dataclasses import dataclass
from pathlib import Path

from nmt.process import count_cpus

WORK = Path(__file__).parent / ".work"
RESULTS = Path(__file__).parent / "results"

EMBEDDING_UNITS = 256
ENCODER_UNITS = 256
"""Per direction."""
DECODER_UNITS = 512
VOCABULARY_SIZE = 8000
BATCH_SENTENCES = 64
DROPOUT = 0.3
LABEL_SMOOTHING = 0.1
LEARNING_RATE = 1e-3
CLIP_NORM = 1.0
MAX_LENGTH = 100
"""Maximum number of tokens in a training sentence and in a translation."""
BEAM_SIZE = 5


@dataclass(frozen=True)
class Settings:
    """The extent of the measurements."""

    threads: int
    rounds: int
    """Alternating runs per system."""
    updates: int
    """Training updates of the models that translate."""
    window: tuple[int, int]
    """Training speed is measured from the end of the first of these updates to the end of the second."""
    test_lines: int
    """Lines translated to measure sentences per second."""
    latency_lines: int
    """Sentences translated one by one."""
    memory_lines: int
    """Lines translated while memory is sampled."""
    scale_pairs: tuple[int, ...]
    """Sizes of the training text, in pairs."""
    serving_seconds: float
    """Seconds of load on a server, per number of clients."""
    quick: bool

    @property
    def work(self) -> Path:
        """Folder for texts and models. Quick runs have their own."""
        return WORK / ("quick" if self.quick else "full")

    @property
    def results(self) -> Path:
        """Folder of the results. Those of quick runs are not published."""
        return WORK / "quick" / "results" if self.quick else RESULTS


def make_settings(
    *, quick: bool, threads: int | None = None, rounds: int | None = None, updates: int | None = None
) -> Settings:
    """Returns the settings of a full measurement, or of a quick test."""
    threads = threads or count_cpus()
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
