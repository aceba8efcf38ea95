"""What holds for every request, before any handler sees it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Scripts, styles and pictures of our own only, and no inline ones.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Bounds bodies in size and time, refuses what other sites have a browser send, and sets the strict headers.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    max_bytes : int
        Of a body; a larger one is refused with 413, as soon as that is known.
    seconds : float
        A body must be there by then, or it is refused with 408.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = None
        if scope["method"] not in _SAFE and from_elsewhere(headers):
            refusal = _refusal(scope, 403, "another site may not send this")
        elif int(length) > self._max_bytes if (length := headers.get("content-length", "")).isdecimal() else False:
            refusal = _refusal(scope, 413, self._too_large())
        await (refusal or self._app)(scope, self._bounded(receive), send_strictly)

    def _bounded(self, receive: Receive) -> Receive:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        length, complete = 0, False

        async def receive_bounded() -> Message:
            nonlocal length, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"not all of it came within {self._seconds:g} s", headers={"Connection": "close"}
                ) from None
            length += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if length > self._max_bytes:
                raise HTTPException(413, self._too_large(), headers={"Connection": "close"})
            return message

        return receive_bounded

    def _too_large(self) -> str:
        return f"larger than {self._max_bytes} bytes, which is the most that this server takes at a time"


def _refusal(scope: Scope, status: int, sentence: str) -> Response:
    """Return what programs can read; the body that comes is not waited for."""
    headers = {"Connection": "close"}
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": sentence}, status, headers)
    return PlainTextResponse(f"Error: {sentence}", status, headers)


def from_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that a page of another site sends this; programs say nothing."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
