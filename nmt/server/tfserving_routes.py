"""GET and POST /v1/models/…: the REST API of TensorFlow Serving, for its clients."""

from typing import Any

from fastapi import APIRouter, Request

from nmt.errors import RequestError
from nmt.server import openapi, tfserving_bodies
from nmt.server.batcher import Batcher
from nmt.server.limits import Limits, check_texts, limit_time
from nmt.server.text_cutter import TextCutter, find_client
from nmt.translators.hypothesis import join_translations
from nmt.translators.protocol import Translator

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def make_tfserving_routes(
    name: str, translator: Translator, batcher: Batcher, cutter: TextCutter, limits: Limits
) -> APIRouter:
    """Returns the paths of TensorFlow Serving, for one model and its one version.

    Args:
        name: of the model.
        translator: what the batcher translates with.
        batcher: translates the texts of requests.
        cutter: cuts them to size first.
        limits: max_texts, max_characters and timeout.
    """
    router = APIRouter(prefix="/v1")
    nbest = tfserving_bodies.choose_n_best(translator)
    body = openapi.describe_body(openapi.describe_predict_request(limits))
    statuses = openapi.describe_response(openapi.describe_status())
    descriptions = openapi.describe_response(openapi.describe_metadata())
    predictions = openapi.describe_response(openapi.describe_predict_response())

    def find_model(request: Request, model: str, version: str | None) -> tuple[bool, int | None]:
        number = None if version is None else tfserving_bodies.read_version(version)
        if ":" in model or (version is not None and number is None):
            raise make_malformed_error(request)
        return model == name and number in (None, translator.version), number

    def check_status(request: Request, model: str, version: str | None) -> None:
        is_ours, number = find_model(request, model, version)
        if not is_ours:
            missing = "any versions" if number is None else f"version {number}"
            raise RequestError(404, f"Could not find {missing} of model {model}")

    def check_servable(request: Request, model: str, version: str | None) -> None:
        is_ours, number = find_model(request, model, version)
        if not is_ours:
            wanted = f"Latest({model})" if number is None else f"Specific({model}, {number})"
            raise RequestError(404, f"Servable not found for request: {wanted}")

    @router.get("/models/{model}/metadata", response_model=None, responses=descriptions)
    @router.get("/models/{model}/versions/{version}/metadata", response_model=None, responses=descriptions)
    async def metadata(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
        """Returns the signatures, as TensorFlow Serving does."""
        check_servable(request, model, version)
        return tfserving_bodies.make_metadata_body(name, translator.version, nbest=nbest)

    @router.get("/models/{model}", response_model=None, responses=statuses)
    @router.get("/models/{model}/versions/{version}", response_model=None, responses=statuses)
    async def status(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
        """Returns the status of the model, as TensorFlow Serving does."""
        check_status(request, model, version)
        return tfserving_bodies.make_status_body(translator.version)

    @router.post("/models/{model}:predict", response_model=None, responses=predictions, openapi_extra=body)
    @router.post(
        "/models/{model}/versions/{version}:predict", response_model=None, responses=predictions, openapi_extra=body
    )
    async def predict(request: Request, model: str, version: str | None = None) -> dict[str, Any]:
        """Translates texts as TensorFlow Serving does with an export: each text is one sentence."""
        document = tfserving_bodies.read_json(await request.body())
        check_servable(request, model, version)
        wanted = tfserving_bodies.read_predict_request(document)
        check_texts(wanted.texts, limits)
        options = batcher.make_options(n_best=nbest if wanted.signature == "nbest" else 1)
        client = find_client(request)
        async with limit_time(limits):
            cut, tokens = await cutter.cut(wanted.texts, options, client=client)
            parts = [part for text in cut for part in text.parts]
            results = iter(await batcher.translate(parts, options, tokens=tokens, client=client))
        translations = [join_translations(text, [next(results) for _ in text.parts]) for text in cut]
        return tfserving_bodies.make_predict_body(wanted, translations, nbest=nbest)

    @router.get("/models", include_in_schema=False)
    async def refuse_missing_name() -> None:
        raise RequestError(400, "Missing model name in request.")

    @router.api_route("/{rest:path}", methods=METHODS, include_in_schema=False)
    async def refuse_other_paths(request: Request) -> None:
        raise make_malformed_error(request)

    return router


def make_malformed_error(request: Request) -> RequestError:
    """Returns TensorFlow Serving's error for a path that does not exist."""
    return RequestError(400, f"Malformed request: {request.method} {request.url.path}")
