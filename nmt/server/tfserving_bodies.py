"""Request and response bodies of TensorFlow Serving's REST API, so that its clients work here as well.

https://www.tensorflow.org/tfx/serving/api_rest describes the bodies. Error messages are copied word for word from
tensorflow_serving/util/json_tensor.cc and tensorflow_serving/model_servers, mistakes in their English included.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.decoding.beam_search import IMPOSSIBLE
from nmt.errors import RequestError
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator

DEFAULT = "serving_default"
INPUT = "text"
MAX_SHOWN = 200  # characters of a value in an error message
MAX_VERSION = 2**63 - 1
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class PredictRequest:
    """A request to `:predict`."""

    texts: list[str]
    signature: str
    by_row: bool
    """Whether it contains `instances` and expects `predictions`, rather than `inputs` and `outputs`."""


def read_json(body: bytes) -> dict[str, Any]:
    """Reads a body, which must be a JSON object.

    Raises:
        RequestError: 400, it is not a JSON object.
    """
    if not body.strip():
        raise RequestError(400, "JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8-sig"))  # some clients send a byte order mark
    except UnicodeDecodeError as error:
        raise RequestError(400, f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from error
    except json.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: Invalid value. {error.msg} at offset: {error.pos}") from error
    except (RecursionError, ValueError) as error:
        raise RequestError(400, "JSON Parse error: lists or numbers are too large") from error
    if SURROGATE_ESCAPE.search(body):
        _check_surrogates(document)
    if not isinstance(document, dict):
        raise RequestError(400, f"JSON Value: {abbreviate(document)} Is not object")
    return document


def read_predict_request(document: dict[str, Any]) -> PredictRequest:
    """Reads a request to `:predict`, in rows (`instances`) or columns (`inputs`).

    Raises:
        RequestError: 400, with the message of TensorFlow Serving.
    """
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError(
            400,
            f"JSON Value: {abbreviate(document)} not formatted correctly. 'signature_name' key must be a string value.",
        )
    signature = signature or DEFAULT
    if signature not in make_signatures(nbest=1):
        raise RequestError(400, f'Serving signature name: "{signature[:MAX_SHOWN]}" not found in signature def')
    if "instances" in document and "inputs" in document:
        raise RequestError(
            400,
            f"JSON Value: {abbreviate(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist ",
        )
    if "instances" in document:
        return PredictRequest(_instances(document["instances"], document), signature, by_row=True)
    if "inputs" in document:
        return PredictRequest(_inputs(document["inputs"]), signature, by_row=False)
    raise RequestError(400, "Missing 'inputs' or 'instances' key")


def choose_n_best(translator: Translator) -> int:
    """Returns the columns of the signature `nbest`: at most as many as there are hypotheses to choose from."""
    settings = translator.settings
    if settings.mbr != "none":
        return min(translator.signature_n_best, settings.mbr_candidates)
    return translator.signature_n_best if settings.temperature else min(translator.signature_n_best, settings.beam_size)


def make_predict_body(request: PredictRequest, translations: Sequence[Translation], *, nbest: int) -> dict[str, Any]:
    """Returns the response of `:predict`, with the outputs of the requested signature."""
    columns = _nbest(translations, nbest) if request.signature == "nbest" else _best(translations)
    if not request.by_row:
        return {"outputs": columns}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def make_status_body(version: int) -> dict[str, Any]:
    """Returns the response of GET /v1/models/NAME."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(version), "state": "AVAILABLE", "status": status}]}


def make_metadata_body(name: str, version: int, *, nbest: int) -> dict[str, Any]:
    """Returns the response of GET /v1/models/NAME/metadata."""
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": make_signatures(nbest=nbest)}},
    }


def make_signatures(*, nbest: int) -> dict[str, Any]:
    """Returns the signatures as JSON: those of an export, without the tokens and attention of `nbest`."""
    outputs = {
        DEFAULT: {
            "translation": "DT_STRING",
            "score": "DT_FLOAT",
            "log_prob": "DT_FLOAT",
            "truncated": "DT_BOOL",
            "finished": "DT_BOOL",
        },
        "nbest": {
            "translations": "DT_STRING",
            "scores": "DT_FLOAT",
            "log_probs": "DT_FLOAT",
            "num_hypotheses": "DT_INT32",
            "truncated": "DT_BOOL",
            "finished": "DT_BOOL",
        },
    }
    wide = {DEFAULT: set(), "nbest": {"translations", "scores", "log_probs", "finished"}}
    return {
        signature: {
            "inputs": {INPUT: _tensor(f"{signature}_{INPUT}", "DT_STRING", [-1])},
            "outputs": {
                name: _tensor(f"{signature}_{name}", kind, [-1, nbest] if name in wide[signature] else [-1])
                for name, kind in kinds.items()
            },
            "method_name": "tensorflow/serving/predict",
        }
        for signature, kinds in outputs.items()
    }


def read_version(text: str) -> int | None:
    """Returns the version in a path, or None if it is not a number.

    Raises:
        RequestError: 400, the number is too large for a version.
    """
    if not (text.isascii() and text.isdecimal()):
        return None
    # int() refuses more than 4,300 digits with a ValueError.
    if len(text) > 30 or int(text) > MAX_VERSION:
        raise RequestError(400, f"Failed to convert version: {text[:MAX_SHOWN]} to numeric.")
    return int(text)


def _instances(instances: Any, document: dict[str, Any]) -> list[str]:
    if not isinstance(instances, list):
        raise RequestError(400, f"JSON Value: {abbreviate(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise RequestError(400, f"JSON Value: {abbreviate(document)} No values in 'instances' array")
    named = _is_named(instances[0])
    texts = []
    for number, item in enumerate(instances):
        if named != _is_named(item):
            expected = "object but got list" if named else "value/list but got object"
            raise RequestError(400, f"Expecting {expected} at item {number} of input list")
        place = f"Failed to process element: {number}"
        if named:
            for key in item:
                if key != INPUT:
                    raise RequestError(
                        400,
                        f"{place} key: {key[:MAX_SHOWN]} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: "
                        f"does not have named input: {key[:MAX_SHOWN]}",
                    )
            if INPUT not in item:
                raise RequestError(
                    400, f"{place} of 'instances' list. JSON object: {abbreviate(item)} keys must be equal to: {INPUT}"
                )
        try:
            texts.append(_text(item[INPUT] if named else item))
        except RequestError as refusal:
            key = f" key: {INPUT}" if named else ""
            raise RequestError(
                400, f"{place}{key} of 'instances' list. Error: INVALID_ARGUMENT: {refusal.message}"
            ) from refusal
    return texts


def _inputs(inputs: Any) -> list[str]:
    if _is_named(inputs):
        if INPUT not in inputs:
            raise RequestError(400, f"Missing named input: {INPUT} in 'inputs' object.")
        inputs = inputs[INPUT]
    if not isinstance(inputs, list):
        raise RequestError(400, f"JSON Value: {abbreviate(inputs)} must be a list: the input '{INPUT}' has rank 1")
    return [_text(item) for item in inputs]


def _is_named(value: Any) -> bool:
    """Returns whether a value is an object of named inputs, rather than a text in base64."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _text(value: Any) -> str:
    """Reads a text, or one in base64 as {"b64": …}, in which U+FFFD replaces invalid UTF-8."""
    if isinstance(value, dict) and not _is_named(value):
        try:
            return base64.b64decode(value["b64"], validate=True).decode("utf-8", errors="replace")
        except (binascii.Error, ValueError) as error:
            raise RequestError(400, "Unable to base64 decode") from error
    if isinstance(value, dict):
        raise RequestError(400, f"JSON Value: {abbreviate(value)} not formatted correctly for base64 data")
    if not isinstance(value, str):
        raise RequestError(400, f"JSON Value: {abbreviate(value)} Type: {_kind(value)} is not of expected type: string")
    return value


def _check_surrogates(document: Any) -> None:
    """Raises a RequestError with status 400 if a text or a key contains half of a surrogate pair, as from "\\ud800".

    JSON can express it, while UTF-8 cannot, so that no response and no message could contain it.
    """
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RequestError(400, "JSON Parse error: The surrogate pair in string is invalid.") from error
    except RecursionError as error:
        raise RequestError(400, "JSON Parse error: lists or numbers are too large") from error


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    kinds: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return kinds.get(type(value), "Number")


def abbreviate(value: Any) -> str:
    """Returns a value as JSON, abbreviated for an error message."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except RecursionError:  # reading it took a little less of the stack than writing does
        return "…"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _best(translations: Sequence[Translation]) -> dict[str, list]:
    return {
        "translation": [one.text for one in translations],
        "score": [as_float32(one.score) for one in translations],
        "log_prob": [as_float32(one.log_prob) for one in translations],
        "truncated": [one.is_truncated for one in translations],
        "finished": [_has_end(one.best) for one in translations],
    }


def _nbest(translations: Sequence[Translation], nbest: int) -> dict[str, list]:
    """Returns `nbest` columns per text; those without a hypothesis hold "" and -1e9."""

    def pad(values: Callable[[Hypothesis], Any], filler: Any) -> list[list]:
        rows = [[values(hypothesis) for hypothesis in one.hypotheses[:nbest]] for one in translations]
        return [row + [filler] * (nbest - len(row)) for row in rows]

    return {
        "translations": pad(lambda hypothesis: hypothesis.text, ""),
        "scores": pad(lambda hypothesis: as_float32(hypothesis.score), IMPOSSIBLE),
        "log_probs": pad(lambda hypothesis: as_float32(hypothesis.log_prob), IMPOSSIBLE),
        "num_hypotheses": [len(one.hypotheses[:nbest]) for one in translations],
        "truncated": [one.is_truncated for one in translations],
        "finished": pad(_has_end, False),
    }


def _has_end(hypothesis: Hypothesis) -> bool:
    return hypothesis.is_finished is not False  # older exports do not return it


def as_float32(number: float | None) -> float:
    """Returns the shortest number that is the same float32: -0.2, not -0.20000000298."""
    assert number is not None, "every translator that is served returns log-probabilities"
    return float(str(np.float32(number)))


def _tensor(name: str, kind: str, sizes: Sequence[int]) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": kind, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}
