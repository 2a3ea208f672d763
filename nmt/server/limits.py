"""Limits of a server, and the errors of requests that exceed them."""

import asyncio
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

from nmt.errors import RequestError

# The queue has this many times `max_queue` places, while one client can take `max_queue` of them.
QUEUE_SHARE = 4


@dataclass(frozen=True)
class Limits:
    """Limits of a server's memory and of its response times."""

    max_body: int = 1 << 20
    """Bytes of a request's body."""
    max_texts: int = 128
    """Texts per request."""
    max_bodies: int = 1 << 26
    """Bytes of the bodies of all requests together, except for small ones."""
    max_characters: int = 10_000
    """Characters per text, after Unicode normalization."""
    max_work: int = 2_000_000
    """Source tokens, and the tokens that translations may have, times beam size, per request."""
    max_queue: int = 1024
    """Texts, or parts of long texts, of one client that wait to be translated."""
    max_connections: int = 1000
    """Connections open at a time."""
    max_batch: int = 32
    """Texts translated together."""
    max_wait: float = 0.005
    """Seconds that a text waits for others to be translated with."""
    timeout: float = 30.0
    """Seconds until a request must have arrived, and then again until its response must be ready."""


def check_texts(texts: Sequence[str], limits: Limits, name: str = "text") -> None:
    """Raises a RequestError with status 400 if there are too many texts, or if one of them is too long.

    Args:
        texts: of a request.
        limits: max_texts and max_characters.
        name: of such a text, for the message.
    """
    if len(texts) > limits.max_texts:
        raise RequestError(
            400,
            f"A request can contain at most {limits.max_texts:,} {name}s, found {len(texts):,}. Send several requests.",
        )
    for number, text in enumerate(texts):
        if len(text) > limits.max_characters:
            raise _make_length_error(limits, f"found {len(text):,}", f"{name} {number}")
        if (length := count_characters(text)) > limits.max_characters:
            raise _make_length_error(
                limits, f"found {len(text):,} that the model reads as {length:,}", f"{name} {number}"
            )


def count_characters(text: str) -> int:
    """Returns the characters of a text after Unicode normalization (NFKC), which writes U+FDFA as 18 characters.

    Characters are counted one by one. A text whose normalized characters are combined is a little shorter.
    """
    if text.isascii():
        return len(text)
    return sum(number * _expand(character) for character, number in Counter(text).items())


@lru_cache(1 << 14)
def _expand(character: str) -> int:
    return len(unicodedata.normalize("NFKC", character))


def _make_length_error(limits: Limits, found: str, place: str) -> RequestError:
    return RequestError(
        400,
        f"A text can have at most {limits.max_characters:,} characters, {found} in {place} (counted from 0). Split it.",
    )


@asynccontextmanager
async def limit_time(limits: Limits) -> AsyncIterator[None]:
    """Cancels the block after `limits.timeout` seconds with a RequestError, status 504."""
    try:
        async with asyncio.timeout(limits.timeout):
            yield
    except TimeoutError as error:
        raise RequestError(
            504, f"The translation took longer than {limits.timeout:g} s. Send less text, or try again later."
        ) from error
