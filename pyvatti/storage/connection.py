"""One client of google-cloud-storage for all threads, with the token that it needs.

Passes on only what has the form of Cloud Storage's answers. A call that is given up can cut its
connection, so that its thread ends however slowly an answer trickles.
"""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import google.auth
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import Request
from google.cloud import storage
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pyvatti import fence
from pyvatti.errors import ConfigurationError, Unavailable
from pyvatti.rest import LONGEST_PAUSE, retry_after
from pyvatti.settings import Settings
from pyvatti.storage.adapters import Adapter
from pyvatti.storage.answers import MEANS_WAIT, is_of_storage

CONNECT_SECONDS = 3.05
TOKEN_TRY_SECONDS = 5.0  # for one request to a token endpoint; the library's own: 120
MOST_CONNECTIONS = 12  # the client keeps 10 by default and throws further ones away after use


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the door waits, in seconds.

    `read` is for the next piece of an answer, `call` for the whole of it: longer than connecting
    and reading once, so that their clearer errors show. `token` is for credentials, from when the
    first caller wants them. `pauses` lie between tries. `settle` is for a changed policy of a
    bucket to be known by all that serve it.
    """

    read: float = 20.0
    call: float = 30.0
    token: float = 15.0
    pauses: tuple[float, ...] = (0.2, 1.0)
    settle: float = 30.0


class NotAnswered(Exception):
    """Something answered that is not Cloud Storage, or that only makes us wait."""

    def __init__(self, status: int, text: str, retry_after: float | None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Line:
    """The socket that one call waits on: once cut, the call's thread ends with an error.

    It is held by a descriptor of its own, so that neither TLS nor the pool of connections is
    touched. A call whose answer is read may be cut for another that has its connection by then:
    that one sees a lost connection, which it must bear anyway.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    def require(self) -> None:
        """Raise OSError after the cut."""
        if self._is_cut:
            raise OSError("the call is given up")

    def hold(self, found: socket.socket) -> None:
        """Take the socket of the next request. Raises OSError after the cut."""
        with self._lock:
            self.require()
            self._let_go()
            self._socket = socket.fromfd(found.fileno(), found.family, found.type)

    def cut(self) -> None:
        """End whatever waits on the socket, and every later request of the call."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the other side was faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let the socket go: the call has ended."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


line_of_call: ContextVar[Line | None] = ContextVar("line_of_call", default=None)


def _held(found: socket.socket) -> socket.socket:
    """Let the call of this thread hold a new socket. Raises OSError after the cut."""
    try:
        _hold(found)
    except OSError:
        found.close()
        raise
    return found


def _hold(found: socket.socket | None) -> None:
    line = line_of_call.get()
    if line is not None and found is not None:
        line.hold(found)


class _PlainConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _held(super()._new_conn())

    def request(self, *args: Any, **more: Any) -> None:
        _hold(self.sock)  # of the pool
        super().request(*args, **more)


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _held(super()._new_conn())

    def request(self, *args: Any, **more: Any) -> None:
        _hold(self.sock)  # of the pool
        super().request(*args, **more)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _PlainPool, "https": _TlsPool}
_SCHEMES = ("http://", "https://")


class _HeldAdapter(Adapter):
    """Lets the call of this thread hold its connection, so that it can be cut."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        if (line := line_of_call.get()) is not None:
            line.require()  # no further try of a call that is given up
        return super().send(request, *args, **more)


class _Adapter(_HeldAdapter):
    """Asks the fence right before each request: a thread may have waited long for its turn.

    Passes on only what has the form of Cloud Storage's answers: no redirect is followed.
    """

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        fence.require()
        response = super().send(request, *args, **more)
        status = response.status_code
        if not is_of_storage(request, response):
            raise NotAnswered(503, f"{status} is not an answer of Cloud Storage", None)
        if status in MEANS_WAIT or status >= 500:
            wait = retry_after(response.headers, most=LONGEST_PAUSE)
            raise NotAnswered(status, f"{status} {response.reason}", wait)
        return response


class _TokenRequest:
    """Asks for tokens. A single try never takes the two minutes of the library's own requests."""

    def __init__(self, authorities: str) -> None:
        self._request = Request()
        self.session = self._request.session  # where the library mounts certificates
        for scheme in _SCHEMES:
            self.session.mount(scheme, _HeldAdapter(authorities))

    def __call__(self, *args: Any, timeout: float = TOKEN_TRY_SECONDS, **more: Any) -> Any:
        return self._request(*args, timeout=timeout, **more)


class Connection:
    """One client for all threads. Its first call builds it: credentials may have to be fetched."""

    def __init__(self, settings: Settings, patience: Patience) -> None:
        self.patience = patience
        self.timeout = (CONNECT_SECONDS, patience.read)
        self._project = settings.gcp_project
        self._authorities = settings.extra_ca_file
        self._emulator = settings.storage_emulator_host
        self._client: Any = None
        self._is_doubted = False  # the token was refused
        self._fetcher = ThreadPoolExecutor(1, "credentials")
        self._fetching: Future[None] | None = None
        self._line = Line()  # of the fetching
        self._due = 0.0  # when whoever waits for the fetching gives up, by the loop's clock
        if self._emulator and not self._emulator.startswith(("http://", "https://")):
            raise ConfigurationError("STORAGE_EMULATOR_HOST: must begin with http:// or https://")

    @property
    def client(self) -> Any:
        """The client; only after `ready`."""
        return self._client

    async def ready(self) -> None:
        """Have a client with a valid token. One thread fetches it, for all who wait.

        They give up together, `patience.token` seconds after the first began; the thread goes on,
        for `patience.call` at most, and until it ends nobody waits again. Raises Unavailable then,
        and what google.auth raises.
        """
        if self._is_ready():
            return
        now = asyncio.get_running_loop().time()
        if self._fetching is None or self._fetching.done():
            self._line = Line()
            self._fetching = self._fetcher.submit(self._fetch, self._line)
            self._due = now + self.patience.token
        fetching = asyncio.wrap_future(self._fetching)
        fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({fetching}, timeout=max(self._due - now, 0.0))
        if not fetching.done():
            if now > self._due + self.patience.call:
                self._line.cut()  # an answer that trickles would keep the thread for ever
            raise Unavailable("no credentials in time: the token endpoint does not answer")
        fetching.result()

    def doubt(self) -> None:
        """Have the token renewed before the next call: it was refused (401)."""
        self._is_doubted = True

    def close(self) -> None:
        """Close the idle connections."""
        self._fetcher.shutdown(wait=False, cancel_futures=True)
        self._line.cut()  # the interpreter waits for the thread before it ends
        if self._client is not None:
            self._client.close()

    def _is_ready(self) -> bool:
        if self._client is None:
            return False
        return bool(self._emulator) or (self._credentials.valid and not self._is_doubted)

    @property
    def _credentials(self) -> Any:
        return self._client._credentials  # noqa: SLF001 - with the scopes that the client added

    def _fetch(self, line: Line) -> None:
        """Build the client, and renew its token if need be; blocks."""
        line_of_call.set(line)  # in the thread of its own
        try:
            if self._client is None:
                self._client = self._connect()
            if not self._is_ready():
                self._credentials.refresh(_TokenRequest(self._authorities))
                self._is_doubted = False
        finally:
            line.release()

    def _connect(self) -> Any:
        client = storage.Client(project=self._project, **self._options())
        for scheme in _SCHEMES:
            # The way of Google's own samples to size the pool; no public name exists.
            client._http.mount(  # noqa: SLF001
                scheme, _Adapter(self._authorities, pool_maxsize=MOST_CONNECTIONS)
            )
            # The session of a token that runs out between `ready` and the call
            client._http._auth_request.session.mount(  # noqa: SLF001
                scheme, _HeldAdapter(self._authorities)
            )
        # A token that is refused is renewed for all at once (see ready), not in each thread.
        client._http._max_refresh_attempts = 0  # noqa: SLF001
        # It serves tracing alone, and asks about buckets in threads of its own, with retries of
        # two minutes and without our limits. The client checks everywhere that it is there.
        client._bucket_metadata_cache = None  # noqa: SLF001
        return client

    def _options(self) -> dict[str, Any]:
        if not self._emulator:
            return {"credentials": _find_credentials(self._authorities)}
        # With real credentials the client would send their token to that host in clear.
        return {
            "credentials": AnonymousCredentials(),
            "client_options": {"api_endpoint": self._emulator},
        }


def _find_credentials(authorities: str) -> Any:
    """Find the environment's own credentials.

    Raises TransportError where nothing names a key file and no metadata server answers: the library
    takes one that is away for none at all.
    """
    try:
        request = _TokenRequest(authorities)
        return google.auth.default(scopes=storage.Client.SCOPE, request=request)[0]
    except auth.DefaultCredentialsError as exc:
        if not str(exc).startswith("Your default credentials were not found"):
            raise  # a key file is named, and cannot be read
        text = "no key file is named, and no metadata server answers"
        raise auth.TransportError(text) from exc
