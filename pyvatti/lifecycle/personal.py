"""What of each live job's request must not be told, as this process knows it.

Every replica reads it from the Secret beside the Job when the job's foreign texts first matter, and
keeps it: the Secret goes when the Job begins to go, while its pods still speak. Bounded in memory;
of a job that is not known texts lose all that looks personal (`foreign.clean_unknown`).
"""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import structlog

from pyvatti import foreign, labels
from pyvatti.errors import InvalidRequest, PyvattiError
from pyvatti.kube import SECRETS, KubeClient
from pyvatti.launch import parse_launch
from pyvatti.launch.personal import redactor_of
from pyvatti.manifests import REQUEST
from pyvatti.models import Job, Manifest, State
from pyvatti.redaction import Redactor

log = structlog.get_logger(__name__)

MOST_BYTES = 8 * 2**20  # of values kept; of a usual request they are about 1 KiB
PAUSE = 30.0  # seconds between two looks for a Secret that could not be read


class Personal:
    """Redactors of live jobs by the Job's uid, the least lately used dropped first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._known: OrderedDict[str, Redactor] = OrderedDict()
        self._bytes = 0
        self._asked: dict[str, float] = {}  # uid -> when its Secret was asked for in vain

    def of(self, uid: str) -> Redactor | None:
        """Give what takes out a job's personal data; None where that is not known."""
        redactor = self._known.get(uid)
        if redactor is not None:
            self._known.move_to_end(uid)
        return redactor

    def learn(self, uid: str, secret: Manifest | None) -> bool:
        """Take the request from the driver's Secret of a Job; tell whether it was news."""
        if uid in self._known or secret is None or labels.owner_uid(secret) != uid:
            return False
        try:
            body = base64.b64decode((secret.get("data") or {})[REQUEST])
            redactor = redactor_of(parse_launch(body))
        except (KeyError, TypeError, ValueError, InvalidRequest):
            return False
        self._known[uid] = redactor
        self._bytes += redactor.size
        while self._bytes > self._most_bytes and len(self._known) > 1:
            self.forget(next(iter(self._known)))
        return True

    def forget(self, uid: str) -> None:
        """Forget a job that is gone."""
        redactor = self._known.pop(uid, None)
        self._bytes -= redactor.size if redactor is not None else 0
        self._asked.pop(uid, None)

    async def read(self, kube: KubeClient, job: Job) -> bool:
        """Read the request of a released job that is not known; tell whether it is now.

        Not again for a while if that fails. Then, and if the Secret is gone, the job stays unknown.
        """
        if job.state is State.REQUESTED or job.uid in self._known:
            return False
        now = time.monotonic()
        if now < self._asked.get(job.uid, now - PAUSE) + PAUSE:
            return False
        self._asked[job.uid] = now
        try:
            return self.learn(job.uid, await kube.get(SECRETS, job.names.base))
        except PyvattiError as error:
            log.info("request not read", job=job.names.base, error=str(error))
            return False

    def cleaner(self, uid: str) -> Callable[[str], str]:
        """Give what cleans the annotations of a Job: they were clean when we wrote them."""
        known = self.of(uid)
        return foreign.without_secrets if known is None else partial(foreign.clean_for, known)

    def pod_cleaner(self, uid: str) -> Callable[[str], str]:
        """Give what cleans the texts of a Job's pods; the end of a log begins anywhere."""
        return partial(foreign.clean_for, self.of(uid), is_cut=True)
