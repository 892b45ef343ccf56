"""Kubernetes Events on the Job, so that `kubectl describe job` tells the story.

Best effort: a bounded queue, one writer, a lost Event harms nothing. Never a place for state.
"""

import asyncio
import time
from datetime import datetime

import structlog

from pyvatti import foreign, labels
from pyvatti.errors import PyvattiError
from pyvatti.kube import EVENTS, KubeClient
from pyvatti.models import Job, Manifest

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 1000
BURST = 50  # Events posted without a pause; a full queue at this pace is told within a minute
PAUSE = 0.05  # seconds between two after that: a burst of launches must not wait for its Events
NOTE_LIMIT = 1024  # bytes, by the Events API
CONTROLLER = f"{labels.PREFIX}/pyvatti"


class EventRecorder:
    """Posts Events one after another; drops them while the API server cannot keep up."""

    def __init__(self, client: KubeClient, identity: str) -> None:
        self._client = client
        self._identity = identity
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(QUEUE_LIMIT)

    def note(
        self, job: Job, reason: str, note: str, now: datetime, *, warning: bool = False
    ) -> None:
        """Queue an Event about a Job: `reason` CamelCase, `note` a sentence."""
        note = foreign.clean_known(note)
        try:
            self._queue.put_nowait(self._event(job, reason, note, now, warning=warning))
        except asyncio.QueueFull:
            log.debug("event dropped", reason=reason)

    async def run(self) -> None:
        """Post queued Events until cancelled."""
        due = 0.0  # when the posted ones would be told at one each PAUSE
        while True:
            event = await self._queue.get()
            now = time.monotonic()
            due = max(due, now - BURST * PAUSE) + PAUSE
            await asyncio.sleep(due - now)
            try:
                await self._client.create(EVENTS, event)
            except PyvattiError as error:
                log.debug("event not posted", reason=event["reason"], error=str(error))

    def _event(self, job: Job, reason: str, note: str, now: datetime, *, warning: bool) -> Manifest:
        namespace = self._client.namespace
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{job.names.base}.", "namespace": namespace},
            "eventTime": now.isoformat(timespec="microseconds"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity[:128],
            "action": reason,
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": note.encode()[:NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job.names.base,
                "namespace": namespace,
                "uid": job.uid,
            },
        }
