"""Who may call, how often in vain, and how much they may send. No routes here."""

import asyncio
import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pyvatti.api.problems import Unauthorized
from pyvatti.settings import Settings

MOST_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
FREE_FAILURES = 20  # wrong tokens from one address until it is braked
FAILURE_SECONDS = 3.0  # after which one more may be tried
MOST_ADDRESSES = 10_000
LOGS_OF_A_CALLER = 5

_bearer = HTTPBearer(auto_error=False, description="One of API_TOKENS")


class Brake:
    """Counts wrong tokens by address: after some, one more is looked at every few seconds.

    A token that was right from the same address before is let through meanwhile, for a proxy may
    give all callers one address. Of IPv6 the /64 counts, which is one machine's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[float, float]] = {}  # address: how many, and when
        self._right: dict[tuple[str, int], None] = {}

    def admits(self, address: str, token: int | None) -> bool:
        """Tell whether a try may be judged; `token` is the place of the right one, if it is."""
        place = _network(address)
        if token is not None and (place, token) in self._right:
            return True
        if self._count(place) >= FREE_FAILURES:
            return False
        if token is not None:
            _remember(self._right, (place, token), None)
        return True

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        place = _network(address)
        count = self._count(place) + 1
        self._failures.pop(place, None)
        _remember(self._failures, place, (count, self._clock()))

    def _count(self, place: str) -> float:
        """Give how many failures an address is charged with by now."""
        count, at = self._failures.get(place, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) / FAILURE_SECONDS)


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Put into a table of bounded size; the oldest entry makes room."""
    known[key] = value
    if len(known) > MOST_ADDRESSES:
        del known[next(iter(known))]


def _network(address: str) -> str:
    try:
        is_v6 = ip_address(address).version == 6
    except ValueError:
        return address
    return str(ip_network((address, 64), strict=False)) if is_v6 else address


class Followers:
    """Counts who reads logs, so that one caller leaves room for others.

    What there is of a log may be read beside those that are followed, but not without bound: who
    takes nothing of an answer holds its place as long.
    """

    def __init__(self) -> None:
        self._running: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def place(self, caller: str, *, follow: bool) -> Iterator[None]:
        """Hold a place. Raises HTTPException 429 where a caller has all of its own."""
        kind = caller, follow
        if self._running[kind] >= LOGS_OF_A_CALLER:
            text = (
                f"a caller may {'follow' if follow else 'read'} {LOGS_OF_A_CALLER} logs at a time"
            )
            raise HTTPException(429, text, {"Retry-After": "10"})
        self._running[kind] += 1
        try:
            yield
        finally:
            self._running[kind] -= 1
            if not self._running[kind]:
                del self._running[kind]


def caller_of(request: Request) -> str:
    """Name who calls: the place of the token, without tokens the address."""
    token: int | None = getattr(request.state, "token", None)
    return address_of(request) if token is None else f"token {token}"


def address_of(request: Request) -> str:
    """Give the caller's address, empty where it is not known."""
    return request.client.host if request.client else ""


class Gate:
    """Lets requests in by bearer token."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = [token.get_secret_value().encode() for token in settings.api_tokens]
        self._brake = Brake()

    async def __call__(
        self,
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        """Raise Unauthorized unless the request carries an accepted token.

        Raises HTTPException 429 where its address sent too many wrong ones.
        """
        # a header is latin-1 text: this gives the very bytes that were sent
        given = credentials.credentials.encode("latin-1") if credentials else b""
        # every token is compared, in constant time, whichever matches
        matches = [hmac.compare_digest(given, token) for token in self._tokens]
        if not given:
            raise Unauthorized("a bearer token is needed")
        right = matches.index(True) if any(matches) else None
        address = address_of(request)
        if not self._brake.admits(address, right):
            wait = {"Retry-After": str(round(FAILURE_SECONDS))}
            raise HTTPException(429, "too many wrong tokens from this address", wait)
        if right is None:
            self._brake.failed(address)
            raise Unauthorized("token not accepted")
        request.state.token = right


def require_json(request: Request) -> None:
    """Raise HTTPException 415 for a body that is not declared to be JSON.

    So no page of another site can make a browser launch a job by a form or a bare body: for JSON
    a browser asks first, and gets no.
    """
    declared = request.headers.get("content-type", "")
    kind = declared.partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/([a-z0-9.-]+\+)?json", kind):
        raise HTTPException(415, "the body must be application/json")


async def read_body(request: Request) -> bytes:
    """Read a body of at most 1 MiB within 10 s. Raises HTTPException 413 or 408."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MOST_BYTES:
        raise HTTPException(413, "the body may have at most 1 MiB")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, "the body may have at most 1 MiB")
    except (TimeoutError, ClientDisconnect):  # who went away reads no answer: no fault of ours
        headers = {"Connection": "close"}
        raise HTTPException(408, "the body did not arrive in time", headers) from None
    return bytes(body)
