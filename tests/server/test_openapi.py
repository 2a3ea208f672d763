"""Schemathesis generates valid and invalid requests from /openapi.json and checks the responses against it.

To send many more, to a running server (the last line of the output counts them):
schemathesis run http://127.0.0.1:8501/openapi.json --max-examples 400 --exclude-checks unsupported_method
"""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import unsupported_method

from nmt.config.schema import SearchSettings
from tests.server.server_fakes import ask, make_fake


@pytest.fixture(scope="module")
def server():
    server = make_fake(max_characters=300, max_texts=5)
    yield server
    server.batcher.close(5)


def _reconcile(path: str, body: object) -> object:
    """Makes what a request asks for go together, which its schema does not say."""
    if not isinstance(body, dict):
        return body
    if path == "/complete":
        return body | {"prefix": ""}
    body = body | {"tag": None}  # which needs a model that was trained with it
    if path != "/translate":
        return body
    body |= {"prefix": None, "required": None, "glossary": None}
    if body.get("format") == "html":
        body["alignments"] = False
    body["mbr_candidates" if body.get("mbr") in (None, "none") else "coverage_penalty"] = None
    if any(body.get(name) for name in ("min_length", "coverage_penalty", "temperature")) or (
        body.get("beam_size") == 1 or body.get("mbr") not in (None, "none")
    ):
        body["pruning_threshold"] = None
    if body.get("temperature") and body.get("mbr") not in (None, "none"):
        body["length_penalty"] = None
    if (body.get("min_length") or 0) >= (body.get("max_length") or SearchSettings().max_length):
        body["min_length"] = None
    if body.get("temperature"):
        return body | {
            "temperature": max(body["temperature"], 0.001),
            "beam_size": 1,
            "coverage_penalty": 0,
            "on_warning": None,
        }
    return body | dict.fromkeys(["top_k", "top_p", "seed"])


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_responses_are_as_described(server, mode):
    load_all_checks()
    description = schemathesis.openapi.from_asgi("/openapi.json", server.middleware)
    tried = Counter()
    for operation in (result.ok() for result in description.get_all_operations()):
        # /translate has by far the most keys.
        examples = 60 if operation.path == "/translate" else 25

        @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case):
            if mode.is_positive:
                case.body = _reconcile(case.operation.path, case.body)
            # Like TensorFlow Serving, the server responds to other methods with 400, not 405.
            answer = case.call_and_validate(excluded_checks=[unsupported_method])
            tried[case.operation.label, answer.status_code] += 1

        if mode.is_positive or operation.body or operation.path_parameters:
            hold()
    # Every operation was tried, and every valid request succeeded.
    statuses = {status for _, status in tried}
    assert statuses == {200} if mode.is_positive else statuses >= {400, 404}
    assert {label for label, _ in tried} >= {"POST /translate", "POST /score", "POST /v1/models/{model}:predict"}


def test_the_document_has_the_limits_of_the_server_and_says_whether_a_key_is_required():
    server = make_fake(max_characters=300, max_texts=5, key="s3cret")
    document = ask(server, "GET", "/openapi.json", headers={"X-API-Key": "s3cret"}).json()
    server.batcher.close(5)
    operation = document["paths"]["/translate"]["post"]
    text = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]["text"]
    assert text["anyOf"] == [
        {"type": "string", "maxLength": 300},
        {"type": "array", "items": {"type": "string", "maxLength": 300}, "maxItems": 5},
    ]
    assert operation["security"] == [{"bearer": []}, {"header": []}]
    assert "security" not in document["paths"]["/health"]["get"]
    assert "422" not in operation["responses"]
