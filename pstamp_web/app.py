"""The web service of one server, and how it runs beside the tasks."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from pstamp_core import __version__
from pstamp_core.faults import Fault, PstampError, RetryableError, UserError
from pstamp_core.tasks.accounts import Refused
from pstamp_core.tasks.browse import NotThere
from pstamp_core.tasks.server import Server
from pstamp_web import api, datastore, finder, login, old, requests, send, status
from pstamp_web.guard import Guard
from pstamp_web.pages import page

log = logging.getLogger("pstamp.web")

_PLAIN = ("/ds/", "/upload.php", "/request.php", "/status.php", "/findskycell.php")
"""Where programs ask that do not read a page of ours."""
BODY_SECONDS = 300.0
"""For how long the body of a request may come in."""
FORM_BYTES = 100_000
"""What a form takes besides the file in it."""


def make_app(server: Server) -> FastAPI:
    """Return the web service of `server`; see `pstamp_web.who` for who may ask what."""
    app = FastAPI(title="pstamp", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.server = server
    for router in (api.router, login.router, finder.router, old.router, requests.router, send.router, status.router):
        app.include_router(router)
    app.include_router(datastore.router, prefix="/ds")
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.exception_handler(PstampError)(_failed)
    app.exception_handler(AnyHTTPException)(_refused)
    app.exception_handler(RequestValidationError)(_not_valid)
    app.exception_handler(Exception)(_broken)
    app.add_middleware(Guard, max_bytes=server.settings.max_upload_bytes + FORM_BYTES, seconds=BODY_SECONDS)
    return app


def _answer(request: Request, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the form that whoever asks can read."""
    path = request.url.path
    if path.startswith("/api/"):
        return JSONResponse({"error": sentence}, status, headers)
    if path.startswith(_PLAIN):
        refusal = sentence if path.startswith("/ds/") or sentence.startswith("Error:") else f"Error: {sentence}"
        return PlainTextResponse(f"{refusal}\n", status, headers)
    answer = page(request, "error.html", status, sentence=sentence)
    answer.headers.update(headers or {})
    return answer


def _failed(request: Request, error: PstampError) -> Response:
    if isinstance(error, Refused):
        return _answer(request, 403, str(error))
    if isinstance(error, NotThere):
        return _answer(request, 404, str(error))
    if isinstance(error, UserError):
        return _answer(request, 400, str(error))
    if not isinstance(error, RetryableError):
        return _broken(request, error)
    # Its text may name paths and hosts, which are the operators' business.
    log.error("%s %s: %s", request.method, request.url.path, error)
    return _answer(
        request, 503, "this can't be had just now; try again in a minute (the operators find why in the log)"
    )


def _refused(request: Request, error: AnyHTTPException) -> Response:
    headers = dict(error.headers or {})
    if "Location" in headers:
        return Response(status_code=error.status_code, headers=headers)
    return _answer(request, error.status_code, str(error.detail), headers)


def _not_valid(request: Request, error: RequestValidationError) -> Response:
    flaws = (f"{'.'.join(map(str, flaw['loc'][1:]))}: {flaw['msg']}" for flaw in error.errors())
    return _answer(request, 422, "; ".join(flaws))


def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(request, 500, "something went wrong here; the operators find it in the server's log")


class WebService:
    """The web service in a thread of its own.

    Parameters
    ----------
    server : Server
        The server that it shows; no other thread may use it.
    host, port : str, int
        Where it listens; port 0 takes a free one.

    Raises
    ------
    RetryableError
        Fault 3: it can't listen there.
    """

    def __init__(self, server: Server, host: str, port: int) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise RetryableError(
                f"can't listen on {host} port {port}: {os.strerror(error.errno or 0)}; choose with --host and --port",
                Fault.PS_EXIT_CONFIG_ERROR,
            ) from None
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                make_app(server), log_config=None, access_log=False, server_header=False, timeout_keep_alive=15,
                limit_concurrency=1000, timeout_graceful_shutdown=5,
            )
        )  # fmt: skip
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, daemon=True)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to answer, and wait for what is under way."""
        self._uvicorn.should_exit = True
        self._thread.join()
