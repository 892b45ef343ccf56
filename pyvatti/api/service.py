"""What the routes are handed: intake, reader, and whether the process lives and is ready."""

import asyncio
import time
from typing import NoReturn

from pyvatti.api.access import Followers
from pyvatti.kube import Elector
from pyvatti.lifecycle.controller import Controller
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.intake import Intake
from pyvatti.lifecycle.permissions import Permissions
from pyvatti.lifecycle.reading import Reader
from pyvatti.lifecycle.supervision import Supervisor

BEAT = 1.0  # seconds
LONGEST_SILENCE = 60.0  # seconds without a beat after which the process counts as stuck


class Service:
    """The running service, as the API sees it."""

    def __init__(
        self,
        doors: Doors,
        elector: Elector,
        controller: Controller,
        permissions: Permissions,
        supervisor: Supervisor,
    ) -> None:
        self.doors = doors
        self._supervisor = supervisor
        self._permissions = permissions
        self.intake = Intake(doors)
        self.reader = Reader(doors)
        self.followers = Followers()
        self._elector, self._controller = elector, controller
        self._beat = time.monotonic()

    async def beat(self) -> NoReturn:
        """Show that the event loop turns, until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT)

    def ailments(self) -> list[str]:
        """Say what is stuck in this process, so that a restart helps; empty when it is healthy."""
        now, found = time.monotonic(), []
        if self._supervisor.failure:
            found.append(f"a part of the service ended: {self._supervisor.failure}")
        if now - self._beat > LONGEST_SILENCE:
            found.append("the event loop does not turn")
        if self._elector.is_leader and now - self._controller.beat > LONGEST_SILENCE:
            found.append("no passes are being made")
        return found

    def obstacles(self) -> list[str]:
        """Say what keeps this replica from serving; empty when it is ready."""
        cache = self.doors.cache
        if self._supervisor.failure:
            return [f"a part of the service ended: {self._supervisor.failure}"]
        if not self.doors.home.is_known:
            return ["the service has not read its own namespace yet"]
        if self.doors.home.is_going:
            return ["the namespace is being deleted"]
        if not cache.is_synced:
            return ["the cluster's state is not read yet"]
        if not cache.is_fresh(time.monotonic()):
            return ["the Kubernetes API is not heard"]
        return [f"permission is missing: {name}" for name in self._permissions.missing]
