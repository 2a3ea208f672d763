"""`nmt serve` as a process, with its port and its signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import typer

from nmt.cli.main import app
from nmt.errors import UserError
from nmt.server import run
from nmt.server.run import check_name, derive_name, is_open, listen
from tests.exported_model import SENTENCES
from tests.server.server_fakes import make_fake, on_a_port


def start(*arguments, port=0, **environment):
    """Starts `nmt serve`, on a free port if none is given, and returns the process, its address and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt", "serve", *map(str, arguments), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line, process.communicate()
    return process, line.split(": ")[-1].strip(), line


def get(url, **headers):
    return send(urllib.request.Request(url, headers=headers))[1]


def post(url, body, **headers):
    status, answer = send(urllib.request.Request(url, json.dumps(body).encode(), headers))
    return status, json.loads(answer)


def send(request):
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    model_folder.save(folder)
    return folder


def test_on_sigterm_it_finishes_accepted_requests_and_refuses_new_ones(model):
    process, url, line = start(model, NMT_API_KEY="s3cret")
    key = {"Authorization": "Bearer s3cret"}
    assert line.startswith(f"Serving {model} as tiny, version 1: http://127.0.0.1:")
    assert post(f"{url}/translate", {"text": "a man"})[0] == 401
    answers = []
    # Longer texts need new traces of the search: seconds of work, however fast the machine.
    work = {"text": [" ".join(SENTENCES[:n]) for n in (2, 8)], "n_best": 3}
    thread = threading.Thread(target=lambda: answers.append(post(f"{url}/translate", work, **key)))
    thread.start()
    while "nmt_requests_in_progress 2.0" not in get(f"{url}/metrics", **key):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    while "ready" in get(f"{url}/ready"):
        time.sleep(0.02)
    assert post(f"{url}/translate", {"text": "a man"}, **key) == (503, {"error": "The server is stopping."})
    out, err = process.communicate(timeout=300)
    thread.join()
    assert answers[0][0] == 200
    assert [len(one["alternatives"]) for one in answers[0][1]["translations"]] == [2, 2]
    assert (process.returncode, err) == (0, "")
    # The request that read the metrics may still count.
    assert re.fullmatch(r"Stopping\. Requests in progress: [12]\.\nStopped\.\n", out)


def test_a_client_that_sends_too_much_can_read_the_error():
    """The server must not reset the connection while the client sends, which only a real socket shows."""
    with on_a_port(make_fake()) as port:
        status, answer = post(f"http://127.0.0.1:{port}/translate", {"text": "a" * 8_000_000})
    assert (status, answer) == (413, {"error": "A request can have at most 1,048,576 bytes. Send several requests."})


def test_missing_packages_are_named(model):
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('fastapi', 'uvicorn') else find(name, *rest)\n"
        "import sys, nmt.cli.main; sys.argv = ['nmt', 'serve', 'runs/demo']\n"
        "try: nmt.cli.main.main()\n"
        "except SystemExit as end: print(end.code, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    message = 'nmt serve needs fastapi, uvicorn. Install with: pip install "nmt[serve]"\n'
    assert done.stderr == message


def test_an_address_in_use_is_an_error():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"Cannot listen on 127.0.0.1, port {port}: Address already in use"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"Cannot listen on 192\.0\.2\.1, port 0: "):
        listen("192.0.2.1", 0)


def test_a_server_without_a_key_on_a_public_address_is_open():
    assert is_open("0.0.0.0", None) and is_open("::", None)
    assert not is_open("0.0.0.0", "s3cret")
    assert not any(is_open(host, None) for host in ("127.0.0.1", "::1", "localhost"))


def test_a_full_disk_behind_standard_output_does_not_stop_the_server(monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        serve = typer.main.get_command(app).commands["serve"]
        monkeypatch.setattr(run, "serve", lambda *_, log, **options: log("Serving runs/demo.") or log("Stopped."))
        serve.main(["runs/demo"], standalone_mode=False)
        full.flush()  # as at exit


def test_a_model_is_named_after_its_folder(tmp_path):
    for path in ("demo", "demo/1", "demo/best"):
        assert derive_name(tmp_path / path) == "demo"
    with pytest.raises(UserError, match=r"--name: expected a name without '/' and ':', found 'a/b'\."):
        check_name("a/b")
