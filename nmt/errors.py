"""The user's mistakes: what is wrong, where, and how to mend it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that its maker can mend.

    The message names the place (file and line, or configuration key), what was found and what was expected. The command
    line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the valid name closest to `name`, or "" where none is close."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
