"""Who may ask what: everything is refused that does not come from the page that the user opened.

The server listens on 127.0.0.1, where every program and every web page of this machine can reach it. A request is
answered only if it names this server as its host (else another site could have its own name resolve to 127.0.0.1),
carries the token of this run, and, where it writes, comes from the page itself. What is too large, too long or too slow
is cut off.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_HEADER = "x-smeld-token"
#: bytes: of an address, of all headers, of a body that is no annotation
MOST_URL, MOST_HEADERS, MOST_HEADER_LINES = 2_048, 16_384, 64
MOST_BODY = 32 * 2**20
#: seconds: until the headers are there, until a body is there, without progress of an answer, of idleness between two
#: requests
HEADERS_S, BODY_S, STALLED_S, IDLE_S = 10.0, 60.0, 20.0, 30.0
#: connections at a time; of more the one that has been silent longest is cut
MOST_CONNECTIONS = 64
READS, WRITES = ("GET", "HEAD"), ("PUT", "POST")

CSP = (
    "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:; style-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=()",
    "cache-control": "no-store",
}
#: what an address is made of; anything else, such as .. or a percent sign, is refused before it is looked at
_PATH = re.compile(rb"/(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?")
_RENDERER = re.compile(rb"(?:^|&)renderer=(cpu|webgl2)(?:&|$)")
_TOKEN = re.compile(rb"(?:^|&)token=([^&]*)")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered: the status and a line."""

    status: int
    line: str
    headers: dict[str, str] = field(default_factory=dict)


def new_token() -> str:
    """A token of 256 bits."""
    return secrets.token_urlsafe(32)


class Guard:
    """Stands before the application: refuses, bounds and times requests, and puts safe headers on every answer."""

    def __init__(self, app: App, *, port: int, token: str) -> None:
        self.app = app
        self.token = token.encode()
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.cookie = f"smeld-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there are no sockets; without an answer the server closes them
        refusal = self.refusal(scope)
        if refusal is not None:
            await _plain(send, refusal)
            return
        await self._answered(scope, receive, send)

    # -- what is refused -------------------------------------------------------------------------------------

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why a request is not answered, None where it is."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        checks = (self._size, self._form, self._host, self._origin, self._allowed)
        return next((found for check in checks if (found := check(scope, headers)) is not None), None)

    def _size(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_URL:
            return Refusal(414, "the address is too long")
        if len(headers) > MOST_HEADER_LINES or sum(len(k) + len(v) + 4 for k, v in headers) > MOST_HEADERS:
            return Refusal(431, "the headers are too large")
        length = _one(headers, b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 12 or int(length) > MOST_BODY):
            return Refusal(413, f"at most {MOST_BODY >> 20} MB are taken")
        return None

    def _form(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        method = scope["method"]
        if method not in (*READS, *WRITES):
            return Refusal(405, "this is not done here", {"allow": "GET, HEAD, PUT, POST"})
        if _one(headers, b"upgrade") is not None:
            return Refusal(400, "there are no sockets here")
        has_body = _one(headers, b"transfer-encoding") is not None or _one(headers, b"content-length") not in (
            None,
            b"0",
        )
        twice = _one(headers, b"transfer-encoding") is not None and _one(headers, b"content-length") is not None
        if twice or (method in READS and has_body):
            return Refusal(400, "the body has two lengths" if twice else "a question has no body")
        if not _PATH.fullmatch(scope["raw_path"]):
            return Refusal(400, "that is no address of this server")
        return None

    def _host(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        named = [value for name, value in headers if name == b"host"]
        if len(named) != 1 or named[0].decode("latin-1").lower() not in self.hosts:
            return Refusal(421, "this server has another name")
        return None

    def _origin(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        """Whatever names another origin is refused; a write must name this one."""
        own = f"http://{_text(headers, b'host')}".encode()
        origins = [value for name, value in headers if name == b"origin"]
        site = _one(headers, b"sec-fetch-site")
        if any(origin != own for origin in origins) or len(origins) > 1:
            return Refusal(403, "another page asks")
        if scope["method"] in WRITES:
            if not origins or site not in (None, b"same-origin"):
                return Refusal(403, "only the viewer's own page may write")
        elif scope["raw_path"] != b"/" and site not in (None, b"same-origin", b"none"):
            return Refusal(403, "another page asks")
        return None

    def _allowed(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        given = self.opening(scope)
        if given is not None:
            return None if self._is_token(given) else _NO_TOKEN
        if scope["raw_path"] != b"/" and scope["query_string"]:
            return Refusal(400, "that is no address of this server")
        shown = [value for name, value in headers if name == TOKEN_HEADER.encode()] or self._cookies(headers)
        return None if len(shown) == 1 and self._is_token(shown[0]) else _NO_TOKEN

    def opening(self, scope: Scope) -> bytes | None:
        """The token in the address of the first page, None in all others."""
        found = _TOKEN.search(scope["query_string"])
        first = scope["raw_path"] == b"/" and scope["method"] in READS
        return found[1] if found and first else None

    def _is_token(self, given: bytes) -> bool:
        return secrets.compare_digest(given, self.token)

    def _cookies(self, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
        parts = [part.strip() for name, value in headers if name == b"cookie" for part in value.split(b";")]
        start = f"{self.cookie}=".encode()
        return [part[len(start) :] for part in parts if part.startswith(start)]

    # -- what is answered ------------------------------------------------------------------------------------

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.opening(scope) is not None:
            renderer = _RENDERER.search(scope["query_string"])
            where = "/" if renderer is None else f"/?renderer={renderer[1].decode()}"
            cookie = f"{self.cookie}={self.token.decode()}; HttpOnly; SameSite=Strict; Path=/"
            from_elsewhere = _one(scope["headers"], b"sec-fetch-site") in (b"cross-site", b"same-site")
            if from_elsewhere:  # a link in another page, say of a terminal in the browser
                onward = {"content-type": "text/html; charset=utf-8", "set-cookie": cookie}
                await _plain(send, Refusal(200, _ONWARD.format(where=where), onward))
            else:
                await _plain(send, Refusal(303, "the viewer", {"location": where, "set-cookie": cookie}))
            return
        started = False

        async def safe_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _with_safe(message.get("headers", []))}
            await send(message)

        body = await _body(receive) if scope["method"] in WRITES else b""
        if isinstance(body, Refusal):
            await _plain(send, body)
            return
        try:
            await self.app(scope, _replayed(body, receive), safe_send)
        except Exception:
            if not started:
                await _plain(send, Refusal(500, "the viewer failed here; the terminal says more"))
            raise


async def _body(receive: Receive) -> bytes | Refusal:
    """The whole body, as long as it is small and quick enough."""
    until, parts, size, more = time.monotonic() + BODY_S, [], 0, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0.0))
        except TimeoutError:
            return Refusal(408, "the body took too long")
        more = bool(message.get("more_body", False))
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            return Refusal(413, f"at most {MOST_BODY >> 20} MB are taken")
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, for those behind the guard."""
    given = False

    async def next_part() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_part


#: where another page's link led here, the cookie does not go along with a redirection, but with a step of our own
_ONWARD = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={where}">'
    '<title>smeld</title><a href="{where}">To the viewer</a>'
)
_NO_TOKEN = Refusal(403, "open the address that smeld view printed, with its token, in a new tab")


def _one(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The header's value; of several all of them with commas between, which fits nowhere."""
    found = [value for key, value in headers if key == name]
    return b",".join(found) if found else None


def _text(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return (_one(headers, name) or b"").decode("latin-1")


def _with_safe(headers: Any) -> list[tuple[bytes, bytes]]:
    kept = [(k, v) for k, v in headers if k.decode("latin-1").lower() not in SAFE_HEADERS]
    return [*kept, *((k.encode(), v.encode()) for k, v in SAFE_HEADERS.items())]


async def _plain(send: Send, refusal: Refusal) -> None:
    """A line of text; the connection ends with it, for what else it may bring is not read."""
    body = (refusal.line + "\n").encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "connection": "close"}
    named = [(k.encode(), v.encode("latin-1")) for k, v in {**headers, **refusal.headers}.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": _with_safe(named)})
    await send({"type": "http.response.body", "body": body})
