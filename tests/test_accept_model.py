"""Accepting, taking back and acting, in every order: a 201 is kept, the rest leaves nothing."""

import contextlib
import copy
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from accept_model import (
    NAMES,
    Budget,
    Call,
    Kube,
    Process,
    World,
    act,
    collect,
    explore,
    merge,
)
from builders import INSTALLATION, T0, run, settings

from pyvatti import jobs, labels
from pyvatti.errors import PyvattiError
from pyvatti.kube import CONFIGMAPS, JOBS
from pyvatti.launch import EXAMPLE, LaunchRequest
from pyvatti.lifecycle import intake
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.actor import JobActor
from pyvatti.lifecycle.attempts import Attempts
from pyvatti.lifecycle.remains import Remains
from pyvatti.lifecycle.turns import NotYet
from pyvatti.lifecycle.writing import JobWriter
from pyvatti.manifests import Renderer
from pyvatti.models import Delivery, Event, Job, Notice, RunStatus, State, Verdict

SETTINGS = settings()
REAL = Renderer(SETTINGS)
ENOUGH = 6  # passes within which the acting replica comes to rest
NONCE = [""]  # of the request that runs
SUCCEEDED = Verdict(state=State.SUCCEEDED, reason="RunSucceeded", message="done")


def body(build: str) -> LaunchRequest:
    given: dict[str, Any] = copy.deepcopy(EXAMPLE)
    given["pipeline_param"]["id"] = NAMES.job_id
    given["pipeline_param"]["nxf_params_file"]["target_build"] = build
    return LaunchRequest.model_validate(given)


ONE, OTHER = body("GRCh38"), body("GRCh37")
BODIES = {request.fingerprint(): request for request in (ONE, OTHER)}


class Rendered:
    """The renderer; the same thing is rendered once, for the model asks a thousand times."""

    def job(self, request: LaunchRequest, _: Any) -> Any:
        return json.loads(_job(request.fingerprint()))

    def driver_secret(self, request: LaunchRequest, names: Any, _: Any) -> Any:
        return json.loads(_secret(request.fingerprint(), names))


@lru_cache
def _job(fingerprint: str) -> str:
    job = REAL.job(BODIES[fingerprint], INSTALLATION)
    return json.dumps(job | {"spec": {"suspend": True}})


@lru_cache
def _secret(fingerprint: str, names: Any) -> str:
    secret = REAL.driver_secret(BODIES[fingerprint], names, INSTALLATION)
    return json.dumps(secret | {"data": {"request.json": secret["data"]["request.json"]}})


class Memory:
    """A cache that shows what it was last told: nothing changes in it by itself."""

    def __init__(self) -> None:
        self._job: Job | None = None

    def note_job(self, raw: Any) -> Job:
        self._job = jobs.read_job(raw)
        return self._job

    def forget(self) -> None:
        self._job = None

    def job(self, _: str, uid: str | None = None) -> Job | None:
        return self._job if uid is None or (self._job and self._job.uid == uid) else None

    async def know(self, _: Job) -> None:
        """Learn nothing: who is named in a request decides nothing here."""

    def note_request(self, *_: Any) -> None: ...

    def accepting(self, _: Job) -> Any:
        return contextlib.nullcontext()

    def knows_accept(self, _: str) -> bool | None:
        return None

    def was_accepted_here(self, _: str) -> bool:
        return False

    def pods(self, _: str) -> tuple[Any, ...]:
        return ()

    def vanished(self, _: str) -> None:
        return None

    def note_clean(self, _: str) -> None: ...

    def note_removals(self, *_: Any) -> None: ...


class Staying:
    """A Namespace that nobody deletes."""

    going_since = None
    is_going = False

    def require_staying(self) -> None: ...

    async def look(self) -> bool:
        return False


def doors(**more: Any) -> Any:
    hours = count()
    base = {
        "settings": SETTINGS,
        "installation": INSTALLATION,
        "home": Staying(),
        "remains": Remains(),
        "kube": Kube(),
        "cache": Memory(),
        "renderer": Rendered(),
        "events": SimpleNamespace(note=lambda *_, **__: None),
        "limiter": SimpleNamespace(cancel=lambda _: None),
        "attempts": Attempts(),
        "clock": lambda: T0 + next(hours) * timedelta(hours=1),
    }
    return cast("Any", SimpleNamespace(**(base | more)))


def launching(nonce: str, request: LaunchRequest) -> Coroutine[Any, Any, str]:
    """A POST, at a replica of its own."""
    NONCE[0] = nonce
    return intake.Intake(doors()).accept(request)


async def acting(passes: int, *, patient: bool, believes: bool) -> str:
    """The acting replica: each pass begins with what its cache shows at that moment.

    `patient`: no grace ends; else every accept is taken for one that died. `believes`: Seqera
    knows a run of any name, and it succeeded.
    """
    here = doors(**({"clock": lambda: T0} if patient else {}))
    found = run(RunStatus.SUCCEEDED) if believes else None
    runs: Any = SimpleNamespace(run_of=lambda _: found, asked_at=lambda _: T0)
    hands = Hands(here, JobWriter(here), runs, frozenset)
    actor: JobActor | None = None
    for _ in range(passes):
        raw = await Call("look")
        if raw is None:
            here.cache.forget()
            continue
        job = here.cache.note_job(raw)
        if actor is None or actor.uid != job.uid:
            actor = JobActor(here, hands, runs, job, lambda: None)
        with contextlib.suppress(PyvattiError, NotYet):
            await actor._pass()
    return "rest"


def former() -> dict[str, Any]:
    """A job of the same id that is over and cleaned up: only its record is not written yet."""
    raw = Rendered().job(ONE, INSTALLATION)
    raw["metadata"] |= {"uid": "Job-former", "resourceVersion": "1", "namespace": "intervene-dev"}
    raw["metadata"] |= {"creationTimestamp": T0.isoformat(), "deletionTimestamp": T0.isoformat()}
    told = Notice(sequence=1, event=Event.SUCCEEDED, at=T0, delivery=Delivery.DELIVERED)
    merge(raw, jobs.transition_patch(jobs.read_job(raw), SUCCEEDED, T0, None))
    merge(raw, jobs.outbox_patch(jobs.read_job(raw), told))
    return raw


RECORD = {
    "metadata": {
        "name": NAMES.record,
        "labels": labels.identity(INSTALLATION, labels.RECORD)
        | {labels.JOB_ID: NAMES.base, labels.JOB_UID: "Job-former", labels.STATE: "Succeeded"},
    },
    "data": {},
}


async def ending() -> str:
    """Bring the former job to its end: record, then name."""
    await Call("create", CONFIGMAPS, json.dumps(RECORD))
    await Call("patch", JOBS, json.dumps({"metadata": {"finalizers": []}}))
    return "over"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Who is there and how much may happen. `finished`: a former job ends meanwhile."""

    launches: tuple[LaunchRequest, ...]
    budget: Budget
    passes: int = 0
    patient: bool = False
    finished: bool = False

    def processes(self) -> list[Process]:
        found = [
            Process(partial(launching, f"nonce-{number}", request), f"nonce-{number}")
            for number, request in enumerate(self.launches)
        ]
        if self.passes:
            replica = partial(acting, self.passes, patient=self.patient, believes=self.finished)
            found.append(Process(replica))
        return [*found, Process(ending)] if self.finished else found

    def world(self) -> World:
        if not self.finished:
            return World()
        return World(stored=frozenset({"Job-former"})).write(JOBS, former())


def settle(world: World, replica: Process) -> World:
    """Let a new acting replica bring everything to rest, long after."""
    node = replica.begin
    while node.call is not None:
        while (after := collect(world)) is not None:
            world = after
        world, answer = act(world, node.call)
        node = replica.step(node, answer)
    while (after := collect(world)) is not None:
        world = after
    return world


def wrongs(scene: Scene, results: tuple[str, ...], world: World) -> list[str]:
    """Name what is wrong with an end: `world` is what is left once all is at rest."""
    found = list(world.wrongs)
    answers = zip(scene.launches, results, strict=False)
    kept = [request for request, result in answers if result == NAMES.job_id]
    raw = world.read(JOBS)
    if raw is None:
        found += ["a Secret without its Job"] if world.secret else []
        return [*found, "a launch answered 201 is lost"] if kept else found
    job = jobs.read_job(raw)
    if job.withdrawn:
        found.append("a withdrawal that nobody ends")
    if not job.is_marked:
        found.append("a Job nobody decides about")
    if any(job.request_hash != request.fingerprint() for request in kept):
        found.append("a launch answered 201 is another one's job")
    if scene.finished and (kept or job.uid != "Job-former"):
        found.append("a finished id came back")
    if [notice.event is not Event.DEPLOYED for notice in job.outbox].count(True) > 1:
        found.append("two terminal events")
    if job.deleting_since is not None and not job.outbox:
        found.append("a cancelled job that nobody is told of")
    return found


def examine(scene: Scene) -> set[tuple[str, ...]]:
    """Walk through a scene; give what the processes came to, in all orders."""
    replica = Process(partial(acting, ENOUGH, patient=False, believes=scene.finished))
    rest = lru_cache(maxsize=None)(partial(settle, replica=replica))
    ends = {
        (end.world, tuple(node.result if node else "dead" for node in end.nodes))
        for end in explore(scene.processes(), scene.world(), scene.budget)
    }
    for world, results in ends:
        found = wrongs(scene, results, rest(world))
        assert not found, (found, results, world)
    return {results for _, results in ends}


SCENES = {
    "one, and whatever fails": Scene(
        launches=(ONE,), budget=Budget(controller=1, faults=1, deaths=1), passes=1
    ),
    "a repeat": Scene(launches=(ONE, ONE), budget=Budget(controller=1, faults=1)),
    "a repeat and an impatient acting replica": Scene(
        launches=(ONE, ONE), budget=Budget(controller=1), passes=1
    ),
    "a repeat and the death of one": Scene(
        launches=(ONE, ONE), budget=Budget(faults=1, deaths=1), passes=1, patient=True
    ),
    "another request": Scene(launches=(ONE, OTHER), budget=Budget(faults=1), passes=1),
    "three alike": Scene(launches=(ONE, ONE, ONE), budget=Budget(faults=1)),
    "two alike and another": Scene(launches=(ONE, ONE, OTHER), budget=Budget(faults=1)),
    "a finished id": Scene(
        launches=(ONE,), budget=Budget(controller=1, faults=1), passes=1, finished=True
    ),
    "a finished id, twice": Scene(
        launches=(ONE, ONE), budget=Budget(controller=1), passes=1, patient=True, finished=True
    ),
    "deleted by kubectl meanwhile": Scene(
        launches=(ONE, ONE), budget=Budget(deleted="Background"), passes=1
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_in_every_order(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intake, "secrets", SimpleNamespace(token_hex=lambda _: NONCE[0]))
    scene = SCENES[name]

    results = examine(scene)

    first = {result[0] for result in results}
    assert first >= ({"JobFinished"} if scene.finished else {NAMES.job_id})
