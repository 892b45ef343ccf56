"""What every part of the lifecycle is handed: the doors, the settings, the clock.

Values only; nobody reaches a door that is not named here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pyvatti.backend import Backend
from pyvatti.kube import KubeClient
from pyvatti.lifecycle.cache import Cache
from pyvatti.lifecycle.events import EventRecorder
from pyvatti.manifests import Renderer
from pyvatti.seqera import Seqera
from pyvatti.settings import Settings
from pyvatti.storage import BucketLimiter, Storage

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Read the wall clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """One of each, for the whole process."""

    settings: Settings
    kube: KubeClient
    storage: Storage
    limiter: BucketLimiter
    seqera: Seqera
    backend: Backend
    renderer: Renderer
    cache: Cache
    events: EventRecorder
    clock: Clock = utc_now
