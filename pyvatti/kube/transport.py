"""One raw call to the API server: timeouts, retries, token renewal, errors of ours.

Nothing about resources here. The generated client gives authentication, TLS and request
building; its answers are read as bytes. Only its `call_api` and its session are relied on.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog

from pyvatti import __version__, fence
from pyvatti.errors import ConfigurationError, Denied, Deposed, PyvattiError, Unavailable, trim
from pyvatti.kube.answers import Idle, Unauthenticated, error_for
from pyvatti.kube.backoff import Backoff
from pyvatti.kube.credentials import TOKEN, Credentials
from pyvatti.kube.generated import ApiClient, ApiException
from pyvatti.redaction import Redactor
from pyvatti.telemetry import counted
from pyvatti.ways import proxy_for, trust

log = structlog.get_logger(__name__)

ERROR_BODY_LIMIT = 64 * 2**10
WARNINGS_REMEMBERED = 256
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of all calls: seconds and counts.

    `calls` are under way at a time, the rest wait: each connection has a buffer of 256 KiB, and a
    thousand jobs may all have something to ask. `pool` connections are a hard limit and each watch
    or followed log holds one for hours, so it is well above `calls` and `log_follows` together.
    """

    connect: float = 10.0
    total: float = 60.0
    attempts: int = 4
    backoff: float = 0.2
    backoff_cap: float = 5.0
    calls: int = 32
    pool: int = 64
    log_follows: int = 20
    log_idle: float = 900.0
    log_total: float = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. `idempotent` ones are tried again; `private` ones carry a Secret.

    `urgent` ones do not wait for their turn.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    idempotent: bool = False
    private: bool = False
    urgent: bool = False

    @property
    def target(self) -> str:
        """Method and path, for error messages."""
        return f"{self.method} {self.path}"


class Transport:
    """The one ApiClient of the process: a second one costs a loop stall and a second pool."""

    def __init__(self, api: Any, credentials: Credentials, limits: Limits) -> None:
        self._api = api
        self._credentials = credentials
        self._warned: dict[str, None] = {}
        self._turns = asyncio.Semaphore(limits.calls)
        self.limits = limits

    @classmethod
    async def connect(
        cls, credentials: Credentials, limits: Limits, authorities: str = ""
    ) -> "Transport":
        """Load the configuration and make the client. Raises ConfigurationError.

        `authorities` is a PEM file of further ones that may have signed the server's certificate.
        """
        configuration = await credentials.load()
        configuration.connection_pool_maxsize = limits.pool
        configuration.proxy = configuration.proxy or proxy_for(configuration.host)
        try:
            api = ApiClient(configuration)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"KUBECONFIG: TLS files: {trim(str(error))}") from error
        try:
            _own_session(api.rest_client, authorities)
        except ConfigurationError:
            await api.close()
            raise
        api.user_agent = f"pyvatti/{__version__}"
        api.sanitize_for_serialization = _as_is
        return cls(api, credentials, limits)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def exchange(self, call: Call) -> bytes:
        """Give the body of a 2xx answer within `limits.total` seconds.

        Raises our errors: Unavailable (Denied, QuotaExceeded, PolicyDenied), Conflict
        (AlreadyExists), Rejected (NotFound, NamespaceTerminating), Expired, Deposed.
        """
        deadline = time.monotonic() + self.limits.total
        backoff = Backoff(
            base=self.limits.backoff, cap=self.limits.backoff_cap, calm=self.limits.total
        )
        attempt = 1
        while True:
            try:
                async with self._turn(call, deadline):
                    with counted("kubernetes"):
                        return await self._attempt(call, deadline - time.monotonic())
            except Unavailable as error:
                now = time.monotonic()
                pause = max(backoff.next(now), error.retry_after or 0.0)
                last = attempt >= self.limits.attempts or now + pause >= deadline
                if last or not call.idempotent or isinstance(error, Denied):
                    raise
            attempt += 1
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _turn(self, call: Call, deadline: float) -> AsyncIterator[None]:
        if call.urgent:
            yield
            return
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Unavailable(f"{call.target}: too many calls wait for their turn") from error
        try:
            yield
        finally:
            self._turns.release()

    async def _attempt(self, call: Call, seconds: float) -> bytes:
        times = aiohttp.ClientTimeout(
            total=seconds, connect=self.limits.connect, sock_connect=self.limits.connect
        )
        async with self.stream(call, times) as response:
            return await response.content.read()

    @asynccontextmanager
    async def stream(
        self, call: Call, times: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a 2xx answer to read from; what fails in the body is mapped as well.

        A 401 is answered once with newly read credentials: it was not acted upon. Raises Idle
        when nothing came for `times.sock_read` seconds.
        """
        try:
            async with self._accepted(call, times) as response:
                yield response
        except aiohttp.SocketTimeoutError as error:
            raise Idle(f"{call.target}: silent for {times.sock_read} s") from error
        except (aiohttp.ClientError, OSError, ApiException, ValueError) as error:
            # Our own errors are no ValueError; TimeoutError is an OSError. ValueError: what
            # aiohttp makes of a URL or header it cannot send.
            text = trim(str(error)) or type(error).__name__
            raise Unavailable(f"{call.target}: {type(error).__name__}: {text}") from error

    @asynccontextmanager
    async def _accepted(
        self, call: Call, times: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with await self._send(call, times) as response:
            failure = await self._failure(call, response)
            if failure is None:
                yield response
                return
        renewable = isinstance(failure, Unauthenticated)
        if not renewable or not await self._credentials.renew(self._api.configuration):
            raise failure
        async with await self._send(call, times) as response:
            failure = await self._failure(call, response)
            if failure is not None:
                raise failure
            yield response

    async def _send(self, call: Call, times: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._api.call_api(
            call.path,
            call.method,
            {},
            list(call.query.items()),
            {"Accept": call.accept, "Content-Type": call.content_type},
            body=call.body,
            auth_settings=[TOKEN],
            _preload_content=False,
            _request_timeout=times,
        )
        self._api.last_response = None  # it would keep the last answer alive
        return response

    async def _failure(self, call: Call, response: aiohttp.ClientResponse) -> PyvattiError | None:
        self._log_warnings(call, response)
        if 200 <= response.status < 300:
            return None
        body = bytearray()
        with suppress(aiohttp.ClientError, OSError, ValueError):  # its status says enough
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > ERROR_BODY_LIMIT:
                    break
        return error_for(
            response.status,
            response.headers,
            bytes(body),
            target=call.target,
            private=_values_of(call.body) if call.private else None,
        )

    def _log_warnings(self, call: Call, response: aiohttp.ClientResponse) -> None:
        """Log each text of a `Warning` header once: Pod Security, deprecations, orphaning."""
        for text in response.headers.getall("Warning", []):
            if text in self._warned or len(self._warned) >= WARNINGS_REMEMBERED:
                continue
            self._warned[text] = None
            log.warning("kubernetes warns", target=call.target, warning=trim(text))


class _FencedRequest(aiohttp.ClientRequest):
    """Asks the fence at the last moment, once the connection stands.

    aiohttp may send a request again by itself, and a request with a body waits for the next turn
    of the event loop: a process that is stopped then wakes up right before the write.
    """

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        fence.require()
        return await super().send(conn)

    async def write_bytes(self, writer: Any, conn: Any, *more: Any, **named: Any) -> None:
        try:
            fence.require()
        except Deposed as error:
            if conn.protocol is not None:
                conn.protocol.set_exception(error)  # whoever waits for the answer gets it
            return
        await super().write_bytes(writer, conn, *more, **named)


def _as_is(value: Any) -> Any:
    """Take the place of the client's copying of models to JSON: all we send is plain JSON."""
    return value


def _values_of(secret: dict[str, Any] | None) -> Redactor:
    """Give what takes the values of a Secret out of a text."""
    parts = [(secret or {}).get(key) or {} for key in ("data", "stringData")]
    return Redactor(str(value) for part in parts for value in part.values())


def _own_session(rest_client: Any, authorities: str) -> None:
    """Replace the client's session by one that looks nothing up per request.

    Theirs trusts the environment: aiohttp then reads ~/.netrc and the proxy variables in two
    threads of the default executor for each request. A resolver that hangs there would stop our
    Lease from being renewed, and a netrc entry of that host would make every call fail.
    """
    theirs: aiohttp.ClientSession = rest_client.pool_manager
    connector: Any = theirs.connector
    if isinstance(connector._ssl, ssl.SSLContext):  # noqa: SLF001 - no public name exists
        trust(connector._ssl, authorities)  # noqa: SLF001
    theirs.detach()
    rest_client.pool_manager = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=2**21,
        request_class=_FencedRequest,
    )
