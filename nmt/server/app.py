"""The application: its paths, its middleware and the thread that translates."""

from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nmt.errors import RequestError, UserError
from nmt.server import openapi
from nmt.server.access import Access
from nmt.server.batcher import Batcher
from nmt.server.complete_routes import make_complete_routes
from nmt.server.limits import Limits
from nmt.server.metrics import CONTENT_TYPE, Metrics
from nmt.server.middleware import INTERNAL_ERROR, Middleware
from nmt.server.score_routes import make_score_routes
from nmt.server.text_cutter import TextCutter
from nmt.server.tfserving_routes import make_tfserving_routes
from nmt.server.translate_routes import make_translate_routes
from nmt.server.webpage import make_page_routes, read_page
from nmt.translators.protocol import Translator
from nmt.version import __version__


@dataclass(frozen=True)
class Server:
    """An ASGI application and the thread that translates for it, which the owner of the server closes."""

    middleware: Middleware
    batcher: Batcher


def make_server(
    translator: Translator, name: str, limits: Limits, *, key: str | None = None, access: Access | None = None
) -> Server:
    """Makes the server of a translator and starts the thread that translates.

    Args:
        translator: translates the texts of all requests.
        name: of the model, in the paths of TensorFlow Serving's API.
        limits: of requests and of the queue.
        key: required in requests; None requires no key.
        access: web pages and host names that may use the server; by default its own page and every name.
    """
    metrics = Metrics()
    batcher = Batcher(translator, limits, metrics.observe_batch)
    app = FastAPI(
        title="nmt",
        version=__version__,
        description="Machine translation with a recurrent model.",
        # FastAPI's pages about the API load scripts from other hosts. /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=openapi.ERRORS,
    )
    page = read_page()
    # The page itself needs no key, because users enter theirs on it.
    middleware = Middleware(app, limits, metrics, key=key, public_paths=page, access=access)
    metrics.track(lambda: batcher.num_waiting, lambda: middleware.num_in_progress)
    _add_error_handlers(app)
    _add_probes(app, middleware, batcher, metrics)
    app.include_router(make_page_routes(page))
    cutter = TextCutter(translator, limits)
    app.include_router(make_translate_routes(name, translator, batcher, cutter, limits))
    app.include_router(make_complete_routes(translator, batcher, cutter, limits))
    app.include_router(make_score_routes(translator, batcher, cutter, limits))
    app.include_router(make_tfserving_routes(name, translator, batcher, cutter, limits))
    openapi.finish_document(app, name=name, version=translator.version, key=key is not None)
    return Server(middleware, batcher)


def _add_error_handlers(app: FastAPI) -> None:
    """Gives every error the form of TensorFlow Serving's errors."""

    @app.exception_handler(RequestError)
    async def handle_request_error(request: Request, error: RequestError) -> JSONResponse:
        return JSONResponse({"error": error.message}, error.status, error.headers)

    @app.exception_handler(UserError)
    async def handle_user_error(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{error.detail}: {request.method} {request.url.path}"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def handle_failure(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": INTERNAL_ERROR}, 500)


def _add_probes(app: FastAPI, middleware: Middleware, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Responds if the server can translate; 500 means that it must be restarted. Needs no key."""
        if not batcher.is_working:
            raise RequestError(500, "The translating thread has ended.")
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Responds if the server accepts requests; 503 means that it is stopping. Needs no key."""
        if middleware.is_draining:
            raise RequestError(503, "The server is stopping.")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read_metrics() -> Response:
        """Returns metrics for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)
