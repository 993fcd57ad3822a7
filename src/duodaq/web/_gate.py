"""What every request passes first: name, origin, rate, size, token; and what every answer bears."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from duodaq.web._access import FOREIGN, Access, Role
from duodaq.web._plain import to_json
from duodaq.web._rates import Rate
from duodaq.web._refusal import Refusal
from duodaq.web._visitors import KEY_HEADER, Visitors

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 64 * 1024
BODY_S = 10.0
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_OPEN = frozenset({"/api/session"})
_ENDS_OF_FILES = ("/api/recording/", "/api/wire/", "/api/logs/")
_FILES = (".html", ".js", ".css", ".svg", ".txt")


class Gate:
    """Lets in what may come in, with who it is in ``scope["state"]``; refuses the rest with a reason."""

    def __init__(self, app: App, access: Access, visitors: Visitors, per_s: float) -> None:
        self._app = app
        self._access = access
        self._visitors = visitors
        self._requests = Rate(per_s, 2 * per_s)
        self._wrong_tokens = Rate(1 / 6, 10)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._let_in(scope)
            if scope["type"] == "http":
                receive = await _whole_body(scope, receive)
        except Refusal as refusal:
            await _answer(scope, send, refusal)
            return
        await self._app(scope, receive, send if scope["type"] == "websocket" else _with_headers(send))

    def _let_in(self, scope: Scope) -> None:
        headers = _headers_of(scope)
        method = scope.get("method", "GET")
        host = headers.get("host")
        changes = method not in ("GET", "HEAD") or scope["type"] == "websocket"
        of_the_page = scope["path"] in _OPEN or _is_of_the_page(scope["path"])
        linked = not changes and _is_of_the_page(scope["path"])
        site = headers.get("sec-fetch-site")
        self._access.check_name(host)
        self._access.check_origin(headers.get("origin"), host, site, linked=linked)
        peer = (scope.get("client") or ("?", 0))[0]
        stops = stops_motion(scope["path"])
        whose = f"{peer} {site}" if site in FOREIGN else peer  # another site's page uses up nobody's requests here
        if not stops and not self._requests.take(whose):
            raise Refusal(429, "TooMany", "too many requests; wait a second")
        role = self._role(headers, peer)
        scope.setdefault("state", {}).update(role=role, peer=peer)
        if role is not Role.NOBODY:
            self._visitors.seen(headers.get(KEY_HEADER))
        if of_the_page:
            return
        if role is Role.NOBODY:
            raise Refusal(401, "NoToken", "this lab wants a token: Authorization: Bearer …")
        if changes and scope["type"] == "http" and role < Role.OPERATOR:
            raise Refusal(403, "ViewerOnly", "this token lets you look, and change nothing")

    def _role(self, headers: dict[str, str], peer: str) -> Role:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else None
        role = self._access.role_of(given, _cookie(headers.get("cookie", ""), self._access.cookie_name))
        if given is not None and role is Role.NOBODY:
            self.count_wrong_token(peer)
        return role

    def count_wrong_token(self, peer: str) -> None:
        """Somebody there tried a token that is none. The right one is never asked to wait for another's wrong ones.

        Raises:
            Refusal: 429, there were too many of them.
        """
        if not self._wrong_tokens.take(peer):
            raise Refusal(429, "TooMany", "too many wrong tokens; wait a minute")


def stops_motion(path: str) -> bool:
    """Whether a request there makes something stand still, which is never too many: the end of a recording does not."""
    return path.endswith(("/stop", "/stop-all", "/abort")) and not path.startswith(_ENDS_OF_FILES)


def _is_of_the_page(path: str) -> bool:
    """Whether it is one of the page's own files, which are no secret; everything else wants a token."""
    return path == "/" or (not path.startswith("/api/") and path.endswith(_FILES))


def _headers_of(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return found.value if found is not None else None


async def _whole_body(scope: Scope, receive: Receive) -> Receive:
    """The body read whole, bounded in size and time, to be given to the app as one."""
    headers = _headers_of(scope)
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        raise Refusal(413, "TooLarge", f"a body of more than {LARGEST_BODY} bytes is not read")
    if scope["method"] in ("GET", "HEAD") and length == "0" and "transfer-encoding" not in headers:
        return receive
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise Refusal(413, "TooLarge", f"a body of more than {LARGEST_BODY} bytes is not read")
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refusal(408, "TooSlow", f"the body did not come within {BODY_S:g} s") from None
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise Refusal(415, "NotJson", "a body has to be application/json")
    if body and not stops_motion(scope["path"]):
        _expect_json(bytes(body))
    whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay


def _expect_json(body: bytes) -> None:
    """Refuse what is no JSON, also where no body is looked at: whoever sends it wants something else than he says."""
    try:
        json.loads(body)
    except RecursionError:
        raise Refusal(400, "WrongRequest", "the body is nested too deeply") from None
    except ValueError as error:
        raise Refusal(422, "WrongRequest", f"the body is no JSON: {error}") from None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return sending


async def _answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    body = to_json(refusal.body())
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
