"""What a clean-up comes to know is kept, whatever ends its pass."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders import INSTALLATION, NAMES, T0, UID, job, seen
from structlog.testing import capture_logs

from pyvatti.errors import Conflict
from pyvatti.kube import PODS, Kind
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.actor import JobActor
from pyvatti.lifecycle.guards import Guards, Item
from pyvatti.lifecycle.remains import Remains
from pyvatti.lifecycle.turns import NotYet
from pyvatti.lifecycle.writing import Wrote
from pyvatti.models import Delivery, Event, Job, Manifest, Notice, State
from pyvatti.policy import Progress
from pyvatti.policy import actions as act

NOBODY: Any = SimpleNamespace(note=lambda *_, **__: None)


class Cluster:
    """Holds a pod that runs on and a Secret of somebody else under the transfer's name."""

    async def list_page(self, *_: Any, **__: Any) -> Any:
        owner = {"kind": "Job", "name": NAMES.base, "uid": UID}
        metadata = {"name": "a", "uid": "pod-1", "ownerReferences": [owner]}
        return SimpleNamespace(items=[{"metadata": metadata, "status": {"phase": "Running"}}])

    async def get(self, kind: Kind, name: str) -> Manifest | None:
        is_there = kind is not PODS and name == NAMES.transfer_secret
        return {"metadata": {"name": name, "uid": "x", "labels": {}}} if is_there else None

    async def delete(self, *_: Any, **__: Any) -> None: ...


class Writer:
    """Counts the Events by their reason."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, _: Job, reason: str, *__: Any, **___: Any) -> None:
        self.told.append(reason)


def stage(writer: Any) -> tuple[Hands, JobActor]:
    cache = SimpleNamespace(pods=lambda _: (), note_removals=lambda *_: None, job=lambda *_: None)
    doors: Any = SimpleNamespace(
        kube=Cluster(), cache=cache, installation=INSTALLATION, remains=Remains(), clock=lambda: T0
    )
    hands = Hands(doors, writer, cast("Any", None), frozenset)
    return hands, JobActor(doors, hands, cast("Any", None), job(), lambda: None)


async def test_what_is_not_ours_is_told_once_while_a_pod_lives():
    writer = Writer()
    _, actor = stage(writer)
    for _ in range(3):
        with pytest.raises(NotYet):
            await actor._act(act.RemoveStrays(), seen(job(State.FAILED)))

    assert writer.told == ["DataRemains"]
    assert [item.resource for item in actor.progress.remaining] == [
        f"secret/{NAMES.transfer_secret}"
    ]


async def test_the_words_of_an_unexpected_error_are_not_logged():
    guards = Guards(NOBODY, first=1.0)

    async def sweep() -> None:
        raise ValueError("jane.doe@example.org")

    with capture_logs() as logs:
        await guards.run(Item("pod", "a", "u", PODS), sweep)

    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("sweep of one thing broke", "ValueError")
    ]
    assert "jane" not in str(logs)
    assert "exc_info" not in logs[0]


LOST = Notice(sequence=1, event=Event.FAILED, at=T0, delivery=Delivery.DEAD)
TOLD = replace(LOST, delivery=Delivery.DELIVERED)


class Newest(Writer):
    """Builds a write from the version of the Job that a redelivery left."""

    async def patch(self, _: Job, build: Any) -> Wrote:
        build(job(State.FAILED, outbox=(TOLD,)))
        return Wrote.WRITTEN


@pytest.mark.parametrize("recorded", [LOST, TOLD], ids=["lost", "told"])
async def test_a_job_is_let_go_only_where_its_record_says_how_its_events_ended(recorded: Notice):
    hands, _ = stage(Newest())
    done = Progress(recorded=True, recorded_outbox=(recorded,))
    of = job(State.FAILED, outbox=(LOST,))

    if recorded is TOLD:
        assert (await hands.do(act.LetGo(), seen(of), done)).let_go
        return
    with pytest.raises(Conflict):
        await hands.do(act.LetGo(), seen(of), done)
