"""Blocking calls of google-cloud-storage in threads: time limits, retries, errors of ours.

Knows no bucket and no object: those are in the functions it is given.
"""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    PyvattiError,
    RateLimited,
    Rejected,
    Unavailable,
    trim,
)
from pyvatti.rest import LONGEST_PAUSE, retry_after
from pyvatti.storage.answers import MEANS_WAIT, read_refusal
from pyvatti.storage.connection import Connection, Line, NotAnswered, line_of_call
from pyvatti.telemetry import counted

MOST_THREADS = 32  # given-up calls included

T = TypeVar("T")


class Calls:
    """Runs functions of the client in at most `threads` threads at a time, half of them a bucket.

    A thread cannot be cancelled. A call that is given up (time limit, cancellation) frees its
    turn at once and cuts the thread's connection, which ends it. What waits for something else, as
    for the look-up of a name, ends by itself; MOST_THREADS bounds what piles up so.
    """

    def __init__(self, connection: Connection, threads: int) -> None:
        self.timeout = connection.timeout
        self.pauses = connection.patience.pauses
        self._seconds = connection.patience.call
        self._connection = connection
        self._turns = CapacityLimiter(threads)
        self._share = threads // 2
        self._shares: dict[str, _Share] = {}
        self._threads = CapacityLimiter(MOST_THREADS)  # only keeps us off anyio's shared default
        self._running = 0
        self._lock = threading.Lock()

    async def run(self, what: str, call: Callable[[Any], T], *, bucket: str) -> T:
        """Call once with the client, about a bucket or, if it is empty, about many.

        Raises Unavailable, Denied, Conflict or Rejected.
        """
        with counted("storage"), mapped(what):
            await self._connection.ready()  # needs no turn: all callers wait for one token
        async with self._turn(bucket):
            with counted("storage"), mapped(what):
                if self._running >= MOST_THREADS:
                    raise Unavailable(f"{what}: too many calls hang")
                async with asyncio.timeout(self._seconds):
                    return await self._in_thread(call)

    async def patiently(self, what: str, call: Callable[[Any], T], *, bucket: str) -> T:
        """Call again after each pause while it is Unavailable: for calls that change nothing."""
        for pause in self.pauses:
            try:
                return await self.run(what, call, bucket=bucket)
            except Unavailable as exc:
                if isinstance(exc, Denied) or exc.retry_after:
                    raise
                await asyncio.sleep(jittered(pause))
        return await self.run(what, call, bucket=bucket)

    @asynccontextmanager
    async def _turn(self, bucket: str) -> AsyncIterator[None]:
        """Wait for a turn; a bucket whose calls hang never holds the turns of all others."""
        share = self._shares.setdefault(bucket, _Share(CapacityLimiter(self._share)))
        share.users += 1
        try:
            async with share.turns, self._turns:
                yield
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[bucket]

    async def _in_thread(self, call: Callable[[Any], T]) -> T:
        line = Line()
        try:
            return await to_thread.run_sync(
                self._counted, call, line, limiter=self._threads, abandon_on_cancel=True
            )
        except asyncio.CancelledError:
            line.cut()
            raise

    def _counted(self, call: Callable[[Any], T], line: Line) -> T:
        with self._lock:
            self._running += 1
        line_of_call.set(line)  # in the thread's own copy of the context
        try:
            return call(self._connection.client)
        except api.Unauthorized:
            self._connection.doubt()
            raise
        finally:
            line.release()
            with self._lock:
                self._running -= 1


@dataclass(slots=True)
class _Share:
    """The turns of one bucket, and how many calls have or want one."""

    turns: CapacityLimiter
    users: int = 0


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
    except NotAnswered as exc:
        raise of_status(exc.status, f"{what}: {exc}", exc.retry_after) from exc
    except api.GoogleAPICallError as exc:
        raise _of_answer(what, exc) from exc
    except auth.GoogleAuthError as exc:
        kind = Denied if _is_refused(exc) else Unavailable
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
    if status in (401, 403, 407):
        return Denied(text)
    if status == 409:
        return AlreadyExists(text)
    if status == 412:
        return Conflict(text)
    if status == 429:
        return RateLimited(text, retry_after=retry_after)
    if status in MEANS_WAIT or status is None or not 400 <= status < 500:
        return Unavailable(text, retry_after=retry_after)
    return Rejected(text)


def _is_refused(exc: Any) -> bool:
    """Tell credentials that a token endpoint refuses from an endpoint that is of no use now.

    The library gives a metadata server that is away the form of a refusal, with the cause behind.
    """
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, auth.TransportError):
        cause = cause.__cause__
    if cause is None:
        return not exc.retryable
    answer = cause.args[1] if len(cause.args) > 1 else None
    status = getattr(answer, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in MEANS_WAIT


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
