"""GET /: the page on which people translate, files as they lie in the folder page/."""

from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Request, Response

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing but our own files and requests to ourselves; text that holds a script could not run it even if it were put in.
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
    """The answer for each path of the page; the same for everybody, hence made once."""
    found = {}
    for file in files("nmt.server").joinpath("page").iterdir():
        kind = KINDS[file.name[file.name.rindex(".") :]]
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        found[path] = Response(file.read_bytes(), media_type=kind, headers=HEADERS)
    return found


def make_page_routes(page: dict[str, Response]) -> APIRouter:
    """A path for each file."""
    router = APIRouter()
    for path in page:
        router.add_route(path, _answer(page[path]), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _answer(response: Response) -> Callable:
    async def answer(request: Request) -> Response:
        return response

    return answer
