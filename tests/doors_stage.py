"""The doors of a service on the sandbox world, without the service: a test takes each step itself.

No assertions.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import T0, job
from stage import FAST

from pyvatti import labels
from pyvatti.app import _open_doors
from pyvatti.jobs import names_for
from pyvatti.lifecycle import records
from pyvatti.lifecycle.clock import utc_now
from pyvatti.lifecycle.doors import Doors, Limits
from pyvatti.lifecycle.sweeper import Sweeper
from pyvatti.models import Job, Manifest, State
from pyvatti.policy import Progress
from pyvatti.sandbox.kube.resources import CONFIGMAPS
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.telemetry import metrics

NAMESPACE = "intervene-dev"
BASE = "intp00000000777"
UID = "00000000-0000-4000-8000-000000000777"
LONG_AGO = datetime.now(UTC) - timedelta(hours=2)
DAYS_AGO = datetime.now(UTC) - timedelta(days=15)


@dataclass
class Scene:
    """Doors, the world behind them, and what tests put into it."""

    doors: Doors
    world: World
    sweeper: Sweeper

    async def sweep(self, times: int = 1) -> None:
        """Make sweeps, one after another."""
        for _ in range(times):
            await self.sweeper.sweep()

    def marks(self, component: str = labels.DRIVER, base: str = BASE) -> dict[str, str]:
        """Give the labels of an object of a job."""
        own = labels.identity(self.doors.installation, component)
        return own | {labels.JOB_ID: base, labels.JOB_UID: UID}

    def put(self, kind: Any, name: str, created: datetime = LONG_AGO, **body: Any) -> Manifest:
        """Put an object into the cluster as if it had been there for some time."""
        store = self.world.kube.store
        metadata = {"name": name} | body.pop("metadata", {})
        store.create(kind, NAMESPACE, {"metadata": metadata, **body})
        moment = f"{created:%Y-%m-%dT%H:%M:%SZ}"
        store.mutate(
            kind, NAMESPACE, name, lambda made: made["metadata"].update(creationTimestamp=moment)
        )
        return self.get(kind, name)

    def get(self, kind: Any, name: str) -> Manifest:
        """Give an object of the cluster."""
        found: Manifest = self.world.kube.store.get(kind, NAMESPACE, name)
        return found

    def put_bucket(
        self, name: str = "", created: datetime = LONG_AGO, base: str = BASE, **changes: str
    ) -> str:
        """Put a bucket with one object into the world; by default the job's work bucket."""
        whose = self.doors.installation
        own = labels.of_bucket(whose, base, UID) | {
            key.replace("_", "-"): value for key, value in changes.items()
        }
        work = names_for(base, NAMESPACE, UID).work_bucket
        made = self.world.storage.add_bucket(name or work, labels=own)
        made.created = created
        self.world.storage.put_object(made.name, "data/genome.pgen", b"ACGT")
        return made.name

    @property
    def buckets(self) -> list[str]:
        """Name the buckets there are."""
        return list(self.world.storage.buckets)

    def put_record(
        self,
        of: Job,
        done: Progress,
        created: datetime = LONG_AGO,
        change: Any = lambda _manifest: None,
    ) -> Manifest:
        """Put the record of a finished job into the cluster, changed by somebody."""
        whose = self.doors.installation
        made = records.build(self.doors.renderer, of, whose, done, self.doors.clock())
        change(made)
        metadata = made["metadata"]
        name = metadata.pop("name")
        return self.put(CONFIGMAPS, name, created, metadata=metadata, data=made["data"])

    def events(self) -> list[tuple[str, str]]:
        """Give (reason, name of the object) of our Events, which wait to be posted."""
        queued = self.doors.events._queue._queue  # type: ignore[attr-defined]
        return [(item["reason"], item["regarding"]["name"]) for item in queued]


def finished(state: State = State.SUCCEEDED, base: str = BASE, **changes: Any) -> Job:
    """Make a finished job with the names of the scene."""
    names = names_for(base, NAMESPACE, UID)
    usual = {"names": names, "uid": UID, "transitions": {State.CREATED: T0, state: T0}}
    return job(state, **(usual | changes))


def gauge(name: str, **marks: str) -> float:
    """Give the value of a gauge of this process."""
    return metrics.registry.get_sample_value(name, marks) or 0.0


@asynccontextmanager
async def scene(folder: Path, **changes: str) -> AsyncIterator[Scene]:
    """Open the doors on a world without a service."""
    async with World(speed=40.0, rate_limit=False) as world, AsyncExitStack() as stack:
        environment = world.environment(folder) | FAST | changes
        settings = Settings.model_validate(
            {name.lower(): value for name, value in environment.items()}
        )
        doors = await _open_doors(settings, stack, Limits(), utc_now)
        assert not await doors.home.look()
        yield Scene(doors, world, Sweeper(doors))
