"""What a server takes, and how it refuses the rest."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nmt.errors import RequestError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server's memory and of its users' patience."""

    max_body: int = 1 << 20
    """Bytes of a request's body."""
    max_texts: int = 128
    """Texts a request."""
    max_characters: int = 10_000
    """Characters a text."""
    max_queue: int = 1024
    """Texts, or parts of long ones, that wait to be translated."""
    max_batch: int = 32
    """Texts translated together."""
    max_wait: float = 0.005
    """Seconds that a text waits for others to be translated with."""
    timeout: float = 30.0
    """Seconds in which a request must have arrived, and then again must be answered."""


def check_texts(texts: Sequence[str], limits: Limits) -> None:
    """Raises a RequestError, 400, where a request has too many texts or too long ones."""
    if len(texts) > limits.max_texts:
        raise RequestError(
            400, f"A request may hold at most {limits.max_texts:,} texts, found {len(texts):,}: send several requests."
        )
    for number, text in enumerate(texts):
        if len(text) > limits.max_characters:
            raise RequestError(
                400,
                f"A text may have at most {limits.max_characters:,} characters, found {len(text):,} in text {number} "
                "(counted from 0): divide it.",
            )


@asynccontextmanager
async def limit_time(limits: Limits) -> AsyncIterator[None]:
    """Ends what takes longer than `limits.timeout` with a RequestError, 504."""
    try:
        async with asyncio.timeout(limits.timeout):
            yield
    except TimeoutError as error:
        raise RequestError(
            504, f"No translation within {limits.timeout:g} s: send less, or come again later."
        ) from error
