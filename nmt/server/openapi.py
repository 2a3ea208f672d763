"""Completes /openapi.json with what FastAPI does not know: bodies that we parse ourselves, limits and the key."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from nmt.server import tfserving_bodies
from nmt.server.limits import Limits
from nmt.server.middleware import PROBES

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class ErrorBody(BaseModel):
    """Response to a request that is refused."""

    error: str


ERRORS: dict[int | str, Schema] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503, 504)
}


def describe_body(schema: Schema) -> Schema:
    """Returns the description of a request body that a path parses itself."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


def describe_response(schema: Schema) -> dict[int | str, Schema]:
    """Returns the description of a response that a path makes itself."""
    return {200: {"description": "Successful Response", "content": {"application/json": {"schema": schema}}}}


def describe_translate_request(model: type[BaseModel], limits: Limits, *, max_n_best: int, max_length: int) -> Schema:
    """Returns the schema of a request to /translate, with the limits of this server."""
    schema = model.model_json_schema()
    properties = schema["properties"]
    about = properties["text"]["description"]
    properties["text"] = {"anyOf": [_text(limits), _list(_text(limits), limits)], "description": about}
    properties["n_best"]["maximum"] = max_n_best
    properties["max_length"]["anyOf"][0] = {"type": "integer", "minimum": 1, "maximum": max_length}
    return schema


def describe_complete_request(model: type[BaseModel], limits: Limits) -> Schema:
    """Returns the schema of a request to /complete, with the limits of this server."""
    schema = model.model_json_schema()
    for name in ("text", "prefix"):
        about = schema["properties"][name]["description"]
        schema["properties"][name] = {"anyOf": [_text(limits), _list(_text(limits), limits)], "description": about}
    return schema


def describe_score_request(model: type[BaseModel], limits: Limits) -> Schema:
    """Returns the schema of a request to /score, with the limits of this server."""
    schema = model.model_json_schema()
    schema.pop("$defs")  # references lead to the schemas of the whole document, which lacks this one
    properties = schema["properties"]
    pair = _object(source=_text(limits), target=_text(limits))
    properties["pairs"] = {**_list(pair, limits), "description": properties["pairs"]["description"]}
    return schema


def describe_predict_request(limits: Limits) -> Schema:
    """Returns the schema of a request to :predict."""
    text = {"anyOf": [_text(limits), _object(b64={**STRING, "pattern": BASE64, "contentEncoding": "base64"})]}
    texts = _list(text, limits)
    rows = [{**_list(row, limits), "minItems": 1} for row in (text, _object(text=text))]
    columns = {"type": "object", "properties": {tfserving_bodies.INPUT: texts}, "required": [tfserving_bodies.INPUT]}
    return {
        "type": "object",
        "properties": {
            "signature_name": {**STRING, "enum": ["", *tfserving_bodies.make_signatures(nbest=1)]},
            "instances": {"anyOf": rows, "description": 'Texts, or objects {"text": …}; a text may be {"b64": …}.'},
            "inputs": {"anyOf": [texts, columns], "description": 'A list of texts, or {"text": [texts]}.'},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    }


def describe_predict_response() -> Schema:
    """Returns the schema of a response of :predict: rows for `instances`, columns for `inputs`."""
    best = {"translation": STRING, "score": NUMBER, "log_prob": NUMBER, "truncated": BOOLEAN, "finished": BOOLEAN}
    nbest = {
        "translations": _array(STRING),
        "scores": _array(NUMBER),
        "log_probs": _array(NUMBER),
        "num_hypotheses": INTEGER,
        "truncated": BOOLEAN,
        "finished": _array(BOOLEAN),
    }
    rows = [_array(_object(**outputs)) for outputs in (best, nbest)]
    columns = [_object(**{name: _array(kind) for name, kind in outputs.items()}) for outputs in (best, nbest)]
    return {"oneOf": [_object(predictions={"anyOf": rows}), _object(outputs={"anyOf": columns})]}


def describe_status() -> Schema:
    """Returns the schema of the response of GET /v1/models/NAME."""
    status = _object(error_code=STRING, error_message=STRING)
    return _object(model_version_status=_array(_object(version=STRING, state=STRING, status=status)))


def describe_metadata() -> Schema:
    """Returns the schema of the response of GET /v1/models/NAME/metadata."""
    sizes = _object(dim=_array(_object(size=STRING, name=STRING)), unknown_rank=BOOLEAN)
    tensors = {"type": "object", "additionalProperties": _object(dtype=STRING, tensor_shape=sizes, name=STRING)}
    signature = _object(inputs=tensors, outputs=tensors, method_name=STRING)
    signatures = _object(signature_def={"type": "object", "additionalProperties": signature})
    return _object(
        model_spec=_object(name=STRING, signature_name=STRING, version=STRING),
        metadata=_object(signature_def=signatures),
    )


def finish_document(app: FastAPI, *, name: str, version: int, key: bool) -> None:
    """Restricts the description of an application to its one model, and removes responses that it never gives.

    Args:
        app: with all its paths.
        name: of the model.
        version: of the model.
        key: whether requests need a key.
    """
    document = app.openapi()  # the application keeps and serves this very object
    operations = [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]
    known = {"model": name, "version": str(version)}
    for _, operation in operations:
        operation["responses"].pop("422", None)  # FastAPI's own form of errors
        for parameter in operation.get("parameters", []):
            parameter["schema"] = {**STRING, "enum": [known[parameter["name"]]]}
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    if key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operation in operations:
            if path not in PROBES:
                operation["security"] = [{"bearer": []}, {"header": []}]


def _text(limits: Limits) -> Schema:
    return {**STRING, "maxLength": limits.max_characters}


def _list(items: Schema, limits: Limits) -> Schema:
    return {**_array(items), "maxItems": limits.max_texts}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(**properties: Schema) -> Schema:
    """Returns the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
