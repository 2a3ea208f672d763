"""What a person sees of long work and large files: a progress bar on a terminal, sizes in megabytes, counts."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def format_bytes(size: float) -> str:
    """Returns a size in megabytes of 1,000,000 bytes each, the only unit of memory and disk that nmt prints.

    >>> format_bytes(123_456), format_bytes(98_760_000), format_bytes(1_234_567_890)
    ('0.1 MB', '98.8 MB', '1,235 MB')
    """
    megabytes = size / 1e6
    return f"{megabytes:,.0f} MB" if megabytes >= 100 else f"{megabytes:.1f} MB"


def format_count(number: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> format_count(1, "line"), format_count(1200, "line")
    ('1 line', '1,200 lines')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@contextmanager
def show_byte_progress() -> Iterator[Callable[[int, int | None], None] | None]:
    """Yields a callback (bytes done, bytes in total or None) that moves a bar, or None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    # Imported here, since only downloads on a terminal need it.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        yield lambda done, total: progress.update(task, completed=done, total=total)
