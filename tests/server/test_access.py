"""Pages of other sites and other host names: refused, unless an option allows them."""

import pytest

from nmt.errors import UserError
from nmt.server.access import is_loopback, make_access
from tests.server.server_fakes import ask, make_fake, read_error

FORM = {"Content-Type": "text/plain"}  # browsers send it elsewhere without asking first
EVIL = {"Origin": "http://evil.example", **FORM}


@pytest.fixture(scope="module")
def server():
    """Listens on loopback and has one other site's page as a client."""
    access = make_access("127.0.0.1", ["https://Friend.example/"], ["proxy.example"])
    server = make_fake(access=access, key="s3cret")
    yield server
    server.batcher.close(5)


@pytest.fixture(scope="module")
def closed():
    server = make_fake()
    yield server
    server.batcher.close(5)


def translate(server, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(server, "POST", "/translate", json={"text": "a"}, headers={"X-API-Key": "s3cret", **names})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "Content_Type": "text/plain"},
        {"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "http://server:8502", "Sec_Fetch_Site": "same-site"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    ],
)
def test_a_page_of_another_site_is_refused(closed, headers):
    for path in ("/translate", "/v1/models/demo:predict"):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        status, message = read_error(ask(closed, "POST", path, json={"text": "a"}, headers=names))
        assert status == 403 and "--allow-origin ORIGIN" in message
    assert 'nmt_requests_total{path="other",status="403"}' in ask(closed, "GET", "/metrics").text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://server", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://server"},
        {"Origin": "https://server:443"},  # a proxy with TLS that keeps Host
        {"Origin": "https://public.example", "Sec_Fetch_Site": "same-origin"},  # one that does not
    ],
)
def test_programs_and_our_own_page_are_answered(closed, headers):
    assert translate(closed, **headers).status_code == 200


def test_links_from_elsewhere_open_the_page_and_probes_are_answered(closed):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for path in ("/", "/about", "/metrics"):
        assert ask(closed, "GET", path, headers=link).status_code == 200
    assert ask(closed, "GET", "/page/page.js", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    for path in ("/health", "/ready"):
        assert ask(closed, "GET", path, headers={"Host": "pod", "Origin": "http://evil.example"}).status_code == 200
    # A form that opens its response is not only read.
    assert ask(closed, "POST", "/translate", json={"text": "a"}, headers=link).status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8501", "[::1]:8501", "a.localhost", "Proxy.example:80", "10.1.2.3"]
)
def test_this_machine_is_called_by_its_names_and_addresses(server, host):
    assert translate(server, Host=host).status_code == 200


def test_a_name_that_was_rebound_to_this_machine_is_refused(server):
    answer = translate(
        server, Host="evil.example:8501", Origin="http://evil.example:8501", Sec_Fetch_Site="same-origin"
    )
    assert read_error(answer) == (
        403,
        "This server does not answer to the host name 'evil.example'. Allow it: --allow-host NAME.",
    )
    assert ask(server, "GET", "/", headers={"Host": "localhost.evil.example"}).status_code == 403


def test_an_allowed_page_may_send_a_key_and_read_every_response(server):
    page = {"Origin": "https://friend.example", "Host": "localhost"}
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = ask(server, "OPTIONS", "/translate", headers={**page, **wanted})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    for answer, status in ((translate(server, **page), 200), (ask(server, "POST", "/translate", headers=page), 401)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "Origin" in answer.headers["vary"]
    refused = ask(server, "OPTIONS", "/translate", headers={**EVIL, **wanted, "Host": "localhost"})
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers


def test_a_server_for_other_machines_accepts_every_name_unless_some_are_given():
    assert make_access("0.0.0.0").hosts is None
    assert make_access("0.0.0.0", hosts=["a.example"]).hosts == {"a.example", "localhost", "0.0.0.0"}
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"))


def test_mistakes_in_the_options_are_named():
    for origin in ("example.com", "https://example.com/page", ""):
        with pytest.raises(UserError, match=f"--allow-origin: expected an origin .*, found '{origin}'"):
            make_access("127.0.0.1", [origin])
    for host in ("a.example:80", "https://a.example", ""):
        with pytest.raises(UserError, match=f"--allow-host: expected a name without a port, .*, found '{host}'"):
            make_access("127.0.0.1", (), [host])
