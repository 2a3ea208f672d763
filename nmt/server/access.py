"""Which web pages and host names may use a server: browsers let every page send requests to servers on this machine."""

import ipaddress
import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from nmt.errors import RequestError, UserError

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
DEFAULT_PORT = re.compile(r":(?:80|443)$")


@dataclass(frozen=True)
class Access:
    """What `check` accepts."""

    origins: frozenset[str] = frozenset()
    """Origins of other sites' pages, such as https://example.com; "*" stands for all of them."""
    hosts: frozenset[str] | None = None
    """Names in the header Host, in lower case; None accepts every name."""

    def check(self, headers: MutableMapping[bytes, bytes], *, is_navigation: bool) -> None:
        """Refuses requests of other sites' pages, and those for other host names.

        A page elsewhere can have its own name resolve to this machine (DNS rebinding). Its requests then look like
        those of our own page, except for their Host. Addresses cannot be rebound like that and are accepted.

        Args:
            headers: of the request, the last one of each name.
            is_navigation: whether the user opens an address, so that no page reads the response.

        Raises:
            RequestError: 403; the message names the option that accepts the request.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host and self.hosts is not None:
            name = _read_name(host)
            if name not in self.hosts and not name.endswith(".localhost") and not _is_address(name):
                raise RequestError(
                    403, f"This server does not answer to the host name '{name[:80]}'. Allow it: --allow-host NAME."
                )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        site = headers.get(b"sec-fetch-site", b"").decode("latin-1").lower()
        if site in ("same-origin", "none") or is_navigation or "*" in self.origins or origin in self.origins:
            return
        if site or (origin and not _is_same_host(origin, host)):
            raise RequestError(
                403,
                f"This request was sent by a page of {origin[:80] or 'another site'}. Allow it: --allow-origin ORIGIN.",
            )


def make_access(host: str, origins: Iterable[str] = (), hosts: Iterable[str] = ()) -> Access:
    """Returns the access to a server that listens on an address.

    Args:
        host: address that the server listens on. On loopback, Host must name this machine.
        origins: of other sites' pages that are allowed; "*" allows all of them.
        hosts: further names that Host may have.

    Raises:
        UserError: an origin or a host is not valid.
    """
    allowed = frozenset(origin.lower().removesuffix("/") for origin in origins)
    for origin in allowed:
        if origin not in ("*", "null") and not ORIGIN.fullmatch(origin):
            raise UserError(f"--allow-origin: expected an origin such as https://example.com, found '{origin}'.")
    names = frozenset(name.lower() for name in hosts)
    for name in names:
        if not name or _read_name(name) != name or "/" in name:
            raise UserError(f"--allow-host: expected a name without a port, such as example.com, found '{name}'.")
    is_restricted = bool(names) or is_loopback(host)
    return Access(allowed, names | {"localhost", host.lower()} if is_restricted else None)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _read_name(host: str) -> str:
    """Returns the name in a Host header, without port, brackets and final dot."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]").removesuffix(".") if found else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_host(origin: str, host: str) -> bool:
    _, _, place = origin.partition("://")
    return DEFAULT_PORT.sub("", place) == DEFAULT_PORT.sub("", host)
