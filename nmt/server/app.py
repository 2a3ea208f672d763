"""A server: its paths, its middleware and the thread that translates."""

from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nmt.errors import RequestError, UserError
from nmt.server import openapi
from nmt.server.batcher import Batcher
from nmt.server.limits import Limits
from nmt.server.metrics import CONTENT_TYPE, Metrics
from nmt.server.middleware import Middleware
from nmt.server.tfserving_routes import make_tfserving_routes
from nmt.server.translate_routes import make_translate_routes
from nmt.server.webpage import make_page_routes, read_page
from nmt.translators.protocol import Translator
from nmt.version import __version__


@dataclass(frozen=True)
class Server:
    """An ASGI application and the thread behind it, which its owner closes."""

    middleware: Middleware
    batcher: Batcher


def make_server(translator: Translator, name: str, limits: Limits, *, key: str | None = None) -> Server:
    """Puts a translator behind HTTP; its thread runs from here on.

    Args:
        name: of the model, in the paths of TensorFlow Serving's interface.
        key: that requests must give; None for none.
    """
    metrics = Metrics()
    batcher = Batcher(translator, limits, metrics.observe_batch)
    app = FastAPI(
        title="nmt",
        version=__version__,
        description="Translation by a recurrent model.",
        # These pages would load scripts from other hosts; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=openapi.ERRORS,
    )
    page = read_page()
    # On the page people give their key.
    middleware = Middleware(app, limits, metrics, key=key, public_paths=page)
    metrics.track(lambda: batcher.num_waiting, lambda: middleware.num_in_progress)
    _add_error_handlers(app)
    _add_probes(app, middleware, batcher, metrics)
    app.include_router(make_page_routes(page))
    app.include_router(make_translate_routes(name, translator, batcher, limits))
    app.include_router(make_tfserving_routes(name, translator, batcher, limits))
    openapi.finish_document(app, name=name, version=translator.version, key=key is not None)
    return Server(middleware, batcher)


def _add_error_handlers(app: FastAPI) -> None:
    """Every mistake has the form that TensorFlow Serving gives to its own."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, refusal: RequestError) -> JSONResponse:
        return JSONResponse({"error": refusal.message}, refusal.status, refusal.headers)

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        words = f"{error.detail}: {request.method} {request.url.path}"
        return JSONResponse({"error": words}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "Internal error; the server's log says more."}, 500)


def _add_probes(app: FastAPI, middleware: Middleware, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process answers, or 500 where it must be started anew; asks for no key."""
        if not batcher.is_working:
            raise RequestError(500, "The thread that translates has ended.")
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether it takes requests; 503 while it stops. Asks for no key."""
        if middleware.is_draining:
            raise RequestError(503, "The server is stopping.")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read_metrics() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)
