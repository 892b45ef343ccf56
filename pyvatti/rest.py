"""One HTTP call to Seqera or the backend, bounded in time and size; Retry-After of every server.

No route, body or status of either of them: what an answer means is known at their doors.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from pyvatti import __version__, fence
from pyvatti.errors import Denied, Unavailable, trim
from pyvatti.redaction import Redactor
from pyvatti.ways import proxy_for, trust

LOOKED_AT = 4096  # bytes of an answer that may be told
LONGEST_RETRY_AFTER = 3600.0  # seconds; a neighbour may not silence us for longer about one job
LONGEST_PAUSE = 300.0  # seconds; nor for longer where all jobs have to wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Limits of one call in seconds. `total` also ends an answer that trickles in."""

    connect: float = 5.0
    read: float = 10.0
    total: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer: `retry_after` in seconds, `text` on one line, trimmed, without our secrets."""

    status: int
    body: bytes
    text: str
    retry_after: float | None = None

    @property
    def is_page(self) -> bool:
        """Whether the body is HTML: then a gateway or a login page speaks."""
        return self.body.lstrip()[:1] == b"<"

    def error(self, target: str) -> Unavailable:
        """Give the error of an answer that is of no use; `target` says what was asked."""
        kind = Denied if self.status in (401, 403) else Unavailable
        said = f": {self.text}" if self.text else ""
        message = f"{target} answered {self.status}{said}"
        return kind(message, retry_after=self.retry_after)


class Rest:
    """Calls to one neighbour with one credential. Redirects are answers: they are not followed.

    `authorities` is a PEM file of further ones that may have signed its certificate. Raises
    ConfigurationError where that, or the proxy of the environment, cannot be used.
    """

    def __init__(  # noqa: PLR0913 - one keyword per property of a neighbour
        self,
        base_url: str,
        *,
        scheme: str,
        token: str,
        timeouts: Timeouts,
        body_limit: int,
        authorities: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._redactor = Redactor([token])
        self._timeouts = timeouts
        self._body_limit = body_limit
        trusted: Any = True
        proxy = None
        if transport is None:
            trusted = trust(httpx.create_ssl_context(), authorities)
            if address := proxy_for(base_url):
                is_tls = address.startswith("https:")
                proxy = httpx.Proxy(address, ssl_context=trusted if is_tls else None)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={
                b"Authorization": f"{scheme} {token}".encode(),
                b"Accept": b"application/json",
                b"User-Agent": f"pyvatti/{__version__}".encode(),
            },
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
            transport=transport,
            proxy=proxy,
            verify=trusted,
            trust_env=False,  # its reading of NO_PROXY knows no networks
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request with a JSON body and give any answer.

        Raises Unavailable where there is none: refused, unknown host, timeout, or a success that
        was cut or is too large; Deposed. Of an error the body may be cut.
        """
        kind = {"Content-Type": "application/json"} if body is not None else {}
        try:
            request = self._client.build_request(
                method,
                path,
                params=query,
                content=body,
                headers={**kind, **(headers or {})},
                extensions={"trace": _ask_fence},
            )
            return await self._exchange(request)
        # OSError: timeouts, and what a transport does not map; ValueError: a nonsensical header
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as exc:
            said = self._clean(str(exc)) or "no answer in time"
            raise Unavailable(f"{method} {path}: {type(exc).__name__}: {said}") from exc

    async def _exchange(self, request: httpx.Request) -> Response:
        deadline = asyncio.get_running_loop().time() + self._timeouts.total
        async with asyncio.timeout_at(deadline):
            answer = await self._client.send(request, stream=True)
        body, is_whole = bytearray(), True
        try:
            async with asyncio.timeout_at(deadline):
                await self._read_into(body, answer)
        except (httpx.HTTPError, httpx.StreamError, OSError, Unavailable):
            if is_success(answer.status_code):
                raise
            is_whole = False  # its status and Retry-After stand, whatever became of its words
        finally:
            await answer.aclose()
        return Response(
            status=answer.status_code,
            body=bytes(body),
            text=self._clean(
                body[:LOOKED_AT].decode(errors="replace"),
                is_cut=len(body) > LOOKED_AT or not is_whole,
            ),
            retry_after=retry_after(answer.headers),
        )

    async def _read_into(self, body: bytearray, answer: httpx.Response) -> None:
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > self._body_limit:
                raise Unavailable(
                    f"{answer.request.method} {answer.request.url.path}: "
                    f"the answer is larger than {self._body_limit} bytes"
                )

    def _clean(self, text: str, *, is_cut: bool = False) -> str:
        return trim(self._redactor(text, is_cut=is_cut), is_cut=is_cut)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _ask_fence(event: str, _info: dict[str, Any]) -> None:
    """Ask the fence once the connection stands (httpcore tells of each stage of a request)."""
    if event.endswith(("send_request_headers.started", "send_request_body.started")):
        fence.require()


def retry_after(headers: Mapping[str, str], *, most: float = LONGEST_RETRY_AFTER) -> float | None:
    """Read Retry-After (seconds or an HTTP date) as seconds from 0 to `most`; None for all else.

    A date is compared with the sender's own Date, so that its clock may differ from ours.
    """
    value = headers.get("retry-after", "").strip()
    if (seconds := whole_seconds(value, most=most)) is not None:
        return seconds
    until = _http_date(value)
    if until is None:
        return None
    sent = _http_date(headers.get("date", "")) or datetime.now(UTC)
    return min(max((until - sent).total_seconds(), 0.0), most)


def whole_seconds(text: str, *, most: float) -> float | None:
    """Read a number of seconds, ASCII digits alone, as at most `most`; None for all else."""
    return min(float(text), most) if text.isascii() and text.isdigit() else None


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, LookupError):  # it trusts what it splits
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_success(status: int) -> bool:
    """Tell whether a status is of the 2xx family."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
