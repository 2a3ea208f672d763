"""GET /: the web page for translating, served from the files in the folder page/."""

from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Request, Response

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page loads its own files and calls its own server, nothing else. A script in a text could not run even if a bug
# inserted the text as markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def read_page() -> dict[str, Response]:
    """Returns the response of each path of the page. They are the same for every request, so they are made once."""
    responses = {}
    for file in files("nmt.server").joinpath("page").iterdir():
        media_type = MEDIA_TYPES[file.name[file.name.rindex(".") :]]
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        responses[path] = Response(file.read_bytes(), media_type=media_type, headers=HEADERS)
    return responses


def make_page_routes(page: dict[str, Response]) -> APIRouter:
    """Returns the paths of the page's files."""
    router = APIRouter()
    for path, response in page.items():
        router.add_route(path, _make_handler(response), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _make_handler(response: Response) -> Callable:
    async def handle(request: Request) -> Response:
        return response

    return handle
