"""Bodies, error messages and status codes of TensorFlow Serving's REST API, taken from its source code."""

import base64

import numpy as np
import pytest

from nmt.config.schema import SearchSettings
from nmt.server.tfserving_bodies import as_float32, choose_n_best
from tests.server.server_fakes import FakeTranslator, ask, make_fake, read_error

PREDICT = "/v1/models/demo:predict"
A = {"translation": "A", "score": -0.1, "log_prob": -2.5, "truncated": False, "finished": True}
B = {"translation": "B", "score": -0.1, "log_prob": -2.5, "truncated": False, "finished": True}


@pytest.fixture(scope="module")
def server():
    server = make_fake(max_texts=3, max_characters=100)
    yield server
    server.batcher.close(5)


@pytest.mark.parametrize("path", ["/v1/models/demo:predict", "/v1/models/demo/versions/1:predict"])
@pytest.mark.parametrize(
    "instances",
    [
        ["a", "b"],
        [{"text": "a"}, {"text": "b"}],
        [{"b64": base64.b64encode(b"a").decode()}, "b"],
        [{"text": {"b64": base64.b64encode(b"a").decode()}}, {"text": "b"}],
    ],
)
def test_rows(server, path, instances):
    answer = ask(server, "POST", path, json={"instances": instances})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [A, B]})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("inputs", [["a", "b"], {"text": ["a", "b"]}])
def test_columns(server, inputs):
    answer = ask(server, "POST", PREDICT, json={"signature_name": "serving_default", "inputs": inputs})
    assert answer.json() == {"outputs": {key: [A[key], B[key]] for key in A}}


def test_no_columns(server):
    assert ask(server, "POST", PREDICT, json={"inputs": []}).json() == {
        "outputs": {"translation": [], "score": [], "log_prob": [], "truncated": [], "finished": []}
    }


def test_hypotheses(server):
    answer = ask(server, "POST", PREDICT, json={"signature_name": "nbest", "instances": ["a"]})
    [found] = answer.json()["predictions"]
    assert found["translations"] == ["A", "A2", "A3", "A4", "A5"]
    assert found["scores"] == [-0.1, -0.2, -0.3, -0.4, -0.5]
    assert found["log_probs"] == [-2.5] * 5
    assert (found["num_hypotheses"], found["truncated"], found["finished"]) == (5, False, [True] * 5)


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({}, 5),
        ({"beam_size": 2}, 2),
        ({"beam_size": 2, "mbr": "chrf"}, 5),
        ({"mbr": "chrf", "mbr_candidates": 3}, 3),
        ({"mbr": "chrf", "mbr_candidates": 3, "beam_size": 1, "temperature": 1.0}, 3),
        ({"beam_size": 1, "temperature": 1.0}, 5),
    ],
)
def test_there_are_as_many_columns_as_hypotheses_to_choose_from(settings, columns):
    assert choose_n_best(FakeTranslator(SearchSettings(**settings))) == columns


def test_invalid_utf8_is_replaced(server):
    text = {"b64": base64.b64encode(b"a\xffb").decode()}
    assert ask(server, "POST", PREDICT, json={"inputs": [text]}).json()["outputs"]["translation"] == ["A\ufffdB"]


def test_a_text_is_not_divided(server):
    assert ask(server, "POST", PREDICT, json={"inputs": ["a\nb. c"]}).json()["outputs"]["translation"] == ["A\nB. C"]


@pytest.mark.parametrize("path", ["/v1/models/demo", "/v1/models/demo/versions/1"])
def test_status(server, path):
    assert ask(server, "GET", path).json() == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


@pytest.mark.parametrize("path", ["/v1/models/demo/metadata", "/v1/models/demo/versions/1/metadata"])
def test_metadata(server, path):
    body = ask(server, "GET", path).json()
    assert body["model_spec"] == {"name": "demo", "signature_name": "", "version": "1"}
    found = body["metadata"]["signature_def"]["signature_def"]
    assert found.keys() == {"serving_default", "nbest"}
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    text = {"dtype": "DT_STRING", "tensor_shape": shape, "name": "serving_default_text:0"}
    assert found["serving_default"]["inputs"] == {"text": text}
    assert found["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert {name: one["dtype"] for name, one in found["serving_default"]["outputs"].items()} == {
        "translation": "DT_STRING",
        "score": "DT_FLOAT",
        "log_prob": "DT_FLOAT",
        "truncated": "DT_BOOL",
        "finished": "DT_BOOL",
    }
    sizes = [dim["size"] for dim in found["nbest"]["outputs"]["scores"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "5"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", "JSON Parse error: Invalid value"),
        ('{"instances": [1, 2]}', "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
         "Value: 1 Type: Number is not of expected type: string"),
        ('{"instances": [null]}', "JSON Value: null Type: Null is not of expected type: string"),
        ('{"instances": [true]}', "Type: True is not of expected type"),
        ('{"instances": [["a"]]}', "Type: Array is not of expected type"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"instances": "a"}', "Excepting 'instances' to be an list/array"),
        ('{"instances": ["a", {"text": "b"}]}', "Expecting value/list but got object at item 1 of input list"),
        ('{"instances": [{"text": "b"}, "a"]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [{"txt": "b"}]}', "Failed to process element: 0 key: txt of 'instances' list. Error: "
         "INVALID_ARGUMENT: JSON object: does not have named input: txt"),
        ('{"instances": [{}]}', "JSON object: {} keys must be equal to: text"),
        ('{"instances": [{"text": 1}]}', "element: 0 key: text of 'instances' list. Error: INVALID_ARGUMENT: JSON"),
        ('{"instances": [{"text": {"x": 1}}]}', "not formatted correctly for base64 data"),
        ('{"instances": [{"b64": "a"}]}', "Unable to base64 decode"),
        ('{"inputs": "a"}', 'JSON Value: "a" must be a list'),
        ('{"inputs": {"txt": ["a"]}}', "Missing named input: text in 'inputs' object."),
        ('{"inputs": [["a"]]}', "Type: Array is not of expected type: string"),
        ('{"inputs": ["a"], "instances": ["a"]}', "expecting only one of 'inputs' or 'instances' keys to exist"),
        ('{"texts": ["a"]}', "Missing 'inputs' or 'instances' key"),
        ('{"signature_name": 1, "inputs": ["a"]}', "'signature_name' key must be a string value."),
        ('{"signature_name": "best", "inputs": ["a"]}',
         'Serving signature name: "best" not found in signature def'),
        ('{"inputs": ["a", "b", "c", "d"]}', "at most 3 texts, found 4"),
        ('{"inputs": ["' + "a" * 101 + '"]}', "at most 100 characters, found 101 in text 0"),
        ('{"inputs": ["\\udc00"]}', "JSON Parse error: The surrogate pair in string is invalid."),
        ('{"signature_name": "\\ud83d", "inputs": ["a"]}', "The surrogate pair in string is invalid."),
        ('{"instances": [{"\\udc00": "a"}]}', "The surrogate pair in string is invalid."),
    ],
)  # fmt: skip
def test_a_bad_request_gets_400(server, body, words):
    status, message = read_error(ask(server, "POST", PREDICT, content=body.encode()))
    assert status == 400
    assert words in message


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        ("POST", "/v1/models/demo/versions/2:predict", 404, "Servable not found for request: Specific(demo, 2)"),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/demo/versions/99", 404, "Could not find version 99 of model demo"),
        ("GET", "/v1/models/demo/versions/99/metadata", 404, "Servable not found for request: Specific(demo, 99)"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("POST", "/v1/models", 400, "Malformed request: POST /v1/models"),
        ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("OPTIONS", "/v1/models/demo:predict", 400, "Malformed request: OPTIONS /v1/models/demo:predict"),
        ("GET", "/v1/models/demo:predict", 400, "Malformed request: GET /v1/models/demo:predict"),
        ("POST", "/v1/models/demo:classify", 400, "Malformed request: POST /v1/models/demo:classify"),
        ("POST", "/v1/models/demo/versions/x:predict", 400, "Malformed request: POST /v1/models/demo/versions/x:p"),
        ("POST", f"/v1/models/demo/versions/{2**64}:predict", 400, f"Failed to convert version: {2**64} to numeric."),
    ],
)
def test_other_models_and_paths_get_the_errors_of_tensorflow_serving(server, method, path, status, words):
    content = b'{"instances": ["a"]}' if method == "POST" else None
    found, message = read_error(ask(server, method, path, content=content))
    assert found == status
    assert message.startswith(words)


def test_numbers_are_as_short_as_float32_allows():
    assert as_float32(float(np.float32(-0.2))) == -0.2
    for number in np.random.default_rng(1).normal(0, 9, 100).astype("float32"):
        assert np.float32(as_float32(float(number))) == number
