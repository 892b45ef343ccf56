"""Asks the API server at start whether this service may do what it needs to do.

The list is the whole truth about what the code uses; the chart's Role grants exactly this. Only
Kueue's words are read beside it (`workloads`, where a queue is set): without them jobs go on.
"""

import asyncio
from typing import NoReturn

import structlog

from pyvatti.errors import PyvattiError
from pyvatti.kube import (
    CONFIGMAPS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    Kind,
    KubeClient,
)

log = structlog.get_logger(__name__)

NEEDED: tuple[tuple[Kind, str, tuple[str, ...]], ...] = (
    (JOBS, "", ("create", "delete", "get", "list", "patch", "watch")),
    (PODS, "", ("delete", "list", "watch")),
    (PODS, "log", ("get",)),
    (SECRETS, "", ("create", "delete", "get", "list", "patch")),
    (CONFIGMAPS, "", ("create", "delete", "get", "list", "patch")),
    (EVENTS, "", ("create", "list")),
    (LEASES, "", ("create", "get", "update")),
    (NAMESPACES, "", ("get",)),  # its own alone: whose uid tells this installation from others
)
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0  # seconds between two checks while something is missing


class Permissions:
    """What is missing, as far as it was asked: `verb resource`, sorted."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.missing: list[str] = []

    async def watch(self) -> NoReturn:
        """Ask until nothing is missing, then rest; loud while something is."""
        pause = FIRST_PAUSE
        while True:
            try:
                self.missing = await self._ask()
            except PyvattiError as error:
                log.warning("permissions not checked", error=str(error))
            else:
                if not self.missing:
                    log.info("permissions are complete")
                    await asyncio.Event().wait()
                log.error("permissions are missing", missing=self.missing)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _ask(self) -> list[str]:
        missing = []
        for kind, subresource, verbs in NEEDED:
            for verb in verbs:
                if not await self._client.review_access(verb, kind, subresource):
                    name = f"{kind.plural}/{subresource}" if subresource else kind.plural
                    missing.append(f"{verb} {name}")
        return sorted(missing)
