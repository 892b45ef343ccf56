"""What every part of the lifecycle is handed: the doors, their limits, what is known, the clock.

Values only; nobody reaches a door that is not named here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pyvatti.backend import Backend
from pyvatti.kube import Home, KubeClient, WatchLimits
from pyvatti.kube import Limits as KubeLimits
from pyvatti.lifecycle.attempts import Attempts
from pyvatti.lifecycle.cache import Cache
from pyvatti.lifecycle.clock import utc_now
from pyvatti.lifecycle.events import EventRecorder
from pyvatti.lifecycle.remains import Remains
from pyvatti.manifests import Renderer
from pyvatti.models import Installation, Job, Owner
from pyvatti.rest import Timeouts
from pyvatti.seqera import Seqera
from pyvatti.settings import Settings
from pyvatti.storage import BucketLimiter, Patience, Storage

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each neighbour is waited for and how soon it is asked again, in seconds.

    `denied_pause` is the first pause while the backend refuses our credentials.
    """

    kube: KubeLimits = field(default_factory=KubeLimits)
    # A page of whole objects is held while it is trimmed: this many cost about 5 MiB
    watch: WatchLimits = field(default_factory=lambda: WatchLimits(page=100))
    storage: Patience = field(default_factory=Patience)
    seqera: Timeouts = field(default_factory=Timeouts)
    backend: Timeouts = field(default_factory=lambda: Timeouts(total=20.0))
    denied_pause: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """One of each, for the whole process."""

    settings: Settings
    kube: KubeClient
    home: Home
    storage: Storage
    limiter: BucketLimiter
    seqera: Seqera
    backend: Backend
    renderer: Renderer
    cache: Cache
    events: EventRecorder
    attempts: Attempts = field(default_factory=Attempts)
    remains: Remains = field(default_factory=Remains)
    limits: Limits = field(default_factory=Limits)
    clock: Clock = utc_now

    @property
    def installation(self) -> Installation:
        """Which pyvatti this is. Raises Unavailable before its Namespace was read."""
        return self.home.installation

    def owner(self, job: Job) -> Owner:
        """Say whose the buckets of a job are."""
        return Owner(installation=self.installation, job_id=job.names.base, job_uid=job.uid)
