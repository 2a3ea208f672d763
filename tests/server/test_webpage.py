"""The files of the web page over HTTP."""

import re

import pytest

from nmt.server.webpage import read_page
from tests.server.server_fakes import ask, make_fake

PAGE = read_page()


@pytest.fixture(scope="module")
def server():
    server = make_fake()
    yield server
    server.batcher.close(5)


@pytest.mark.parametrize("path", sorted(PAGE))
def test_every_file_is_served_under_a_strict_policy(server, path):
    answer = ask(server, "GET", path)
    assert answer.status_code == 200
    assert answer.content == PAGE[path].body
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert {name: policy.pop(name) for name in ("base-uri", "form-action", "frame-ancestors")} == {
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert set(policy) == {"script-src", "style-src", "img-src", "connect-src"}
    assert set(policy.values()) == {"'self'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert ask(server, "HEAD", path).status_code == 200


def test_files_have_media_types(server):
    kinds = {path: ask(server, "GET", path).headers["content-type"].split(";")[0] for path in PAGE}
    assert kinds["/"] == "text/html"
    assert kinds["/page/page.js"] == "text/javascript"
    assert kinds["/page/style.css"] == "text/css"
    assert kinds["/page/icon.svg"] == "image/svg+xml"


@pytest.mark.parametrize("path", sorted(PAGE))
def test_no_file_names_another_host_or_inserts_text_as_markup(path):
    text = PAGE[path].body.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|\b(src|href|url)\W{0,3}//|@import", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text)
    assert not re.search(r"\bon\w+=|\bstyle=|javascript:", text)


def test_every_file_that_the_page_loads_exists():
    asked = set(re.findall(r'(?:src|href)="([^"]+)"', PAGE["/"].body.decode()))
    for path, file in PAGE.items():
        if path.endswith(".js"):
            asked |= {f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', file.body.decode())}
    assert {f"/{path}" for path in asked} == PAGE.keys() - {"/"}


def test_about_describes_the_server(server):
    assert ask(server, "GET", "/about").json() == {
        "name": "demo",
        "version": 1,
        "source_language": "en",
        "target_language": "de",
        "max_characters": 10_000,
        "max_n_best": 64,
        "beam_size": 5,
    }
