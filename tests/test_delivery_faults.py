"""Telling and writing back under the worst answers: what the backend took is not told again."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders import INSTALLATION, NAMES, T0, job, settings

from pyvatti import fence, labels
from pyvatti.backend import Answer, Reply
from pyvatti.errors import Conflict, JobNotFound, NotFound, PyvattiError, Unavailable
from pyvatti.jobs import dump_outbox, queued_patch
from pyvatti.kube import CONFIGMAPS, Kind
from pyvatti.lifecycle import records
from pyvatti.lifecycle.attempts import Attempts
from pyvatti.lifecycle.courier import Courier
from pyvatti.lifecycle.personal import Personal
from pyvatti.lifecycle.redelivery import CLAIM_LASTS, redeliver
from pyvatti.lifecycle.writing import JobWriter, Wrote
from pyvatti.models import Delivery, Event, Job, Notice, Presence, Record, State

TOLD = Reply(answer=Answer.DELIVERED, text="200")
BUSY = Reply(answer=Answer.RETRY, text="503")
PENDING = Notice(sequence=1, event=Event.DEPLOYED, at=T0)
LOST = replace(PENDING, event=Event.FAILED, delivery=Delivery.DEAD, settled_at=T0)
PATIENCE = 20.0  # seconds


def raw_job(version: str = "10", **marks: str) -> dict[str, Any]:
    """Give a running Job with a pending event, as the API server answers."""
    metadata = {
        "name": NAMES.base,
        "namespace": INSTALLATION.namespace,
        "uid": NAMES.uid,
        "resourceVersion": version,
        "finalizers": [labels.FINALIZER],
        "labels": labels.identity(INSTALLATION, labels.DRIVER) | {labels.JOB_ID: NAMES.base},
        "annotations": {labels.OUTBOX: dump_outbox((PENDING,)), labels.REQUEST_HASH: "0" * 64}
        | marks,
    }
    return {"kind": "Job", "metadata": metadata}


class Kube:
    """An API server that plays a script: errors to raise, objects to give, None for a 404."""

    def __init__(self, *script: Any) -> None:
        self.script, self.calls = list(script), []

    def _next(self, verb: str) -> Any:
        self.calls.append(verb)
        answer = self.script.pop(0)
        if isinstance(answer, PyvattiError):
            raise answer
        return answer

    async def get(self, *_: Any) -> Any:
        return self._next("get")

    async def merge_patch(self, *_: Any) -> Any:
        return self._next("patch")


class Memory:
    """A cache of one Job."""

    def __init__(self, live: Job | None) -> None:
        self.live = live
        self.lost: list[Any] = []
        self.personal = Personal()

    def job(self, *_: Any) -> Job | None:
        return self.live

    def note_job(self, raw: Any) -> Job:
        outbox = records_outbox(raw)
        marks = raw["metadata"]["annotations"]
        version = raw["metadata"]["resourceVersion"]
        found = job(State.DEPLOYED, outbox=outbox, resource_version=version)
        self.live = replace(found, withdrawn=labels.WITHDRAWN in marks)
        return self.live

    def patch_lost(self, *patch: Any) -> None:
        self.lost.append(patch)


def records_outbox(raw: dict[str, Any]) -> tuple[Notice, ...]:
    from pyvatti.jobs.annotations import OUTBOX  # noqa: PLC0415 - only here

    return OUTBOX.validate_json(raw["metadata"]["annotations"][labels.OUTBOX])


class Backend:
    """Takes what it is told; `gate` holds its answer back."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.told = list(replies), 0
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def tell(self, *_: Any) -> Reply:
        fence.require()
        self.told += 1
        self.asked.set()
        await self.gate.wait()
        return self.replies.pop(0) if self.replies else TOLD


def doors(kube: Any, live: Job | None = None, backend: Backend | None = None) -> Any:
    return SimpleNamespace(
        kube=kube,
        cache=Memory(live),
        backend=backend,
        attempts=Attempts(),
        settings=settings(),
        installation=INSTALLATION,
        clock=lambda: T0,
        limits=SimpleNamespace(denied_pause=60.0),
        events=SimpleNamespace(note=lambda *_, **__: None),
    )


LIVE = job(State.DEPLOYED, outbox=(PENDING,))
TAKEN = raw_job(
    "11", **{labels.OUTBOX: dump_outbox((replace(PENDING, delivery=Delivery.DELIVERED),))}
)


# What became of a write


@pytest.mark.parametrize(
    ("live", "script", "wrote", "calls"),
    [
        pytest.param(LIVE, [TAKEN], Wrote.WRITTEN, ["patch"], id="written"),
        pytest.param(None, [], Wrote.GONE, [], id="it had gone before"),
        pytest.param(LIVE, [NotFound("")], Wrote.GONE, ["patch"], id="404"),
        pytest.param(LIVE, [Conflict(""), None], Wrote.GONE, ["patch", "get"], id="409, then 404"),
        pytest.param(
            LIVE,
            [Conflict(""), {**raw_job(), "metadata": {**raw_job()["metadata"], "uid": "another"}}],
            Wrote.GONE,
            ["patch", "get"],
            id="its name is another one's",
        ),
        pytest.param(
            LIVE,
            [Conflict(""), raw_job("11"), TAKEN],
            Wrote.WRITTEN,
            ["patch", "get", "patch"],
            id="again with what came first",
        ),
        pytest.param(
            LIVE,
            [Conflict(""), raw_job("11", **{labels.WITHDRAWN: "true"})],
            Wrote.NOTHING,
            ["patch", "get"],
            id="marked meanwhile",
        ),
        pytest.param(replace(LIVE, withdrawn=True), [], Wrote.NOTHING, [], id="marked"),
        pytest.param(
            replace(LIVE, presence=Presence.GONE), [], Wrote.WRITTEN, [], id="kept in memory alone"
        ),
    ],
)
async def test_a_write_says_what_became_of_it(live, script, wrote, calls):
    kube = Kube(*script)

    assert await JobWriter(doors(kube, live)).patch(LIVE, queued_patch) is wrote
    assert kube.calls == calls


async def test_a_write_that_always_comes_too_late_is_an_error():
    kube = Kube(*[answer for _ in range(9) for answer in (Conflict(""), raw_job())])

    with pytest.raises(Conflict):
        await JobWriter(doors(kube, LIVE)).patch(LIVE, queued_patch)


# Couriers


@asynccontextmanager
async def couriers(here: Any, may_act: Callable[[], bool] = lambda: True) -> AsyncIterator[Any]:
    """Let a courier deliver until the end of the block, as a replica that leads."""
    with fence.fenced(may_act):
        task = asyncio.get_running_loop().create_task(
            Courier(here, JobWriter(here), LIVE).deliver()
        )
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lie", [[Conflict(""), None], [NotFound("")]], ids=["409, 404", "404"])
async def test_what_was_taken_is_not_told_again_because_one_answer_said_the_job_is_gone(lie):
    here = doors(Kube(*lie, TAKEN), LIVE, Backend())

    async with couriers(here):
        await until(lambda: not here.kube.script)
        await until(lambda: not here.cache.live.pending)

    assert here.backend.told == 1


async def test_nothing_is_told_of_a_launch_that_is_being_taken_back():
    here = doors(Kube(TAKEN), replace(LIVE, withdrawn=True), Backend())

    async with couriers(here):
        await asyncio.sleep(0.05)
        assert here.backend.told == 0


async def test_an_answer_that_comes_after_the_lease_was_lost_is_remembered():
    here, leads = doors(Kube(TAKEN), LIVE, Backend()), True
    here.backend.gate.clear()
    async with couriers(here, lambda: leads) as task:
        await here.backend.asked.wait()
        leads = False
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    here.attempts.stand_down({LIVE.uid})

    async with couriers(here):  # it leads again before the answer is there
        await asyncio.sleep(0.02)
        here.backend.gate.set()
        await until(lambda: not here.cache.live.pending)

    assert here.backend.told == 1


async def test_a_courier_that_is_stopped_waits_for_the_answer_and_notes_it():
    here = doors(Kube(TAKEN), LIVE, Backend())
    here.backend.gate.clear()
    async with couriers(here) as task:
        await here.backend.asked.wait()
        asyncio.get_running_loop().call_later(0.05, here.backend.gate.set)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    assert here.kube.calls == ["patch"]
    assert not here.cache.live.pending


# Telling a finished job's events again


class Records:
    """An API server that holds one record, with compare-and-swap; each call lets others go on."""

    def __init__(self, *outbox: Notice) -> None:
        record = Record(
            job_id=NAMES.job_id,
            uid=NAMES.uid,
            state=State.FAILED,
            accepted_at=T0,
            finished_at=T0,
            removed_at=T0,
            run_name=NAMES.run_name,
            outbox=outbox,
        )
        marks = labels.identity(INSTALLATION, labels.RECORD)
        marks |= {labels.JOB_ID: NAMES.base, labels.JOB_UID: NAMES.uid, labels.STATE: "Failed"}
        self.version, self.conflicts = 1, 0
        self.held: dict[str, Any] = {
            "metadata": {"name": NAMES.record, "labels": marks, "annotations": {}},
            "data": {records.KEY: records.dump(record)},
        }

    def _shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(json.dumps(self.held))
        shown["metadata"]["resourceVersion"] = str(self.version)
        return shown

    async def get(self, kind: Kind, _: str) -> Any:
        await asyncio.sleep(0)
        return self._shown() if kind is CONFIGMAPS else None

    async def merge_patch(self, _: Kind, __: str, patch: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        if self.conflicts:
            self.conflicts, self.version = self.conflicts - 1, self.version + 1
        if patch["metadata"].pop("resourceVersion") != str(self.version):
            raise Conflict("")
        self.version += 1
        self.held["metadata"]["annotations"] |= patch["metadata"]["annotations"]
        self.held["data"] |= patch.get("data", {})
        return self._shown()

    @property
    def claim(self) -> str | None:
        return cast("str | None", self.held["metadata"]["annotations"].get(labels.REDELIVERY))

    @claim.setter
    def claim(self, value: str) -> None:
        self.held["metadata"]["annotations"][labels.REDELIVERY] = value

    @property
    def deliveries(self) -> list[tuple[str, int]]:
        record = json.loads(self.held["data"][records.KEY])
        return [(item["delivery"], item["attempts"]) for item in record["outbox"]]


async def test_two_who_redeliver_at_once_tell_once():
    here = doors(Records(LOST), backend=Backend())
    answers: list[Any] = []

    async def ask() -> None:
        try:
            answers.append(await redeliver(here, NAMES.job_id))
        except Unavailable as error:
            answers.append(str(error))

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask())

    assert here.backend.told == 1
    assert here.kube.deliveries == [("delivered", 1)]
    assert here.kube.claim is None
    assert sum(isinstance(answer, tuple) for answer in answers) >= 1


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        pytest.param(f"{T0.isoformat()} other", 0, id="another tells"),
        pytest.param(f"{(T0 - CLAIM_LASTS / 2).isoformat()} other", 0, id="since a while"),
        pytest.param(
            f"{(T0 + timedelta(seconds=9)).isoformat()} other", 0, id="its clock is ahead"
        ),
        pytest.param(f"{(T0 - CLAIM_LASTS).isoformat()} other", 1, id="it died"),
        pytest.param(f"{(T0 + timedelta(days=9)).isoformat()} other", 1, id="a time to come"),
        pytest.param("nonsense", 1, id="no claim at all"),
    ],
)
async def test_a_claim_keeps_others_from_telling_until_it_ends(claim, told):
    here = doors(Records(LOST), backend=Backend())
    here.kube.claim = claim

    with contextlib.suppress(Unavailable):
        await redeliver(here, NAMES.job_id)

    assert here.backend.told == told
    assert here.kube.claim == (None if told else claim)


async def test_a_refusal_is_noted_and_frees_the_record():
    here = doors(Records(LOST), backend=Backend(BUSY))

    with pytest.raises(Unavailable, match="503"):
        await redeliver(here, NAMES.job_id)
    assert here.kube.deliveries == [("dead", 1)]
    await redeliver(here, NAMES.job_id)

    assert here.kube.deliveries == [("delivered", 2)]


async def test_what_became_of_a_telling_is_written_though_others_write_the_record():
    here = doors(Records(LOST), backend=Backend())
    here.kube.conflicts = 1
    asked = here.backend.asked

    async def meddle() -> None:
        await asked.wait()
        here.kube.conflicts = 2

    async with asyncio.TaskGroup() as group:
        group.create_task(meddle())
        group.create_task(redeliver(here, NAMES.job_id))

    assert here.backend.told == 1
    assert here.kube.deliveries == [("delivered", 1)]


async def test_a_record_without_lost_events_is_not_written():
    here = doors(Records(replace(LOST, delivery=Delivery.DELIVERED)), backend=Backend())

    assert (await redeliver(here, NAMES.job_id))[0].delivery is Delivery.DELIVERED
    assert (here.kube.version, here.backend.told) == (1, 0)


async def test_another_installations_record_is_not_known():
    here = doors(Records(LOST), backend=Backend())
    here.installation = replace(INSTALLATION, namespace_uid="another")

    with pytest.raises(JobNotFound):
        await redeliver(here, NAMES.job_id)
