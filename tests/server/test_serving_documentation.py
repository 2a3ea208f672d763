"""Runs the programs in clients.md, and checks the manifests of kubernetes.md against the servers that they start."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer
import yaml

from nmt.cli.main import app
from nmt.server.limits import Limits
from nmt.server.run import GRACE
from tests.server.server_fakes import ask, make_fake, on_a_port, read_error

PAGES = [Path(__file__).parents[2] / "docs" / "how-to" / name for name in ("clients.md", "kubernetes.md")]
PAGE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def program(name: str, folder: Path) -> Path:
    """Writes a program of the page to a file."""
    [code] = [block for block in blocks("python") if block.startswith(f'"""{name} ')]
    (folder / name).write_text(code, encoding="utf-8")
    return folder / name


def run(path: Path, *arguments: str, lines: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
    )


def test_the_rest_client_translates_lines_and_waits_for_a_server_that_is_full_or_stops(tmp_path):
    client = program("translate_rest.py", tmp_path)
    server = make_fake(key="s3cret", max_texts=32)
    lines = [f"Satz {number} äöü" for number in range(70)] + [""]
    server.middleware.is_draining = True
    with on_a_port(server) as port:
        threading.Timer(0.8, lambda: setattr(server.middleware, "is_draining", False)).start()
        done = run(client, f"http://127.0.0.1:{port}", "demo", lines=lines, NMT_API_KEY="s3cret")
        assert (done.stderr, done.stdout.split("\n")) == ("", [line.upper() for line in lines] + [""])
        wrong = run(client, f"http://127.0.0.1:{port}", "other", lines=["a"], NMT_API_KEY="s3cret")
        assert (wrong.returncode, wrong.stderr) == (1, "404: Servable not found for request: Latest(other)\n")
        shut_out = run(client, f"http://127.0.0.1:{port}", "demo", lines=["a"])
        assert shut_out.stderr.startswith("401: This server requires a key")


@pytest.fixture(scope="module")
def manifests() -> list[list[dict]]:
    return [list(yaml.safe_load_all(block)) for block in blocks("yaml")]


def of_kind(documents: list[dict], kind: str) -> dict:
    [found] = [document for document in documents if document["kind"] == kind]
    return found


def test_services_and_probes_meet_ports_that_the_containers_have(manifests):
    assert len(manifests) == 2
    for documents in manifests:
        deployment, service = of_kind(documents, "Deployment")["spec"], of_kind(documents, "Service")["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == service["selector"] == labels
        [container] = deployment["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["ports"]} == ports
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
        assert {probe["port"] for probe in probes} <= ports
        volumes = {volume["name"] for volume in deployment["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"].keys() == {"requests", "limits"}


def test_probes_ask_for_paths_that_the_servers_have(manifests):
    server = make_fake(key="s3cret")
    for documents, headers in zip(manifests, ({"X-API-Key": "s3cret"}, {}), strict=True):
        [container] = of_kind(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
        paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        for path in paths.values():
            assert ask(server, "GET", path, headers=headers).status_code == 200, path
        if not headers:
            server.middleware.is_draining = True  # not ready any more, but alive
            assert read_error(ask(server, "GET", paths["readiness"]))[0] == 503
            assert ask(server, "GET", paths["liveness"]).status_code == 200
    server.batcher.close(5)


def test_the_stock_server_is_told_of_a_file_that_is_mounted_and_of_one_version(manifests):
    documents = manifests[0]
    pod = of_kind(documents, "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    options = dict(option.removeprefix("--").split("=") for option in container["args"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    config = of_kind(documents, "ConfigMap")
    folder, _, file = options["model_config_file"].rpartition("/")
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == mounts[folder]]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    path = re.search(r'base_path: "(/models)/demo"', config["data"][file])
    assert path[1] in mounts and "specific { versions: 1 }" in config["data"][file]


def test_nmt_serve_knows_the_options_and_is_given_the_time_that_it_takes_to_stop(manifests):
    pod = of_kind(manifests[1], "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    command, *arguments = container["args"]
    parsed = typer.main.get_command(app).commands[command].make_context(command, list(arguments)).params
    assert (str(parsed["model"]), parsed["host"], parsed["port"]) == ("/models/demo/1", "0.0.0.0", 8501)
    assert container["ports"] == [{"name": "http", "containerPort": parsed["port"]}]
    assert parsed["threads"] == int(container["resources"]["limits"]["cpu"])
    [sleep, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + parsed["timeout"] + GRACE
    assert parsed["timeout"] == Limits().timeout
