"""Blocking calls of google-cloud-storage in threads: time limits, retries, errors of ours.

Knows no bucket and no object: those are in the functions it is given.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from pyvatti import fence
from pyvatti.errors import (
    AlreadyExists,
    ConfigurationError,
    Conflict,
    Denied,
    PyvattiError,
    RateLimited,
    Rejected,
    Unavailable,
    trim,
)
from pyvatti.rest import LONGEST_PAUSE, retry_after
from pyvatti.settings import Settings
from pyvatti.storage.adapters import Adapter
from pyvatti.storage.answers import MEANS_WAIT, is_of_storage, read_refusal
from pyvatti.telemetry import counted

CONNECT_SECONDS = 3.05
MOST_CONNECTIONS = 12  # the client keeps 10 by default and throws further ones away after use
MOST_THREADS = 32  # given-up calls included

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the door waits, in seconds.

    `read` is for the next piece of an answer, `call` for the whole of it: longer than connecting
    and reading once, so that their clearer errors show. `pauses` lie between tries. `settle` is
    for a changed policy of a bucket to be known by all that serve it.
    """

    read: float = 20.0
    call: float = 30.0
    pauses: tuple[float, ...] = (0.2, 1.0)
    settle: float = 30.0


class _NotAnswered(Exception):
    """Something answered that is not Cloud Storage, or that only makes us wait."""

    def __init__(self, status: int, text: str, retry_after: float | None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class _Adapter(Adapter):
    """Asks the fence right before each request: a thread may have waited long for its turn.

    Passes on only what has the form of Cloud Storage's answers: no redirect is followed.
    """

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        fence.require()
        response = super().send(request, *args, **more)
        status = response.status_code
        if not is_of_storage(request, response):
            raise _NotAnswered(503, f"{status} is not an answer of Cloud Storage", None)
        if status in MEANS_WAIT or status >= 500:
            wait = retry_after(response.headers, most=LONGEST_PAUSE)
            raise _NotAnswered(status, f"{status} {response.reason}", wait)
        return response


class Connection:
    """One client for all threads, built by the first call: credentials may have to be fetched."""

    def __init__(self, settings: Settings, patience: Patience) -> None:
        self.patience = patience
        self.timeout = (CONNECT_SECONDS, patience.read)
        self._project = settings.gcp_project
        self._authorities = settings.extra_ca_file
        self._emulator = settings.storage_emulator_host
        self._client: Any = None
        self._lock = threading.Lock()
        if self._emulator and not self._emulator.startswith(("http://", "https://")):
            raise ConfigurationError("STORAGE_EMULATOR_HOST: must begin with http:// or https://")

    def client(self) -> Any:
        """Give the client; blocks, for threads only. Raises what google.auth raises."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def close(self) -> None:
        """Close the idle connections."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Any:
        client = storage.Client(project=self._project, **self._options())
        for scheme in ("http://", "https://"):
            # The way of Google's own samples to size the pool; no public name exists.
            client._http.mount(  # noqa: SLF001
                scheme, _Adapter(self._authorities, pool_maxsize=MOST_CONNECTIONS)
            )
            # The session by which tokens are fetched, with the retries it has by itself
            retries = 3 if scheme == "https://" else 0
            client._http._auth_request.session.mount(  # noqa: SLF001
                scheme, Adapter(self._authorities, max_retries=retries)
            )
        # It serves tracing alone, and asks about buckets in threads of its own, with retries of
        # two minutes and without our limits. The client checks everywhere that it is there.
        client._bucket_metadata_cache = None  # noqa: SLF001
        return client

    def _options(self) -> dict[str, Any]:
        if not self._emulator:
            return {}
        # With real credentials the client would send their token to that host in clear.
        return {
            "credentials": AnonymousCredentials(),
            "client_options": {"api_endpoint": self._emulator},
        }


class Calls:
    """Runs functions of the client in at most `threads` threads at a time.

    A thread cannot be cancelled. A call that is given up (time limit, cancellation) frees its
    turn at once and leaves its thread to end by itself; MOST_THREADS bounds what piles up so.
    """

    def __init__(self, connection: Connection, threads: int) -> None:
        self.timeout = connection.timeout
        self.pauses = connection.patience.pauses
        self._seconds = connection.patience.call
        self._connection = connection
        self._turns = CapacityLimiter(threads)
        self._threads = CapacityLimiter(MOST_THREADS)  # only keeps us off anyio's shared default
        self._running = 0
        self._lock = threading.Lock()

    async def run(self, what: str, call: Callable[[Any], T]) -> T:
        """Call once with the client. Raises Unavailable, Denied, Conflict or Rejected."""
        async with self._turns:
            with counted("storage"), mapped(what):
                if self._running >= MOST_THREADS:
                    raise Unavailable(f"{what}: too many calls hang")
                async with asyncio.timeout(self._seconds):
                    return await to_thread.run_sync(
                        self._counted, call, limiter=self._threads, abandon_on_cancel=True
                    )

    async def patiently(self, what: str, call: Callable[[Any], T]) -> T:
        """Call again after each pause while it is Unavailable: for calls that change nothing."""
        for pause in self.pauses:
            try:
                return await self.run(what, call)
            except Unavailable as exc:
                if isinstance(exc, Denied) or exc.retry_after:
                    raise
                await asyncio.sleep(jittered(pause))
        return await self.run(what, call)

    def _counted(self, call: Callable[[Any], T]) -> T:
        with self._lock:
            self._running += 1
        try:
            return call(self._connection.client())
        finally:
            with self._lock:
                self._running -= 1


def jittered(seconds: float) -> float:
    """Spread a pause by half of it, so that threads do not come back in step."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn every foreign exception into one of ours that says what was tried."""
    try:
        yield
    except PyvattiError:
        raise
    except _NotAnswered as exc:
        raise of_status(exc.status, f"{what}: {exc}", exc.retry_after) from exc
    except api.GoogleAPICallError as exc:
        raise _of_answer(what, exc) from exc
    except auth.GoogleAuthError as exc:
        kind = Unavailable if isinstance(exc, auth.TransportError) or exc.retryable else Denied
        # further arguments are what the token server answered
        raise kind(trim(f"{what}: {exc.args[0] if exc.args else type(exc).__name__}")) from exc
    except TimeoutError as exc:
        raise Unavailable(f"{what}: no complete answer in time") from exc
    except (OSError, api.GoogleAPIError) as exc:  # requests' exceptions are OSErrors
        raise Unavailable(trim(f"{what}: {_kind(exc)}")) from exc
    except (ValueError, TypeError, LookupError, AttributeError) as exc:
        # The client trusts the shape of an answer: one without the shape fails anywhere inside.
        raise Unavailable(f"{what}: answer not understood ({type(exc).__name__})") from exc


def of_status(status: int | None, text: str, retry_after: float | None = None) -> PyvattiError:
    """Give our error for an HTTP status of Cloud Storage."""
    text = trim(text)
    if status in (401, 403):
        return Denied(text)
    if status == 409:
        return AlreadyExists(text)
    if status == 412:
        return Conflict(text)
    if status == 429:
        return RateLimited(text, retry_after=retry_after)
    if status == 408 or status is None or not 400 <= status < 500:
        return Unavailable(text, retry_after=retry_after)
    return Rejected(text)


def _of_answer(what: str, exc: Any) -> PyvattiError:
    """Give our error for Google's own; the client's text, which repeats the URL, is left out."""
    answer = exc.response
    if answer is None:
        return of_status(exc.code, f"{what}: {exc.code} {exc.message}")
    content_type = answer.headers.get("Content-Type") or ""
    refusal = read_refusal(answer.status_code, content_type, answer.content)
    said = f" {refusal.reason}: {refusal.message}" if refusal else ""
    pause = retry_after(answer.headers, most=LONGEST_PAUSE)
    return of_status(exc.code, f"{what}: {exc.code}{said}", pause)


def _kind(exc: BaseException) -> str:
    """Name a failed connection by its innermost cause: the outer ones repeat the URL."""
    kind = type(exc).__name__
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return f"{kind}: {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else kind
