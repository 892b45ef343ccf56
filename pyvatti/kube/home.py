"""The Namespace this service lives in: its uid tells this installation from all others.

A copy, a restored backup or a second cluster with the same names has another uid. It is read again
and again, to learn that it is being deleted: nothing can be made in it from then on.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import NoReturn

import structlog

from pyvatti.errors import NotOurs, PyvattiError, Unavailable
from pyvatti.kube.answers import Malformed
from pyvatti.kube.backoff import spread
from pyvatti.kube.client import KubeClient
from pyvatti.models import Installation, Manifest

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries to read it
LOOK_PAUSE = 10.0  # seconds between two looks whether it is being deleted
LEAST_PAUSE = 1.0  # the same, while calls are refused because of its end


class Home:
    """Our own Namespace; `instance` is the name of this service in it."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client, self.instance = client, instance
        self._installation: Installation | None = None
        self._known = asyncio.Event()
        self._going = asyncio.Event()
        self.going_since: datetime | None = None  # when its deletion began, by the API server

    @property
    def is_known(self) -> bool:
        """Whether the Namespace was read."""
        return self._installation is not None

    @property
    def is_going(self) -> bool:
        """Whether the Namespace is being deleted, by its own word: that is never taken back."""
        return self._going.is_set()

    @property
    def installation(self) -> Installation:
        """Which pyvatti this is. Raises Unavailable before the Namespace was read."""
        if self._installation is None:
            raise Unavailable("the service has not read its own namespace yet", retry_after=2)
        return self._installation

    async def wait(self) -> Installation:
        """Wait until the Namespace was read."""
        await self._known.wait()
        return self.installation

    async def wait_going(self) -> None:
        """Wait until the Namespace is being deleted."""
        await self._going.wait()

    def require_staying(self) -> None:
        """Raise Unavailable once the Namespace is being deleted: nothing begins there any more."""
        if self.is_going:
            raise Unavailable("the namespace is being deleted: no launch is accepted any more")

    async def run(self) -> NoReturn:
        """Read the Namespace, however often that takes, and then again and again.

        Raises NotOurs once another Namespace has its name: this process belongs to none then.
        """
        pause = FIRST_PAUSE
        while not await self._try():
            await asyncio.sleep(spread(pause, 1.3))
            pause = min(2 * pause, LONGEST_PAUSE)
        while True:
            await self._await_doubt()
            await self._try()

    async def _await_doubt(self) -> None:
        """Rest until the next look; while calls are refused because of its end, not for long."""
        await asyncio.sleep(LEAST_PAUSE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(spread(LOOK_PAUSE, 0.2)):
                await (asyncio.Event() if self.is_going else self._client.terminating).wait()
        self._client.terminating.clear()

    async def look(self) -> bool:
        """Read the Namespace now, and tell whether it is being deleted.

        Only its own word says so: every other answer raises PyvattiError (NotOurs for another
        Namespace of this name).
        """
        if not self.is_going:
            await self._read()
        return self.is_going

    async def _read(self) -> None:
        raw = await self._client.own_namespace()
        if raw is None:
            raise Unavailable(f"namespace {self._client.namespace} does not exist")
        self._take(raw)

    async def _try(self) -> bool:
        try:
            await self._read()
        except NotOurs:
            raise
        except PyvattiError as error:
            tell = log.debug if self.is_going else log.warning  # at its end it is not there
            tell("own namespace not read", error=str(error))
        return self.is_known

    def _take(self, raw: Manifest) -> None:
        uid = raw["metadata"]["uid"]
        if self._installation is None:
            self._installation = Installation(
                namespace=self._client.namespace, namespace_uid=uid, instance=self.instance
            )
            self._known.set()
            log.info("own namespace read", namespace_uid=uid)
        elif uid != self._installation.namespace_uid:
            raise NotOurs(f"another Namespace has the name {self._client.namespace} now")
        if (since := _deleted_at(raw)) is not None and not self.is_going:
            self.going_since = since
            self._going.set()
            log.warning("the namespace is being deleted", since=since.isoformat())


def _deleted_at(raw: Manifest) -> datetime | None:
    """Read when its deletion began, None for one that stays. Raises Malformed."""
    text = raw["metadata"].get("deletionTimestamp")
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise Malformed("a Namespace with an odd deletionTimestamp") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
