"""An informer at work on a scripted API server, with short limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kube_scripted import (
    Scripted,
    Step,
    answer,
    job,
    listing,
    running,
    scripted,
    stream,
)

from pyvatti.kube import JOBS, Informer, KubeClient, WatchLimits
from pyvatti.models import Manifest

# Asks again soon; all that is judged by time is as in operation.
LIMITS = WatchLimits(short=0.05, backoff=0.01, backoff_cap=0.1)
IMPATIENT = replace(LIMITS, idle=0.3)  # with silence, and nothing that could be late
QUIET = stream(then="hang")


@dataclass
class Followed:
    """An informer at work: what it was told, in short, and what it told."""

    server: Scripted
    client: KubeClient
    informer: Informer
    changes: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        return [_short(old, new) for old, new in self.changes]

    @property
    def names(self) -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in self.informer.items())

    def version(self, name: str) -> str | None:
        obj = self.informer.get(name)
        return obj["metadata"]["resourceVersion"] if obj else None

    def watched_from(self) -> list[str]:
        return [request.query["resourceVersion"] for request in self.server.seen("WATCH")]


def _short(old: Manifest | None, new: Manifest | None) -> str:
    one = new or old or {}
    word = "+" if old is None else "-" if new is None else "~"
    return f"{word}{one['metadata']['name']}@{one['metadata']['resourceVersion']}"


@asynccontextmanager
async def following(
    folder: Path, *, limits: WatchLimits = LIMITS, trim: Any = None, **steps: list[Step]
) -> AsyncIterator[Followed]:
    async with scripted(folder, **steps) as (server, client):
        changes: list[tuple[Any, Any]] = []
        informer = Informer(
            client,
            JOBS,
            selector="app=x",
            on_change=lambda old, new: changes.append((old, new)),
            trim=trim,
            limits=limits,
        )
        async with running(informer.run()):
            yield Followed(server, client, informer, changes)


def lists(*objects: Manifest, version: int | str) -> Step:
    return answer(listing(*objects, version=version))


A1, A2, A3, B1 = job("a", 1), job("a", 2), job("a", 3), job("b", 1)
