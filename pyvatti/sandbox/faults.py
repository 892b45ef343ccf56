"""Fault injection for every stand-in: rules that spoil matching requests.

No knowledge of any of the stand-ins.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

Kind: TypeAlias = Literal[
    "status", "html", "hang", "reset", "reset_body", "truncate", "slow", "after"
]
FOREVER = 3600.0  # seconds; a hang ends with the server or the client
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass(slots=True, eq=False)
class FaultRule:
    """One fault. `path` is searched in the raw path with its query; `count` None is for ever."""

    method: str
    path: re.Pattern[str]
    kind: Kind
    count: int | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    body: bytes | str | None = None
    hits: int = 0

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault applies to a request now."""
        if self.count is not None and self.hits >= self.count:
            return False
        return self.method in ("*", method) and self.path.search(path) is not None


class FaultRules:
    """The faults of one stand-in; the first matching rule wins.

    `around` is a middleware that stands before the rules and sees every request: for counting,
    or for ending a client in the middle of its call. `spell` gives the body of a refusal that has
    none of its own, in the form of the server that is stood in for.
    """

    def __init__(self) -> None:
        self.rules: list[FaultRule] = []
        self.around: Middleware | None = None
        self.spell: Callable[[int], str] = _spell

    def add(  # noqa: PLR0913 - one keyword per property of a fault
        self,
        method: str,
        path_regex: str,
        kind: Kind,
        *,
        count: int | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        body: bytes | str | None = None,
    ) -> FaultRule:
        """Spoil requests of a method ("*": any) whose path and query match, `count` times.

        status: answer `status` (500) with `headers` and `body` without handling.
        html: the same with an HTML page (502). hang: silent for `seconds` (an hour), then reset.
        reset: cut before handling. reset_body: handle, then cut in the middle of the answer
        (a stream after `seconds`). truncate: handle, send the first half, correctly framed.
        slow: wait `seconds` (1), then handle. after: handle, then cut without an answer.
        """
        rule = FaultRule(
            method.upper(),
            re.compile(path_regex),
            kind,
            count,
            status or (502 if kind == "html" else 500),
            headers or {},
            seconds,
            self.spell(status or 500) if body is None and kind == "status" else body,
        )
        self.rules.append(rule)
        return rule

    def remove(self, rule: FaultRule) -> None:
        """End one fault."""
        self.rules.remove(rule)

    def clear(self) -> None:
        """End all faults."""
        self.rules.clear()

    def take(self, method: str, path: str) -> FaultRule | None:
        """Give the fault for a request and count the hit; None if it is to be answered well."""
        for rule in self.rules:
            if rule.matches(method, path):
                rule.hits += 1
                return rule
        return None


def _spell(status: int) -> str:
    return f'{{"error":"injected {status}"}}'


def fault_middleware(rules: FaultRules) -> Middleware:
    """Make the aiohttp middleware that applies the rules."""

    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        rule = rules.take(request.method, request.raw_path)
        if rule is None:
            return await handler(request)
        return await _FAULTS[rule.kind](rule, request, handler)

    @web.middleware
    async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
        if rules.around is None:
            return await spoil(request, handler)
        return await rules.around(request, lambda passed: spoil(passed, handler))

    return apply


async def _status(rule: FaultRule, _request: web.Request, _handler: Handler) -> web.Response:
    headers = {"Content-Type": "application/json", **rule.headers}
    return web.Response(status=rule.status, headers=headers, body=_encode(rule.body or ""))


async def _html(rule: FaultRule, _request: web.Request, _handler: Handler) -> web.Response:
    body = HTML if rule.body is None else _encode(rule.body)
    headers = {"Content-Type": "text/html", **rule.headers}
    return web.Response(status=rule.status, headers=headers, body=body)


async def _hang(rule: FaultRule, request: web.Request, _handler: Handler) -> web.Response:
    await asyncio.sleep(FOREVER if rule.seconds is None else rule.seconds)
    return cut(request)


async def _reset(_rule: FaultRule, request: web.Request, _handler: Handler) -> web.Response:
    return cut(request)


async def _reset_body(
    rule: FaultRule, request: web.Request, handler: Handler
) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    timer = None if rule.seconds is None else loop.call_later(rule.seconds, cut, request)
    try:
        answer = await handler(request)
    finally:
        if timer:
            timer.cancel()
    if not isinstance(answer, web.Response):
        return answer
    body = _body(answer)
    partial = web.StreamResponse(status=answer.status, headers=_headers(answer))
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    # Closing, not aborting: an abort would drop the half from the send buffer.
    if request.transport is not None:
        request.transport.close()
    return partial


async def _truncate(_rule: FaultRule, request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = await handler(request)
    if not isinstance(answer, web.Response):
        return answer
    body = _body(answer)
    return web.Response(status=answer.status, headers=_headers(answer), body=body[: len(body) // 2])


async def _slow(rule: FaultRule, request: web.Request, handler: Handler) -> web.StreamResponse:
    await asyncio.sleep(1.0 if rule.seconds is None else rule.seconds)
    return await handler(request)


async def _after(_rule: FaultRule, request: web.Request, handler: Handler) -> web.StreamResponse:
    await handler(request)
    return cut(request)


def cut(request: web.Request) -> web.Response:
    """Abort the connection; the answer given back reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _body(answer: web.Response) -> bytes:
    return bytes(answer.body) if isinstance(answer.body, bytes | bytearray) else b""


def _headers(answer: web.Response) -> dict[str, str]:
    dropped = ("content-length", "content-encoding", "transfer-encoding")
    return {name: value for name, value in answer.headers.items() if name.lower() not in dropped}


def _encode(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


_FAULTS: Mapping[
    Kind, Callable[[FaultRule, web.Request, Handler], Awaitable[web.StreamResponse]]
] = {
    "status": _status,
    "html": _html,
    "hang": _hang,
    "reset": _reset,
    "reset_body": _reset_body,
    "truncate": _truncate,
    "slow": _slow,
    "after": _after,
}
