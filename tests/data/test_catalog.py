import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nmt.data import fetching
from nmt.data.catalog import CatalogEntry, download, download_entry, hold_out, load_catalog
from nmt.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no corpora at {SHARED}")

SIDES = {
    "train.en-de.en.gz": ("train", 0),
    "train.en-de.de.gz": ("train", 1),
    "dev.en-de.en.gz": ("dev", 0),
    "dev.en-de.de.gz": ("dev", 1),
}


class Server:
    """A web server on loopback whose pages are `pages[path]`; it notes each Range asked for ("" for the whole).

    A page of `tricks` is not sent but called, with the request handler.
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.tricks: dict[str, Callable[[Any], None]] = {}
        self.ranges: list[str] = []
        self.knows_ranges = True
        self.tells_length = True
        self.cut_after: int | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client has seen enough
                    server.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        if trick := self.tricks.get(request.path):
            return trick(request)
        page = self.pages.get(request.path)
        if page is None:
            return request.send_error(404)
        start = int(asked[len("bytes=") : -1]) if asked and self.knows_ranges else 0
        if start >= len(page):
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(page) - 1}/{len(page)}")
        if self.tells_length:
            request.send_header("Content-Length", str(len(page) - start))
        request.end_headers()
        request.wfile.write(page[start:][: self.cut_after])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture(autouse=True)
def no_mirror_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NMT_MIRROR", raising=False)


def entry(address: str, files: dict[str, dict[str, Any]], **more: Any) -> CatalogEntry:
    files = {name: {"max_bytes": 1_000_000} | file for name, file in files.items()}
    resource = {"address": address, "max_bytes": 1_000_000, "files": files} | more
    terms = {"title": "A toy", "home": "http://toy.example", "licence": "CC0", "note": "Small."}
    return CatalogEntry.model_validate({"name": "toy", "resources": [resource]} | terms)


def tabbed(address: str, held_out: int, **more: Any) -> CatalogEntry:
    files = {
        name: {"lines": [], "member": "deu.txt", "side": {"part": part, "column": column}}
        for name, (part, column) in SIDES.items()
    }
    return entry(address, files, held_out=held_out, grows=True, **more)


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]


def quiet(text: str) -> None:
    pass


# Half a megabyte that does not shrink, so that a transfer has many chunks and a middle.
NOISE = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(16384))


def test_a_file_is_fetched_unchanged_and_a_correct_one_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    content = gzip.compress(b"one\ntwo\n")
    server.pages["/a/train.en.gz"] = content
    toy = entry(f"{server.address}/a/train.en.gz", {"train.en.gz": {"lines": [2], "sha256": sha256(content)}})
    into = tmp_path / "new" / "toy"
    assert download_entry(toy, into=into, log=quiet) == [into / "train.en.gz"]
    assert (into / "train.en.gz").read_bytes() == content
    assert names(into) == ["train.en.gz"]
    assert download_entry(toy, into=into, log=quiet) == [into / "train.en.gz"]
    assert len(server.ranges) == 1
    (into / "train.en.gz").write_bytes(content[:-1])
    download_entry(toy, into=into, log=quiet)
    assert (into / "train.en.gz").read_bytes() == content


def test_the_folder_of_a_killed_download_is_removed_by_the_next(server: Server, tmp_path: Path) -> None:
    server.pages["/text.en"] = b"one\ntwo\n"
    left, own = (tmp_path / f".download.{process}.part" for process in (1 << 22, os.getppid()))
    for folder in (left, own):  # process numbers end below the first one; the second one is alive
        folder.mkdir()
        (folder / "text.en").write_text("half")
    found = entry(f"{server.address}/text.en", {"text.en": {"lines": [2]}})
    download_entry(found, into=tmp_path, log=quiet)
    assert names(tmp_path) == [own.name, "text.en"]


def test_licence_and_origin_are_logged_before_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.pages["/train.en"] = b"one\n"
    told: list[tuple[int, str]] = []
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [1]}})
    download_entry(toy, into=tmp_path, log=lambda text: told.append((len(server.ranges), text)))
    assert [requests for requests, _ in told] == [0, 0]
    assert "Licence: CC0" in told[0][1] and "http://toy.example" in told[0][1]
    assert f"{server.address}/train.en" in told[1][1]


@pytest.mark.parametrize("tells_length", [True, False])
def test_progress_rises_to_the_total(server: Server, tmp_path: Path, tells_length: bool) -> None:
    server.pages["/train.en"] = NOISE
    server.tells_length = tells_length
    told: list[tuple[int, int | None]] = []
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    download_entry(toy, into=tmp_path, log=quiet, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 1 and told[-1] == (len(NOISE), len(NOISE) if tells_length else None)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_cut_transfer_resumes_where_it_stopped(server: Server, tmp_path: Path, knows_ranges: bool) -> None:
    server.pages["/train.en"] = NOISE
    server.cut_after = 200_000
    server.knows_ranges = knows_ranges
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    with pytest.raises(UserError, match=r"cut off after 200000 of 524288 bytes.*train\.en\.part.*same command resumes"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == ["train.en.part"]
    assert (tmp_path / "train.en.part").read_bytes() == NOISE[:200_000]
    server.cut_after = None
    download_entry(toy, into=tmp_path, log=quiet)
    assert server.ranges == ["", "bytes=199999-"]
    assert names(tmp_path) == ["train.en"]
    assert (tmp_path / "train.en").read_bytes() == NOISE


def test_an_interrupt_leaves_the_part_and_nothing_else(server: Server, tmp_path: Path) -> None:
    server.pages["/train.en"] = NOISE
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})

    def interrupt(done: int, total: int | None) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_entry(toy, into=tmp_path, log=quiet, progress=interrupt)
    assert names(tmp_path) == ["train.en.part"]
    kept = (tmp_path / "train.en.part").read_bytes()
    assert 0 < len(kept) < len(NOISE) and NOISE.startswith(kept)


def test_a_complete_part_is_used(server: Server, tmp_path: Path) -> None:
    server.pages["/train.en"] = NOISE
    (tmp_path / "train.en.part").write_bytes(NOISE)
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    download_entry(toy, into=tmp_path, log=quiet)
    assert server.ranges == [f"bytes={len(NOISE) - 1}-"]
    assert (tmp_path / "train.en").read_bytes() == NOISE


def test_a_part_longer_than_the_published_file_is_replaced(server: Server, tmp_path: Path) -> None:
    server.pages["/train.en"] = b"one\n"
    (tmp_path / "train.en.part").write_bytes(NOISE)
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [1]}})
    download_entry(toy, into=tmp_path, log=quiet)
    assert (tmp_path / "train.en").read_bytes() == b"one\n"
    assert names(tmp_path) == ["train.en"]


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.pages["/train.en"] = b"one\n"
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [1], "sha256": sha256(b"two\n")}})
    found, expected = sha256(b"one\n"), sha256(b"two\n")
    with pytest.raises(UserError, match=rf"train\.en from http.* has SHA-256 {found}, expected SHA-256 {expected}"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_wrong_line_count_leaves_nothing_of_the_whole_archive(server: Server, tmp_path: Path) -> None:
    server.pages["/toy.zip"] = zipped({"dev.en": b"one\ntwo\n", "dev.de": b"eins\nzwei\ndrei"})
    files = {"dev.en": {"lines": [2, 5], "member": "dev.en"}, "dev.de": {"lines": [2, 5], "member": "dev.de"}}
    with pytest.raises(UserError, match=r"dev\.de from http.*toy\.zip has 3 lines, expected 2 lines or 5 lines"):
        download_entry(entry(f"{server.address}/toy.zip", files), into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_failed_download_leaves_an_older_file_alone(server: Server, tmp_path: Path) -> None:
    server.pages["/dev.en"] = b"one\n"
    (tmp_path / "dev.en").write_bytes(b"my\nown\n")
    with pytest.raises(UserError, match="has 1 lines, expected 3 lines"):
        download_entry(entry(f"{server.address}/dev.en", {"dev.en": {"lines": [3]}}), into=tmp_path, log=quiet)
    assert (tmp_path / "dev.en").read_bytes() == b"my\nown\n"


def test_a_damaged_packed_file_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.pages["/dev.en.gz"] = gzip.compress(b"one\n")[:-4]
    with pytest.raises(UserError, match=r"dev\.en\.gz is damaged.*not kept"):
        download_entry(entry(f"{server.address}/dev.en.gz", {"dev.en.gz": {"lines": [1]}}), into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_missing_page_is_an_error_that_suggests_a_mirror(server: Server, tmp_path: Path) -> None:
    toy = entry(f"{server.address}/gone.en", {"gone.en": {"lines": [1]}})
    message = r"gone\.en answers 404 Not Found\. .*--mirror DIR \(or NMT_MIRROR\), a folder that contains toy/FILE"
    with pytest.raises(UserError, match=message):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_missing_network_is_an_error_that_suggests_a_mirror(server: Server, tmp_path: Path) -> None:
    server.http.shutdown()
    server.http.server_close()
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match=r"Cannot reach http://127.*/dev\.en: .*refused.*--mirror DIR"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    toy = entry("http://127.0.0.1/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match=rf"Cannot write toy to .*file: .*{errno.EEXIST}"):
        download_entry(toy, into=tmp_path / "file", log=quiet)


def answer(request: Any, status: int, headers: dict[str, object], body: bytes = b"") -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, str(value))
    request.end_headers()
    request.wfile.write(body)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-524287/524288",
        "bytes 300000-524287/524288",
        "bytes 199998-524287/524288",
        "items 199999-524287/524288",
        "bytes 199999-",
        f"bytes 199999-{'9' * 5000}/{'9' * 5000}",
        "",
    ],
)
def test_another_range_than_requested_is_not_joined(server: Server, tmp_path: Path, content_range: str) -> None:
    def trick(request: Any) -> None:
        if request.headers.get("Range"):
            answer(request, 206, {"Content-Range": content_range}, b"wrong")
        else:
            answer(request, 200, {"Content-Length": len(NOISE)}, NOISE)

    server.tricks["/train.en"] = trick
    (tmp_path / "train.en.part").write_bytes(NOISE[:200_000])
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    download_entry(toy, into=tmp_path, log=quiet)
    assert server.ranges == ["bytes=199999-", ""]
    assert (tmp_path / "train.en").read_bytes() == NOISE


@pytest.mark.parametrize("status", [206, 204])
def test_an_answer_that_is_not_the_whole_is_refused(server: Server, tmp_path: Path, status: int) -> None:
    server.tricks["/dev.en"] = lambda request: answer(request, status, {"Content-Range": "bytes 4-7/8"})
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(
        UserError, match=rf"dev\.en answers {status} with Content-Range 'bytes 4-7/8' to a plain request"
    ):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_range_that_ends_before_the_file_counts_as_cut_off(server: Server, tmp_path: Path) -> None:
    headers = {"Content-Range": "bytes 9-19/524288", "Content-Length": 11}
    server.tricks["/train.en"] = lambda request: answer(request, 206, headers, NOISE[9:20])
    (tmp_path / "train.en.part").write_bytes(NOISE[:10])
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    with pytest.raises(UserError, match="cut off after 20 of 524288 bytes"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert (tmp_path / "train.en.part").read_bytes() == NOISE[:20]


def test_an_announced_size_beyond_the_limit_is_refused_before_the_first_byte(server: Server, tmp_path: Path) -> None:
    server.tricks["/dev.en"] = lambda request: answer(request, 200, {"Content-Length": 5_000_000_000})
    told: list[int] = []
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match=r"dev\.en sends more than the 1,000,000 bytes that are expected at most"):
        download_entry(toy, into=tmp_path, log=quiet, progress=lambda done, total: told.append(done))
    assert names(tmp_path) == [] and told == []


@pytest.mark.parametrize("start", [0, 100])
def test_an_endless_file_is_refused_at_the_limit(server: Server, tmp_path: Path, start: int) -> None:
    def trick(request: Any) -> None:
        asked = bool(request.headers.get("Range"))
        answer(request, 206 if asked else 200, {"Content-Range": "bytes 99-199/*"} if asked else {})
        while True:
            request.wfile.write(NOISE)

    server.tricks["/dev.en"] = trick
    if start:
        (tmp_path / "dev.en.part").write_bytes(NOISE[:start])
    told: list[int] = []
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match="sends more than the 1,000,000 bytes"):
        download_entry(toy, into=tmp_path, log=quiet, progress=lambda done, total: told.append(done))
    assert names(tmp_path) == [] and 900_000 < max(told) <= 1_000_000


@pytest.mark.parametrize(
    "address",
    ["http://example.org/dev.en", "ftp://example.org/dev.en", "file:///etc/hostname", "//example.org", "http://[::1"],
)
def test_only_https_is_followed_in_a_redirect(server: Server, tmp_path: Path, address: str) -> None:
    server.tricks["/dev.en"] = lambda request: answer(request, 302, {"Location": address})
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match=r"redirects to .*; only https:// is followed|Cannot reach"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == [] and server.ranges == [""]


def test_a_redirect_is_followed_and_keeps_the_range(server: Server, tmp_path: Path) -> None:
    server.pages["/moved"] = NOISE
    server.tricks["/train.en"] = lambda request: answer(request, 302, {"Location": f"{server.address}/moved"})
    (tmp_path / "train.en.part").write_bytes(NOISE[:100])
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    download_entry(toy, into=tmp_path, log=quiet)
    assert server.ranges == ["bytes=99-"] * 2
    assert (tmp_path / "train.en").read_bytes() == NOISE


def test_the_body_of_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    sent: list[int] = []

    def trick(request: Any) -> None:
        answer(request, 302, {"Location": f"{server.address}/moved"})
        while len(sent) < 1000:
            request.wfile.write(NOISE)
            sent.append(len(NOISE))

    server.tricks["/dev.en"] = trick
    server.pages["/moved"] = b"one\n"
    download_entry(entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}}), into=tmp_path, log=quiet)
    assert sum(sent) < 50_000_000


def test_a_circle_of_redirects_ends(server: Server, tmp_path: Path) -> None:
    server.tricks["/dev.en"] = lambda request: answer(request, 302, {"Location": f"{server.address}/dev.en"})
    toy = entry(f"{server.address}/dev.en", {"dev.en": {"lines": [1]}})
    with pytest.raises(UserError, match=r"dev\.en redirects more than 10 times"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert len(server.ranges) < 20


@pytest.mark.parametrize(
    ("address", "origin", "allowed"),
    [
        ("https://example.org/a", None, True),
        ("https://example.org/a", "https://example.com/", True),
        ("http://127.0.0.1:8000/a", None, True),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:9000/", True),
        ("http://127.0.0.1:8000/a", "https://example.org/", False),
        ("http://127.0.0.1@example.org/a", None, False),
        ("http://localhost/a", None, False),
        ("http://example.org/a", None, False),
        ("ftp://example.org/a", None, False),
        ("/etc/hostname", None, False),
    ],
)
def test_allowed_addresses(address: str, origin: str | None, allowed: bool) -> None:
    assert fetching.is_allowed_address(address, origin=origin) == allowed


def test_the_catalog_itself_cannot_name_plain_http() -> None:
    with pytest.raises(ValidationError, match="expected https://, found http://example"):
        entry("http://example.org/dev.en", {"dev.en": {"lines": [1]}})


def test_control_bytes_of_a_server_are_not_printed(server: Server, tmp_path: Path) -> None:
    def trick(request: Any) -> None:
        request.wfile.write(b"HTTP/1.1 500 \x1b[2J\x9b31mRed\r\n\r\n")

    server.tricks["/a.en"] = trick
    server.tricks["/b.en"] = lambda request: answer(request, 302, {"Location": "ftp://a/\x1b[2J\x07\x7f"})
    for name in ("a.en", "b.en"):
        with pytest.raises(UserError) as raised:
            download_entry(entry(f"{server.address}/{name}", {name: {"lines": [1]}}), into=tmp_path, log=quiet)
        assert str(raised.value).isprintable() and "[2J" in str(raised.value)


def put_link(part: Path, victim: Path) -> None:
    part.symlink_to(victim)


def put_dangling_link(part: Path, victim: Path) -> None:
    part.symlink_to(victim.with_name("nothing"))


def put_hard_link(part: Path, victim: Path) -> None:
    part.hardlink_to(victim)


def put_fifo(part: Path, victim: Path) -> None:
    os.mkfifo(part)


@pytest.mark.parametrize("put", [put_link, put_dangling_link, put_hard_link, put_fifo])
def test_a_part_that_is_a_link_is_not_written_through(
    server: Server, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    server.pages["/train.en"] = NOISE
    (tmp_path / "into").mkdir()
    (tmp_path / "victim").write_bytes(b"precious")
    put(tmp_path / "into" / "train.en.part", tmp_path / "victim")
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    with pytest.raises(UserError, match=r"train\.en\.part is a link or not an ordinary file.*Remove it"):
        download_entry(toy, into=tmp_path / "into", log=quiet)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert names(tmp_path) == ["into", "victim"] and server.ranges == []


def test_a_link_that_appears_while_the_server_answers_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "victim").write_bytes(b"precious")

    def trick(request: Any) -> None:
        put_link(tmp_path / "into" / "train.en.part", tmp_path / "victim")
        answer(request, 200, {"Content-Length": len(NOISE)}, NOISE)

    server.tricks["/train.en"] = trick
    toy = entry(f"{server.address}/train.en", {"train.en": {"lines": [], "sha256": sha256(NOISE)}})
    with pytest.raises(UserError, match="Cannot write toy to"):
        download_entry(toy, into=tmp_path / "into", log=quiet)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def refuse_archive(server: Server, tmp_path: Path, suffix: str, content: bytes, match: str) -> None:
    """Expects that an archive without a good a.en is refused, by this message, and that nothing of it is left."""
    server.pages[f"/toy.{suffix}"] = content
    toy = entry(f"{server.address}/toy.{suffix}", {"dev.en": {"lines": [1], "member": "a.en"}})
    with pytest.raises(UserError, match=match):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_an_encrypted_member_is_refused(server: Server, tmp_path: Path) -> None:
    content = bytearray(zipped({"a.en": b"one\n"}))
    content[6] |= 1  # the flags of the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    refuse_archive(server, tmp_path, "zip", bytes(content), "'a.en' in the archive is encrypted")


@pytest.mark.parametrize("method", [9, 12, 14, 93, 99])
def test_a_member_compressed_in_another_way_is_refused(server: Server, tmp_path: Path, method: int) -> None:
    content = bytearray(zipped({"a.en": b"one\n"}))
    content[8] = method
    content[content.index(b"PK\x01\x02") + 10] = method
    refuse_archive(
        server, tmp_path, "zip", bytes(content), f"'a.en' in the archive is compressed by method {method}, expe"
    )


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_member_that_unpacks_beyond_its_limit_is_refused(
    server: Server, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    content = pack({"a.en": bytes(3_000_000)})
    assert len(content) < 10_000
    suffix = "zip" if pack is zipped else "tar.gz"
    refuse_archive(server, tmp_path, suffix, content, "'a.en' in the archive has more than the 1,000,000 bytes")


def test_a_packed_file_that_unpacks_beyond_its_limit_is_refused(server: Server, tmp_path: Path) -> None:
    server.pages["/dev.en.gz"] = gzip.compress(b"\n" * 3_000_000)
    toy = entry(f"{server.address}/dev.en.gz", {"dev.en.gz": {"lines": [1]}})
    with pytest.raises(UserError, match=r"dev\.en\.gz has more than the 1,000,000 bytes"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_row_of_pairs_without_end_is_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_LINE_BYTES", 1000)
    server.pages["/deu-eng.zip"] = zipped({"deu.txt": b"a\tA\n" + b"b\tB" * 400})
    with pytest.raises(UserError, match=r"deu\.txt, line 2: expected no more than 1,000 bytes"):
        download_entry(tabbed(f"{server.address}/deu-eng.zip", held_out=1), into=tmp_path, log=quiet)
    assert names(tmp_path) == []


def test_a_zip_of_very_many_files_is_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_ZIP_ENTRIES", 5)
    content = zipped({"a.en": b"one\n"} | {str(n): b"" for n in range(5)})
    refuse_archive(server, tmp_path, "zip", content, r"archive http.*toy\.zip is damaged: more than 5 files")


def test_an_extended_header_without_end_is_refused(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("before"))
        info = tarfile.TarInfo("a.en")
        info.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(info)
    refuse_archive(server, tmp_path, "tar.gz", packed.getvalue(), "The archive has an endless header")


def test_a_tar_that_unpacks_without_end_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_TAR_BYTES", 1_000_000)
    content = tarred({"before": bytes(3_000_000), "a.en": b"one\n"})
    refuse_archive(server, tmp_path, "tar.gz", content, "The archive has more than the 1,000,000 bytes")


def test_a_sparse_member_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.en")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"37777777777\0"  # the real size: 4 GiB of zeros
    header[148:156] = b"        "
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    content = gzip.compress(bytes(header) + bytes(1024))
    refuse_archive(server, tmp_path, "tar.gz", content, "has no file 'a.en'")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_damaged_archive_is_an_error_and_leaves_nothing(
    server: Server, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    content, suffix = pack({"b": b"b" * 99, "a.en": b"one\n"}), "zip" if pack is zipped else "tar.gz"
    if pack is tarred:
        content = gzip.decompress(content)
    chance = random.Random(5)
    toy = entry(f"{server.address}/toy.{suffix}", {"dev.en": {"lines": [1], "member": "a.en"}})
    refused = 0
    for _ in range(300):
        damaged = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randrange(1, 4)):
            if damaged:
                damaged[chance.randrange(min(len(damaged), 1600))] = chance.choice([0, 1, 127, 128, 255])
        server.pages[f"/toy.{suffix}"] = bytes(damaged) if pack is zipped else gzip.compress(damaged, 1)
        into = tmp_path / str(refused)
        try:
            download_entry(toy, into=into, log=quiet)
        except UserError as error:
            assert str(error).isprintable() and names(into) == []
            refused += 1
        else:
            assert names(into) == ["dev.en"]
            (into / "dev.en").unlink()
    assert refused > 100


def test_an_archive_with_another_checksum_is_not_opened(server: Server, tmp_path: Path) -> None:
    content = zipped({"a.en": b"one\n"})
    server.pages["/toy.zip"] = content
    files = {"dev.en": {"lines": [1], "member": "a.en"}}
    download_entry(entry(f"{server.address}/toy.zip", files, sha256=sha256(content)), into=tmp_path, log=quiet)
    (tmp_path / "dev.en").unlink()
    with pytest.raises(UserError, match=rf"toy\.zip has SHA-256 {sha256(content)}, expected SHA-256 {'0' * 64}"):
        download_entry(entry(f"{server.address}/toy.zip", files, sha256="0" * 64), into=tmp_path, log=quiet)
    assert names(tmp_path) == []


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_are_packed_under_the_names_of_the_catalog(
    server: Server, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    suffix = "zip" if pack is zipped else "tar.gz"
    server.pages[f"/toy.{suffix}"] = pack(
        {"d/readme": b"no", "d/a.ja": "京都\n寺\n".encode(), "d/a.en": b"Kyoto\nTemple"}
    )
    files = {"dev.ja.xz": {"lines": [2], "member": "d/a.ja"}, "dev.en.gz": {"lines": [2], "member": "d/a.en"}}
    laid = download_entry(entry(f"{server.address}/toy.{suffix}", files), into=tmp_path, log=quiet)
    assert [path.name for path in laid] == ["dev.ja.xz", "dev.en.gz"]
    assert names(tmp_path) == ["dev.en.gz", "dev.ja.xz"]
    assert lzma.decompress(laid[0].read_bytes()).decode() == "京都\n寺\n"
    assert gzip.decompress(laid[1].read_bytes()) == b"Kyoto\nTemple"


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_in_an_archive_lead_nowhere(
    server: Server, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    suffix = "zip" if pack is zipped else "tar.gz"
    evil = tmp_path / "evil"
    server.pages[f"/toy.{suffix}"] = pack({str(evil): b"x", "../../evil": b"x", "../a.en": b"one\n", "a.en": b"bad"})
    toy = entry(f"{server.address}/toy.{suffix}", {"dev.en": {"lines": [1], "member": "../a.en"}})
    into = tmp_path / "deep" / "toy"
    download_entry(toy, into=into, log=quiet)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"deep", "deep/toy", "deep/toy/dev.en"}
    assert (into / "dev.en").read_bytes() == b"one\n"


def test_a_link_in_an_archive_is_not_followed(server: Server, tmp_path: Path) -> None:
    server.pages["/toy.tar.gz"] = tarred({"other": b"one\n"}, links={"a.en": "/etc/hostname", "b.en": "other"})
    toy = entry(f"{server.address}/toy.tar.gz", {"dev.en": {"lines": [1], "member": "b.en"}})
    with pytest.raises(UserError, match=r"archive http.*toy\.tar\.gz has no file 'b\.en'"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_file_that_is_not_an_archive_is_an_error_and_leaves_nothing(
    server: Server, tmp_path: Path, suffix: str
) -> None:
    server.pages[f"/toy.{suffix}"] = b"<html>Sorry</html>"
    toy = entry(f"{server.address}/toy.{suffix}", {"dev.en": {"lines": [1], "member": "a.en"}})
    with pytest.raises(UserError, match=rf"archive http.*toy\.{suffix} is damaged"):
        download_entry(toy, into=tmp_path, log=quiet)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../dev.en", "/dev.en", ".dev", "a/b", ""])
def test_the_catalog_itself_cannot_name_a_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        entry("http://127.0.0.1/dev.en", {name: {"lines": [1]}})


def test_tabbed_pairs_become_four_files_in_the_order_of_the_archive(server: Server, tmp_path: Path) -> None:
    rows = [(f"Sentence {i}.", f"Satz {i}.") for i in range(20)]
    text = "".join(f"{english}\t{german}\tCC-BY 2.0 (France)\r\n" for english, german in rows)
    server.pages["/deu-eng.zip"] = zipped({"_about.txt": b"about", "deu.txt": text.encode()})
    toy = tabbed(f"{server.address}/deu-eng.zip", held_out=7)
    for folder in ("one", "two"):
        download_entry(toy, into=tmp_path / folder, log=quiet)
    assert names(tmp_path / "one") == sorted(SIDES)
    train = list(zip(*(lines(tmp_path / "one" / f"train.en-de.{side}.gz") for side in ("en", "de")), strict=True))
    dev = list(zip(*(lines(tmp_path / "one" / f"dev.en-de.{side}.gz") for side in ("en", "de")), strict=True))
    assert len(dev) == 7
    assert [row for row in rows if row in train] == train and [row for row in rows if row in dev] == dev
    assert set(train) | set(dev) == set(rows) and not set(train) & set(dev)
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in SIDES)
    no_time = bytes(4)  # RFC 1952, MTIME
    assert all((tmp_path / "one" / name).read_bytes()[4:8] == no_time for name in SIDES)


def test_files_of_one_edition_are_replaced_together(server: Server, tmp_path: Path) -> None:
    toy = tabbed(f"{server.address}/deu-eng.zip", held_out=1)
    server.pages["/deu-eng.zip"] = zipped({"deu.txt": b"a\tA\nb\tB\n"})
    download_entry(toy, into=tmp_path, log=quiet)
    server.pages["/deu-eng.zip"] = zipped({"deu.txt": b"c\tC\nd\tD\n"})
    (tmp_path / "dev.en-de.de.gz").unlink()
    download_entry(toy, into=tmp_path, log=quiet)
    assert sorted(line for name in SIDES for line in lines(tmp_path / name)) == ["C", "D", "c", "d"]


@pytest.mark.parametrize("line", [b"no tab here", b"caf\xe9\tCaf\xe9"])
def test_a_row_that_is_not_a_pair_is_an_error_with_its_line(server: Server, tmp_path: Path, line: bytes) -> None:
    server.pages["/deu-eng.zip"] = zipped({"deu.txt": b"a\tA\n" + line + b"\n"})
    with pytest.raises(UserError, match=r"deu\.txt, line 2: expected UTF-8 text in at least two columns.*found b'"):
        download_entry(tabbed(f"{server.address}/deu-eng.zip", held_out=1), into=tmp_path, log=quiet)
    assert names(tmp_path) == []


WORDS = st.sampled_from(["a", "A", "b", "c\u00a0d", "c\u202fd", "c d", "e", "f", "g"])


@given(st.lists(st.tuples(WORDS, WORDS), max_size=30), st.integers(0, 5), st.randoms(use_true_random=False))
def test_no_sentence_of_dev_is_in_train_and_the_selection_ignores_order(pairs: Any, count: int, random: Any) -> None:
    def same(sentence: str) -> str:
        return sentence.lower().replace("\u00a0", " ").replace("\u202f", " ")

    try:
        train, dev = hold_out(pairs, count)
    except UserError:
        return
    assert len(dev) == count and set(train) | set(dev) <= set(pairs)
    held = [{same(pair[column]) for pair in dev} for column in (0, 1)]
    assert [len(side) for side in held] == [count, count]
    for english, other in set(pairs) - set(dev):
        assert ((english, other) in train) == (same(english) not in held[0] and same(other) not in held[1])
    shuffled = random.sample(pairs, len(pairs))
    assert [set(part) for part in hold_out(shuffled, count)] == [set(train), set(dev)]


def test_too_few_pairs_to_hold_out_are_an_error() -> None:
    with pytest.raises(UserError, match="Cannot hold out 3 pairs: only 2 of 3 share no sentence"):
        hold_out([("a", "A"), ("a", "AA"), ("b", "B")], 3)


def mirrored(tmp_path: Path, files: dict[str, bytes]) -> Path:
    (tmp_path / "mirror" / "toy").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "mirror" / "toy" / name).write_bytes(content)
    return tmp_path / "mirror"


TOY = entry("http://127.0.0.1:9/dev.en", {"dev.en": {"lines": [2]}, "dev.cs": {"lines": [2], "optional": True}})


def test_a_mirror_is_copied_and_may_lack_what_is_optional(tmp_path: Path) -> None:
    mirror = mirrored(tmp_path, {"dev.en": b"one\ntwo\n"})
    into = tmp_path / "toy"
    assert download_entry(TOY, into=into, mirror=mirror, log=quiet) == [into / "dev.en"]
    assert names(into) == ["dev.en"] and (into / "dev.en").read_bytes() == b"one\ntwo\n"


def test_a_mirror_must_contain_all_other_files(tmp_path: Path) -> None:
    mirror = mirrored(tmp_path, {"dev.cs": b"jedna\ndva\n"})
    message = (
        r"mirror has no file .*mirror/toy/dev\.en\. Expected .*mirror to contain toy/FILE.*fetched from http://127"
    )
    with pytest.raises(UserError, match=message):
        download_entry(TOY, into=tmp_path / "toy", mirror=mirror, log=quiet)
    assert not (tmp_path / "toy").exists()


def test_a_mirror_is_checked_even_if_the_public_archive_grows(tmp_path: Path) -> None:
    mirror = mirrored(tmp_path, {"dev.en": b"one\n"})
    toy = entry("http://127.0.0.1:9/dev.en", {"dev.en": {"lines": [2]}}, grows=True)
    with pytest.raises(UserError, match=r"dev\.en from .*mirror/toy has 1 lines, expected 2 lines"):
        download_entry(toy, into=tmp_path / "toy", mirror=mirror, log=quiet)
    assert names(tmp_path / "toy") == []


TRAIN_SUM, DEV_SUM = sha256(b"a\nb\n"), sha256(b"c\n")
# Two editions: the text of the first is not known, only its number of lines.
EDITIONS = entry(
    "http://127.0.0.1:9/toy.zip",
    {
        "train.en.gz": {"lines": [3, 2], "text_sha256": [None, TRAIN_SUM], "member": "train"},
        "dev.en.gz": {"lines": [1, 1], "text_sha256": [None, DEV_SUM], "member": "dev"},
    },
)


@pytest.mark.parametrize(("train", "dev"), [(b"a\nb\n", b"c\n"), (b"x\ny\nz\n", b"w\n")])
def test_a_mirror_may_hold_each_known_edition(tmp_path: Path, train: bytes, dev: bytes) -> None:
    mirror = mirrored(tmp_path, {"train.en.gz": gzip.compress(train), "dev.en.gz": gzip.compress(dev)})
    laid = download_entry(EDITIONS, into=tmp_path / "toy", mirror=mirror, log=quiet)
    before = [path.stat().st_ino for path in laid]
    download_entry(EDITIONS, into=tmp_path / "toy", mirror=mirror, log=quiet)
    assert [path.stat().st_ino for path in laid] == before


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (
            b"a\nB\n",
            b"c\n",
            rf"train\.en\.gz .*right number of lines, but its text has SHA-256 \w+, expected SHA-256 {TRAIN_SUM}",
        ),
        (
            b"a\nb\n",
            b"C\n",
            rf"dev\.en\.gz .*right number of lines, but its text has SHA-256 \w+, expected SHA-256 {DEV_SUM}",
        ),
        (b"a\n", b"c\n", r"train\.en\.gz from .* has 1 lines, expected 3 lines or 2 lines"),
    ],
)
def test_a_mirror_with_another_text_is_refused(tmp_path: Path, train: bytes, dev: bytes, message: str) -> None:
    mirror = mirrored(tmp_path, {"train.en.gz": gzip.compress(train), "dev.en.gz": gzip.compress(dev)})
    with pytest.raises(UserError, match=message):
        download_entry(EDITIONS, into=tmp_path / "toy", mirror=mirror, log=quiet)
    assert names(tmp_path / "toy") == []


def test_every_download_is_limited_and_every_text_has_a_checksum() -> None:
    for corpus in load_catalog().values():
        for resource in corpus.resources:
            assert resource.address.startswith("https://") and resource.max_bytes <= 128_000_000
            for name, file in resource.files.items():
                assert file.max_bytes <= 128_000_000
                assert file.sha256 or any(file.text_sha256) or resource.sha256, name


def test_the_corpora_have_these_names_and_a_wrong_name_gets_a_suggestion(tmp_path: Path) -> None:
    assert sorted(load_catalog()) == ["kftt", "multi30k", "multi30k-captions", "tatoeba"]
    with pytest.raises(
        UserError, match=r"no corpus 'multi30'\. Did you mean 'multi30k'\? Expected one of kftt, multi30k, mu"
    ):
        download("multi30", into=tmp_path)


def test_every_file_of_the_table_is_named_once_and_has_its_other_side() -> None:
    for corpus in load_catalog().values():
        listed = [name for resource in corpus.resources for name in resource.files]
        assert len(set(listed)) == len(listed)
        parts = {name.removesuffix(".gz").removesuffix(".xz").rpartition(".")[0] for name in listed}
        counts = {name: file.lines for resource in corpus.resources for name, file in resource.files.items()}
        for part in parts:
            sides = [counts[name] for name in listed if name.startswith(f"{part}.")]
            assert len(sides) >= 2 and len(set(sides)) == 1, part


def test_the_mirror_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"mirror has no file .*nowhere/multi30k/train\.en\.gz"):
        download("multi30k", into=tmp_path / "into", log=quiet)


@needs_shared
@pytest.mark.parametrize("name", ["multi30k", "tatoeba", "kftt"])
def test_the_shared_corpora_match_the_catalog(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    laid = download(name, into=tmp_path, mirror=SHARED, log=told.append)
    listed = {file for resource in load_catalog()[name].resources for file in resource.files}
    mirrored = [file for file in names(SHARED / name) if file in listed]  # the folder may hold other files, too
    assert names(tmp_path) == mirrored == sorted(path.name for path in laid)
    assert all(path.read_bytes() == (SHARED / name / path.name).read_bytes() for path in laid)
    before = {path: path.stat().st_ino for path in laid}
    download(name, into=tmp_path, mirror=SHARED, log=told.append)
    assert {path: path.stat().st_ino for path in laid} == before
