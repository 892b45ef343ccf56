"""The Kubernetes API misbehaving: every cell of its part of docs/reliability.md."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from neighbour_lines import run
from neighbour_stage import HASTY, Neighbourhood, is_ready, neighbourhood, service_in, town
from neighbours import (
    Cell,
    Fault,
    Harm,
    answers,
    at_once,
    common,
    documented,
    line_is,
    names_of,
    others_go_on,
    outlive_all,
    tell,
)
from stage import JOB, SHORT_LEASE

from pyvatti.kube.store import Store
from pyvatti.sandbox.driver_plans import Outcome, Plan
from pyvatti.sandbox.kube.access import ADMIN
from pyvatti.sandbox.kube.rendering import View
from pyvatti.sandbox.kube.resources import JOBS, PODS, Resource

KUBE = "kubernetes"
BASE = JOB.lower()
LONG = Plan(run_seconds=25.0)
CALLS_UNDER_WAY = 60  # tasks of requests and connections that hang, of the tests' line among them
HOUR = timedelta(hours=1)
GARBAGE: tuple[Any, ...] = (
    {"type": "ADDED", "object": {}},
    {"type": "MODIFIED", "object": {"metadata": {"name": BASE}}},
    {"type": "ADDED", "object": {"metadata": {"name": "x", "uid": 1, "resourceVersion": None}}},
    {"type": "ADDED", "object": {"metadata": "none", "spec": [], "status": "?"}},
    {"type": "BOOKMARK", "object": {"metadata": None}},
    {"type": "PERHAPS", "object": {"metadata": {}}},
    {
        "type": "ADDED",
        "object": {
            "metadata": {
                "name": "y",
                "namespace": "intervene-dev",
                "uid": "y",
                "resourceVersion": "1",
            },
            "spec": "none",
            "status": {"conditions": 7, "containerStatuses": [None]},
        },
    },
)


def streams(on: Neighbourhood, resource: Resource) -> list[Any]:
    """Give the open watches of Jobs or Pods."""
    return [stream for stream in on.world.kube.streams if stream.call.resource is resource]


def mute(on: Neighbourhood) -> int:
    """Let every open watch say nothing any more."""
    for stream in on.world.kube.streams:
        stream.mute()
    return len(on.world.kube.streams)


def is_silent(on: Neighbourhood) -> Harm:
    """Let the watches fall silent, for ever: only the service can leave them."""
    count = mute(on)

    async def end() -> None:
        """Leave them as they are."""

    return Harm(lambda: count, end)


def replays(order: Callable[[list[bytes]], list[bytes]], *, muted: bool) -> Any:
    """Make the fault of watches that tell what happened again, in an order of their own."""

    def begin(on: Neighbourhood) -> Harm:
        told: dict[str, list[bytes]] = {"Job": [], "Pod": []}

        def keep(change: str, resource: Resource, new: dict[str, Any], _old: Any) -> None:
            if resource.kind in told:
                line = json.dumps({"type": change, "object": new}).encode() + b"\n"
                told[resource.kind].append(line)

        stop = on.world.kube.store.subscribe(keep)
        if muted:
            mute(on)

        async def end() -> None:
            stop()
            for resource in (JOBS, PODS):
                for stream in streams(on, resource):
                    await stream.inject(b"".join(order(told[resource.kind])))

        return Harm(lambda: min(len(lines) for lines in told.values()), end)

    return begin


def garbles(on: Neighbourhood) -> Harm:
    """Let the watches say what nobody can read, line by line, between what is true."""
    lines = [json.dumps(item).encode() + b"\n" for item in GARBAGE] + [b"not JSON\n"]

    async def end() -> None:
        for resource in (JOBS, PODS):
            for stream in streams(on, resource):
                await stream.inject(b"".join(lines))

    return Harm(lambda: 1, end)


def forgets(on: Neighbourhood) -> Harm:
    """Compact etcd and end the watches: what they would resume from is gone, and lists fail."""
    kube = on.world.kube
    kube.store.compact()
    for stream in tuple(kube.streams):
        stream.cut()
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    rule = kube.faults.add(
        "GET", "limit=500", "status", status=410, body=json.dumps(status), count=5
    )

    async def end() -> None:
        kube.faults.remove(rule)

    return Harm(lambda: rule.hits, end)


def lists_the_past(on: Neighbourhood) -> Harm:
    """Let the informers list anew and be told how things were before the job was released."""
    kube, spoilt = on.world.kube, []
    at = _version_while_queued(on)
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    for resource in (JOBS, PODS):
        found = kube.store.versions(resource, on.namespace, at)
        view = View(resource, "", "Metadata", kube.store.now)
        page = view.many(found, {"resourceVersion": str(at)})
        place = f"/{resource.plural}\\?"
        watch, listing = f"{place}.*watch=true", f"{place}.*limit=500"
        spoilt += [
            kube.faults.add("GET", watch, "status", status=410, body=json.dumps(expired), count=1),
            kube.faults.add("GET", listing, "status", status=200, body=page, count=1),
        ]
    for stream in tuple(kube.streams):
        stream.cut()

    async def end() -> None:
        for rule in spoilt:
            kube.faults.remove(rule)

    return Harm(lambda: sum(rule.hits for rule in spoilt), end)


def _version_while_queued(on: Neighbourhood) -> int:
    store = on.world.kube.store
    for at in range(store.resource_version, 0, -1):
        jobs = [item.body for item in store.versions(JOBS, on.namespace, at)]
        if any(job["metadata"]["name"] == BASE and job["spec"].get("suspend") for job in jobs):
            return at
    raise AssertionError("the job was never queued")


def rotates_its_token(on: Neighbourhood) -> Harm:
    """Refuse the old token at once; the new one is on disk only a while later."""
    tokens = on.world.kube._access.tokens
    before = on.kubeconfig.read_text()
    old = on.world.kube.token
    tokens.pop(old)
    tokens["rotated-token"] = ADMIN
    refused = len(on.world.kube.requests)

    async def end() -> None:
        on.kubeconfig.write_text(before.replace(old, "rotated-token"))

    return Harm(lambda: len(on.world.kube.requests) - refused, end)


def its_clock_is(offset: timedelta) -> Fault:
    """Set the cluster's clock, and let it take its time between a Job and its Secret."""

    def leap(on: Neighbourhood) -> None:
        on.world.kube.store.offset = offset
        on.world.kube.faults.add("POST", "/secrets", "slow", seconds=0.5)

    return at_once(leap)


def our_clock_leaps(offset: timedelta) -> Fault:
    """Let our clock leap, and once more while an ended driver waits for its verdict."""

    def begin(on: Neighbourhood) -> Harm:
        on.wall.offset += offset

        async def end() -> None:
            on.wall.offset += offset

        return Harm(lambda: 1, end)

    return begin


LASTING: dict[str, Any] = {"moments": ("accepting", "running"), "lasts": 0.6}
UNCONFIRMED: dict[str, Any] = {
    "moments": ("running",),
    "lasts": 0.6,
    "plan": Plan(run_seconds=10.0, outcome=Outcome.SILENT),
}
OLD_FIRST_AGAIN = replays(lambda lines: lines + lines, muted=False)
BACKWARDS = replays(lambda lines: lines[::-1] * 2, muted=True)
CELLS = common(KUBE, **LASTING) | {
    "an object without identity": Cell(
        fault=answers(KUBE, "status", status=200, body='{"kind": "Job", "metadata": {}}'),
        **LASTING,
    ),
    "410": Cell(fault=forgets, hits=5),
    "very slow answers": Cell(fault=answers(KUBE, "slow", seconds=0.8), **LASTING),
    "an answer that is lost": Cell(
        fault=answers(KUBE, "after"), moments=("accepting", "preparing", "cleaning"), lasts=0.1
    ),
    "duplicate watch events": Cell(fault=OLD_FIRST_AGAIN, moments=("created",), hits=3, plan=LONG),
    "reordered watch events": Cell(
        fault=BACKWARDS, moments=("created",), hits=3, plan=LONG, limits=HASTY
    ),
    "a watch that goes silent": Cell(fault=is_silent, moments=("created",), hits=2, limits=HASTY),
    "a stale list": Cell(fault=lists_the_past, hits=4, plan=LONG, limits=HASTY),
    "watch events that do not parse": Cell(
        fault=garbles, moments=("created", "running"), plan=LONG
    ),
    "its clock 1 h ahead": Cell(fault=its_clock_is(HOUR), moments=("before",)),
    "its clock 1 h behind": Cell(fault=its_clock_is(-HOUR), moments=("before",)),
    "our clock leaps 1 h ahead": Cell(
        fault=our_clock_leaps(HOUR), **(UNCONFIRMED | {"moments": ("created",)})
    ),
    "our clock leaps 1 h back": Cell(fault=our_clock_leaps(-HOUR), **UNCONFIRMED),
    "away for 10 minutes": Cell(
        fault=line_is(KUBE, "refuse"), lasts=4.0, hits=0, changes=SHORT_LEASE
    ),
    "a token that rotates": Cell(fault=rotates_its_token, hits=3),
}


@pytest.fixture(scope="module")
def outcomes(request):
    return run(outlive_all(request, CELLS))


@pytest.mark.parametrize("name", CELLS)
def test_a_job_outlives_the_kubernetes_api(outcomes, name):
    tell(outcomes, name)


def test_dns_failure_of_the_kubernetes_api_at_start_ends_without_a_hand():
    run(_starts_without_a_name())


async def _starts_without_a_name() -> None:
    loop: Any = asyncio.get_running_loop()
    loop.unknown.add("localhost")
    async with town() as there, service_in(there, hosts={KUBE: "localhost"}) as on:
        refused = await on.probe()
        assert refused[0].status == 503
        assert (await on.client.get("/readyz")).status_code == 503
        assert loop.failed > 0

        loop.unknown.clear()

        await is_ready(on)
        await on.launch()
        await on.ends_well(JOB)


def test_other_jobs_go_on_while_writes_of_one_job_hang():
    run(others_go_on(answers(KUBE, "hang", method="PATCH", path=BASE), "created"))


def test_memory_stays_bounded_while_the_kubernetes_api_is_away():
    run(_stays_small())


async def _stays_small() -> None:
    ids = [f"INTP{number:011}" for number in range(1, 11)]
    async with neighbourhood(LONG, limits=HASTY, **SHORT_LEASE) as on:
        for job_id in ids:
            await on.launch(job_id)
        for job_id in ids:
            await on.until_state("Deployed", job_id=job_id)
        tasks, line = len(asyncio.all_tasks()), on.lines[KUBE]
        job = on.service.doors.cache.jobs()[0]

        line.silence()
        for _ in range(3000):
            on.service.doors.events.note(job, "Noise", "a story", on.wall())
        for round_ in range(3):
            await on.probe(bystander=f"INTP{900 + round_:011}")

        assert on.service.doors.events._queue.qsize() <= 1000
        assert len(on.service.doors.cache.jobs()) <= len(ids)
        assert len(asyncio.all_tasks()) <= tasks + CALLS_UNDER_WAY

        await line.mend()
        await on.ends_well(*ids)


def test_a_late_event_brings_no_past_back():
    def pod(version: int) -> dict[str, Any]:
        return {"metadata": {"name": "a", "uid": "u", "resourceVersion": str(version)}}

    store = Store(patience=1.0)
    for version in (8, 10, 9):
        store.apply("MODIFIED", pod(version), 0.0)
    known = store.get("a")
    store.apply("DELETED", pod(12), 0.0)

    assert known == pod(10)
    assert store.apply("MODIFIED", pod(11), 0.0) == []


def test_every_cell_of_the_document_is_tested():
    assert documented("Kubernetes API") == names_of(globals())
