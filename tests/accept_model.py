"""A small model of accepting: the real code on an API server in memory, in every order of calls.

A process (a request, the acting replica) is a coroutine that awaits nothing but calls. What it does
next follows from the answers it got, so it is run anew with them once for each list of answers. The
world is text, so that equal worlds are found by comparing. `explore` walks through every order of
calls, faults and deaths within a scene's bounds and meets each situation once; nothing is random
and no clock is read.
"""

from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from builders import INSTALLATION, JOB_ID, T0

from pyvatti import labels
from pyvatti.errors import AlreadyExists, Conflict, NotFound, PyvattiError, Unavailable
from pyvatti.jobs import id_names
from pyvatti.kube import CONFIGMAPS, JOBS, SECRETS, Kind

NAMES = id_names(JOB_ID, INSTALLATION.namespace)
ERRORS = {error.__name__: error for error in (AlreadyExists, Conflict, NotFound, Unavailable)}


@dataclass(frozen=True, slots=True)
class World:
    """What the API server holds, as JSON; empty text is nothing. `stored` are the uids of Jobs
    whose Secret stood at some time, `made` counts Jobs."""

    job: str = ""
    secret: str = ""
    record: str = ""
    made: int = 0
    stored: frozenset[str] = frozenset()
    wrongs: tuple[str, ...] = ()

    def read(self, kind: Kind) -> dict[str, Any] | None:
        text = {JOBS: self.job, SECRETS: self.secret, CONFIGMAPS: self.record}[kind]
        return orjson.loads(text) if text else None

    def write(self, kind: Kind, body: dict[str, Any] | None) -> "World":
        text = "" if body is None else orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
        name = {JOBS: "job", SECRETS: "secret", CONFIGMAPS: "record"}[kind]
        world = replace(self, **{name: text})
        if kind is SECRETS and body is not None:
            world = replace(world, stored=self.stored | {labels.owner_uid(body)})
        return world

    def blame(self, wrong: str) -> "World":
        return self if wrong in self.wrongs else replace(self, wrongs=(*self.wrongs, wrong))


@dataclass(frozen=True, slots=True)
class Call:
    """One call a process waits for. `look` is no call: the acting replica's cache is brought up to
    date then, and grows old afterwards."""

    verb: str
    kind: Kind = JOBS
    body: str = ""
    uid: str = ""

    def __await__(self) -> Generator["Call", Any, Any]:
        answer = yield self
        return answer


class Kube:
    """The client's methods, as calls of the model."""

    async def create(self, kind: Kind, body: dict[str, Any]) -> Any:
        return await Call("create", kind, orjson.dumps(body).decode())

    async def get(self, kind: Kind, *_: str) -> Any:
        return await Call("get", kind)

    async def merge_patch(self, kind: Kind, _: str, patch: dict[str, Any]) -> Any:
        return await Call("patch", kind, orjson.dumps(patch).decode())

    async def delete(self, kind: Kind, _: str, *, uid: str = "", propagation: str = "") -> Any:
        return await Call("delete", kind, propagation, uid)

    async def list_page(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("not in this model")


def act(world: World, call: Call) -> tuple[World, Any]:
    """Do a call as the API server does; give the world after it and the answer or an error."""
    found = world.read(call.kind)
    if call.verb in ("get", "look"):
        return world, found
    if call.verb == "create":
        return _create(world, call, orjson.loads(call.body), found)
    if found is None:
        return world, None if call.verb == "delete" else "NotFound"
    if call.verb == "patch":
        return _patch(world, call.kind, orjson.loads(call.body), found)
    return delete(world, found, call.body, call.uid)


def _create(world: World, call: Call, body: Any, found: Any) -> tuple[World, Any]:
    if found is not None:
        return world, "AlreadyExists"
    uid = f"{call.kind.kind}-{world.made}"
    if call.kind is JOBS:
        world = replace(world, made=world.made + 1)
    body["metadata"] |= {"uid": uid, "resourceVersion": "1", "namespace": INSTALLATION.namespace}
    body["metadata"]["creationTimestamp"] = T0.isoformat()
    return world.write(call.kind, body), body


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """Apply a JSON merge patch (RFC 7396)."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value


def _patch(world: World, kind: Kind, patch: Any, found: Any) -> tuple[World, Any]:
    before = found["metadata"]
    fence = {key: patch["metadata"].pop(key, None) for key in ("uid", "resourceVersion")}
    if any(value is not None and value != before[key] for key, value in fence.items()):
        return world, "Conflict"
    merge(found, patch)
    return put(world, kind, found), found


def put(world: World, kind: Kind, body: dict[str, Any]) -> World:
    """Store the next version of an object; a dying one without finalizers goes."""
    metadata = body["metadata"]
    metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
    if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
        return world.write(kind, None)
    return _judged(world.write(kind, body), body) if kind is JOBS else world.write(kind, body)


def _judged(world: World, job: dict[str, Any]) -> World:
    """Find what may never be written to a Job."""
    marks = job["metadata"].get("annotations") or {}
    said = {labels.TRANSITIONS, labels.OUTBOX, labels.VERDICT} & set(marks)
    if said and labels.WITHDRAWN in marks:
        world = world.blame("a Job is withdrawn and acted upon")
    if said and job["metadata"]["uid"] not in world.stored:
        world = world.blame("a Job was acted upon whose Secret never stood")
    return world


def delete(world: World, found: Any, propagation: str, uid: str = "") -> tuple[World, Any]:
    metadata = found["metadata"]
    if uid and uid != metadata["uid"]:
        return world, "Conflict"
    metadata.setdefault("deletionTimestamp", T0.isoformat())
    if propagation == "Foreground" and labels.FOREGROUND not in metadata["finalizers"]:
        metadata["finalizers"].append(labels.FOREGROUND)
    return put(world, JOBS, found), found


def collect(world: World) -> World | None:
    """Let the garbage collector do its next step; None where it has none."""
    job, secret = world.read(JOBS), world.read(SECRETS)
    held = job is not None and labels.FOREGROUND in job["metadata"].get("finalizers", ())
    if secret is not None:
        owner = labels.owner_uid(secret)
        if job is None or job["metadata"]["uid"] != owner or held:
            return world.write(SECRETS, None)
    if job is not None and held:
        job["metadata"]["finalizers"].remove(labels.FOREGROUND)
        return put(world, JOBS, job)
    return None


Start = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(slots=True)
class Node:
    """Where a process stands after a list of answers: its next call, or its result."""

    call: Call | None
    result: str
    answers: tuple[str | bytes, ...]
    after: dict[str | bytes, "Node"] = field(default_factory=dict)


class Process:
    """A coroutine that can be stood anywhere: it is run anew with the answers up to there.

    `nonce` is that of a request.
    """

    def __init__(self, start: Start, nonce: str = "") -> None:
        self.nonce, self._start = nonce, start
        self.begin = self._run(())

    def step(self, node: Node, answer: Any) -> Node:
        key = answer if isinstance(answer, str) else orjson.dumps(answer)
        if key not in node.after:
            node.after[key] = self._run((*node.answers, key))
        return node.after[key]

    def _run(self, answers: tuple[str | bytes, ...]) -> Node:
        work = self._start()
        try:
            call = work.send(None)
            for answer in answers:
                if isinstance(answer, str):
                    call = work.throw(ERRORS[answer](answer))
                else:
                    call = work.send(orjson.loads(answer))
        except StopIteration as end:
            return Node(None, str(end.value), answers)
        except PyvattiError as error:
            return Node(None, type(error).__name__, answers)
        work.close()
        return Node(call, "", answers)


@dataclass(frozen=True, slots=True)
class Budget:
    """How often things may go wrong, or others may act, in one scene."""

    controller: int = 0  # writes of the Job controller
    faults: int = 0  # calls that are refused (429, 503) or whose answer is lost
    deaths: int = 0
    deleted: str = ""  # propagation of a deletion by kubectl

    def spend(self, name: str) -> "Budget | None":
        left = getattr(self, name)
        if not left:
            return None
        return replace(self, **{name: "" if isinstance(left, str) else left - 1})


@dataclass(frozen=True, slots=True)
class Situation:
    world: World
    nodes: tuple[Node | None, ...]  # None is dead
    left: Budget

    @property
    def key(self) -> tuple[Any, ...]:
        return self.world, tuple(id(node) for node in self.nodes), self.left


def explore(processes: list[Process], world: World, budget: Budget) -> Iterator[Situation]:
    """Give every situation in which all processes have ended, each once."""
    first = Situation(world, tuple(process.begin for process in processes), budget)
    todo, met = [first], {first.key}
    while todo:
        now = todo.pop()
        following = list(_moves(now, processes))
        if all(node is None or node.call is None for node in now.nodes):
            yield now
        for after in following:
            if (key := after.key) not in met:
                met.add(key)
                todo.append(after)


def _moves(now: Situation, processes: list[Process]) -> Iterator[Situation]:
    for index, node in enumerate(now.nodes):
        if node is None or node.call is None:
            continue
        for after, answer, left in _outcomes(now, node.call):
            world = _signed(now.world, after, processes[index].nonce)
            nodes = list(now.nodes)
            nodes[index] = processes[index].step(node, answer)
            yield Situation(world, tuple(nodes), left)
        if (left := now.left.spend("deaths")) is not None:
            yield Situation(now.world, (*now.nodes[:index], None, *now.nodes[index + 1 :]), left)
    job = now.world.read(JOBS)
    if (swept := collect(now.world)) is not None:
        yield replace(now, world=swept)
    if job is not None and (left := now.left.spend("controller")) is not None:
        job["status"] = {"conditions": [{"type": "Suspended", "status": str(left.controller)}]}
        yield replace(now, world=put(now.world, JOBS, job), left=left)
    if job is not None and (left := now.left.spend("deleted")) is not None:
        yield replace(now, world=delete(now.world, job, now.left.deleted)[0], left=left)


def _signed(before: World, after: World, nonce: str) -> World:
    """Find a withdrawal that a request began of a Job which another one made."""
    if not nonce or after.job == before.job or labels.WITHDRAWN in before.job:
        return after
    marks = (after.read(JOBS) or {"metadata": {}})["metadata"].get("annotations") or {}
    if labels.WITHDRAWN in marks and marks[labels.ACCEPT] != nonce:
        return after.blame("a request withdrew what another one made")
    return after


def _outcomes(now: Situation, call: Call) -> Iterator[tuple[World, Any, Budget]]:
    after, answer = act(now.world, call)
    yield after, answer, now.left
    if call.verb != "look" and (left := now.left.spend("faults")) is not None:
        yield now.world, "Unavailable", left
        if after != now.world:
            yield after, "Unavailable", left
