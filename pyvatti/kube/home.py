"""The Namespace this service lives in: its uid tells this installation from all others.

A copy, a restored backup or a second cluster with the same names has another uid.
"""

import asyncio
from typing import NoReturn

import structlog

from pyvatti.errors import PyvattiError, Unavailable
from pyvatti.kube.backoff import spread
from pyvatti.kube.client import KubeClient
from pyvatti.models import Installation

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries to read it


class Home:
    """Our own Namespace, read once; `instance` is the name of this service in it."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client, self.instance = client, instance
        self._installation: Installation | None = None
        self._known = asyncio.Event()

    @property
    def is_known(self) -> bool:
        """Whether the Namespace was read."""
        return self._installation is not None

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

    async def run(self) -> NoReturn:
        """Read the Namespace, however often that takes; then rest until cancelled."""
        pause = FIRST_PAUSE
        while not await self._read():
            await asyncio.sleep(spread(pause, 1.3))
            pause = min(2 * pause, LONGEST_PAUSE)
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")

    async def _read(self) -> bool:
        try:
            raw = await self._client.own_namespace()
        except PyvattiError as error:
            log.warning("own namespace not read", error=str(error))
            return False
        if raw is None:
            log.error("own namespace does not exist", namespace=self._client.namespace)
            return False
        self._installation = Installation(
            namespace=self._client.namespace,
            namespace_uid=raw["metadata"]["uid"],
            instance=self.instance,
        )
        self._known.set()
        log.info("own namespace read", namespace_uid=self._installation.namespace_uid)
        return True
