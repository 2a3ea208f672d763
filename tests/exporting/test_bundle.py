"""The files next to the version folders, parsed as the server and its users read them."""

import contextlib
import http.server
import json
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from nmt.exporting.bundle import NAMES, Bundle, can_be_split, find_text_signatures, make_model_name
from nmt.exporting.stock_server import read_meta_graph
from nmt.server.app import make_server
from nmt.server.limits import Limits
from nmt.server.run import open_model
from tests.exported_model import MAX_BATCH, MAX_CHARACTERS, NBEST, SENTENCES
from tests.server.server_fakes import ask

# Messages of session_bundle_config.proto and monitoring_config.proto in TensorFlow Serving, whose classes are not in
# tensorflow-serving-api. The text format does not contain the numbers of fields.
SCHEMA = """
name: "server.proto" package: "tensorflow.serving" syntax: "proto3" dependency: "google/protobuf/wrappers.proto"
message_type { name: "BatchingParameters"
  field { name: "max_batch_size" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "batch_timeout_micros" number: 2 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "max_enqueued_batches" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "num_batch_threads" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "thread_pool_name" number: 5 type: TYPE_MESSAGE type_name: ".google.protobuf.StringValue" }
  field { name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }
  field { name: "pad_variable_length_inputs" number: 7 type: TYPE_BOOL }
  field { name: "enable_large_batch_splitting" number: 8 type: TYPE_MESSAGE type_name: ".google.protobuf.BoolValue" }
  field { name: "max_execution_batch_size" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
}
message_type { name: "PrometheusConfig"
  field { name: "enable" number: 1 type: TYPE_BOOL } field { name: "path" number: 2 type: TYPE_STRING }
}
message_type { name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 type: TYPE_MESSAGE type_name: ".tensorflow.serving.PrometheusConfig" }
}
"""
# Flags of tensorflow_serving/model_servers/main.cc.
FLAGS = {
    "port", "rest_api_port", "model_name", "model_base_path", "model_config_file",
    "model_config_file_poll_wait_seconds", "enable_batching", "batching_parameters_file", "monitoring_config_file",
}  # fmt: skip


@pytest.fixture(scope="module")
def signatures(exported) -> dict[str, SignatureDef]:
    found = read_meta_graph(exported.version).signature_def
    return {name: found[name] for name in ("serving_default", "nbest")}


@pytest.fixture
def bundle(signatures) -> Bundle:
    limits = {"max_characters": 100, "max_tokens": 20, "max_batch": 256, "nbest": 5}
    return Bundle("demo", "2.21.0", ("en", "de"), limits, signatures, 'It\'s a "man".')


def parsed(name: str, text: str):
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto()))
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
    return text_format.Parse(text, kind())


def signature(*sizes: int) -> SignatureDef:
    made = SignatureDef()
    made.outputs["out"].dtype = tf.float32.as_datatype_enum
    for size in sizes:
        made.outputs["out"].tensor_shape.dim.add(size=size)
    return made


def flags_in(words: list[str]) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)


def commands_in(readme: str) -> list[list[str]]:
    """Returns the indented lines as a shell parses them, continuation lines joined."""
    joined = readme.replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines() if line.startswith("    ")]


def test_the_server_reads_which_versions_to_serve(bundle):
    config = text_format.Parse(bundle.render("models.config"), ModelServerConfig()).model_config_list.config
    assert [(one.name, one.base_path, one.model_platform) for one in config] == [("demo", "/models/demo", "tensorflow")]
    assert config[0].model_version_policy.latest.num_versions == 1


def test_the_server_reads_how_to_batch(bundle):
    found = parsed("BatchingParameters", bundle.render("batching_parameters.txt"))
    assert found.max_batch_size.value == bundle.max_request == 1024
    assert found.max_execution_batch_size.value == 256
    assert found.HasField("batch_timeout_micros") and found.max_enqueued_batches.value > 0
    # Padding a batch would repeat the text of another client, and the graph accepts any batch size.
    assert not found.allowed_batch_sizes and not found.pad_variable_length_inputs


def test_the_server_splits_requests_only_if_it_can_join_the_outputs(bundle, signatures):
    """It concatenates parts without comparing their widths (Concat in tensorflow/core/framework/tensor_util.cc)."""
    assert can_be_split({"one": signature(-1), "two": signature(-1, 5)})
    assert not can_be_split({"one": signature(-1), "two": signature(-1, 5, -1)})
    wide = {**signatures, "wide": signature(-1, -1)}
    for some, divides in ((wide, False), ({"serving_default": signatures["serving_default"]}, True)):
        text = replace(bundle, signatures=some).render("batching_parameters.txt")
        assert parsed("BatchingParameters", text).enable_large_batch_splitting.value == divides


def test_the_server_has_metrics_for_prometheus(bundle):
    found = parsed("MonitoringConfig", bundle.render("monitoring.config")).prometheus_config
    assert (found.enable, found.path) == (True, "/monitoring/prometheus/metrics")


def test_compose_starts_the_server_on_this_folder(bundle):
    services = yaml.safe_load(bundle.render("compose.yaml"))["services"]
    assert list(services) == ["demo"]
    service = services["demo"]
    assert service["image"] == "tensorflow/serving:2.21.0"
    assert service["volumes"] == [".:/models/demo:ro"]
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    flags = flags_in(service["command"])
    assert len(flags) == len(service["command"]) and set(flags) <= FLAGS
    inside = [Path(value).relative_to("/models/demo") for value in flags.values() if value.startswith("/")]
    assert {str(path) for path in inside} <= set(NAMES) and len(inside) == 3


@contextlib.contextmanager
def answering(body: str) -> Iterator[tuple[int, list[str]]]:
    """Runs a server with a fixed response, and yields its port and the paths of its requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def test_the_health_check_waits_for_an_available_version(bundle):
    command = yaml.safe_load(bundle.render("compose.yaml"))["services"]["demo"]["healthcheck"]["test"]
    assert command[0] == "CMD"

    def healthy(port: int) -> bool:
        words = [word.replace("/8501", f"/{port}") for word in command[1:]]
        return subprocess.run(words, capture_output=True, timeout=120).returncode == 0

    status = (
        '{{\n "model_version_status": [\n  {{\n   "version": "1",\n   "state": "{}",\n   "status": {}\n  }}\n ]\n}}\n'
    )
    with answering(status.format("AVAILABLE", '{"error_code": "OK"}')) as (port, asked):
        assert healthy(port)
        assert asked == ["/v1/models/demo"]
    with answering(status.format("END", '{"error_code": "UNAVAILABLE"}')) as (port, _):
        assert not healthy(port)
    assert not healthy(port)


def test_the_readmes_commands_are_those_of_compose(bundle):
    commands = commands_in(bundle.render("README.md"))
    compose = yaml.safe_load(bundle.render("compose.yaml"))["services"]["demo"]
    docker = next(command for command in commands if command[:2] == ["docker", "run"])
    assert flags_in(docker) == flags_in(compose["command"])
    assert [word for word in docker if word.startswith("tensorflow/")] == [compose["image"]]
    assert {docker[n + 1] for n, word in enumerate(docker) if word == "-p"} == set(compose["ports"])
    assert "$PWD:/models/demo:ro" in docker
    plain = flags_in(next(command for command in commands if command[0] == "tensorflow_model_server"))
    assert set(plain) <= FLAGS
    assert (plain["port"], plain["rest_api_port"], plain["model_base_path"]) == ("8500", "8501", "$PWD")
    assert {plain["batching_parameters_file"], plain["monitoring_config_file"]} <= set(NAMES)


def test_the_readmes_requests_work_with_nmt_serve(exported):
    readme = (exported.version.parent / "README.md").read_text(encoding="utf-8")
    server = make_server(open_model(exported.version, {}), "served", Limits())
    curls = [command for command in commands_in(readme) if command[0] == "curl" and "monitoring" not in command[2]]
    try:
        for _, _, url, *data in curls:
            path = url.removeprefix("localhost:8501")
            answer = ask(server, "POST" if data else "GET", path, content=data[-1] if data else None)
            assert answer.status_code == 200, answer.text
    finally:
        server.batcher.close(5)
    assert len(curls) == 3


def test_the_readme_states_signatures_and_limits(exported):
    readme = (exported.version.parent / "README.md").read_text(encoding="utf-8")
    for line in (
        "| `serving_default` | `text` string [N] | `finished` bool [N], `log_prob` float32 [N], `score` float32 [N], "
        "`translation` string [N], `truncated` bool [N]",
        f"| texts per request | {4 * MAX_BATCH} | the request is refused |",
        f"| characters per text | {MAX_CHARACTERS} | the text is truncated, and `truncated` is true |",
    ):
        assert line in readme
    assert f"`attention` float32 [N, {NBEST}, ?, ?]" in readme
    assert "$" not in readme.replace("$PWD", "")


def test_the_server_takes_nothing_else_for_a_version(exported):
    """It parses the folder's children as 64-bit numbers, and skips others (file_system_storage_path_source.cc)."""
    numbers = [child.name for child in exported.version.parent.iterdir() if re.fullmatch(r"\s*[+-]?\d+\s*", child.name)]
    assert numbers == ["1"]
    assert not re.fullmatch(r"\s*[+-]?\d+\s*", "2.withdrawn")


def test_files_of_the_user_are_kept_and_the_others_overwritten(bundle, tmp_path):
    (tmp_path / "README.md").write_text("My own.\n")
    said = []
    bundle.write(tmp_path, said.append)
    assert said == [
        f"Kept {tmp_path / 'README.md'}, because its first line does not mark it as generated by nmt export."
    ]
    pinned = bundle.render("models.config").partition("\n")[2].replace("latest { num_versions: 1 }", "all {}")
    (tmp_path / "models.config").write_text(pinned)
    replace(bundle, server_version="2.22.1").write(tmp_path, said.append)
    assert (tmp_path / "README.md").read_text() == "My own.\n"
    assert (tmp_path / "models.config").read_text() == pinned
    assert "tensorflow/serving:2.22.1" in (tmp_path / "compose.yaml").read_text()
    assert {child.name for child in tmp_path.iterdir()} == set(NAMES)
    assert len(said) == 3


@pytest.mark.parametrize(
    ("folder", "name"),
    [("demo", "demo"), ("en-de_2.0", "en-de_2.0"), ('my model: "x" $HOME\'', "my-model-x-HOME"), ("日本", "model")],
)
def test_a_model_is_named_after_its_folder_with_characters_that_need_no_quotes(folder, name, tmp_path):
    assert make_model_name(tmp_path / folder) == name


def test_only_signatures_with_the_input_text_are_warmed_up(signatures):
    pair = SignatureDef()
    pair.inputs["source"].name = pair.inputs["target"].name = "x"
    assert find_text_signatures({**signatures, "token_log_probs": pair}) == ["nbest", "serving_default"]


def test_json_can_express_every_output(exported, signatures):
    """Names that end in _bytes would be base64, text must be UTF-8, and JSON has no infinity."""
    hard = [SENTENCES[0], "", b"\xff\xfe broken", "no\0thing", "日本 " * 50]
    for name, made in signatures.items():
        assert not [output for output in made.outputs if output.endswith("_bytes")]
        for output, array in exported.call(name, hard).items():
            assert array.shape[0] == len(hard)
            if array.dtype == object:
                array = np.vectorize(bytes.decode, otypes=[object])(array)
            read = np.array(json.loads(json.dumps(array.tolist(), allow_nan=False)), array.dtype).reshape(array.shape)
            assert (read == array).all() and tf.as_dtype(made.outputs[output].dtype) in (
                tf.string, tf.float32, tf.int32, tf.bool,
            )  # fmt: skip


def test_a_split_request_has_the_outputs_of_a_whole_one(exported):
    """Uses TensorFlow's batching, which splits as the server does, into parts of at most three texts."""
    texts = SENTENCES[:8]
    model = tf.saved_model.load(str(exported.version))
    best = model.signatures["serving_default"]

    @tf.nondifferentiable_batch_function(1, 8, 1000, [1, 2, 3], autograph=False, enable_large_batch_splitting=True)
    def divided(part):
        answer = best(text=part)
        return [answer["translation"], answer["score"]]

    translation, score = tf.function(divided, autograph=False)(tf.constant(texts))
    expected = exported.call("serving_default", texts)
    assert translation.numpy().tolist() == expected["translation"].tolist()
    np.testing.assert_allclose(score.numpy(), expected["score"], atol=1e-5)
