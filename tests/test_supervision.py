"""If a part of the service dies, the whole is seen to die; one poisoned object kills nothing."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from api_calls import PATIENCE, problem_of, until_status
from builders import T0, job, settings
from cli_calls import running
from neighbour_settings import settings_for
from stage import FAST, JOB, stage
from structlog.testing import capture_logs

from pyvatti import app as application
from pyvatti import seqera
from pyvatti.api.service import LONGEST_SILENCE
from pyvatti.guard import MOST_SAID, Guard, kind_of, where
from pyvatti.jobs import id_names, names_for
from pyvatti.lifecycle import controller, gauges, supervision
from pyvatti.lifecycle.actor import JobActor
from pyvatti.lifecycle.courier import Courier
from pyvatti.lifecycle.runs import RunFollower
from pyvatti.lifecycle.supervision import Supervisor, persevere
from pyvatti.models import Event, Notice, Run, RunStatus, State
from pyvatti.sandbox.kube.resources import JOBS, PODS
from pyvatti.sandbox.world import World
from pyvatti.seqera import Seqera
from pyvatti.settings import Settings
from pyvatti.telemetry import metrics

SECRET = "foreign-text-of-a-neighbour"
BASE = JOB.lower()


async def raises() -> None:
    await asyncio.sleep(0)
    raise ValueError(SECRET)


async def returns() -> None:
    await asyncio.sleep(0)


async def cancels_itself() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def breaks_inside() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises())
        await asyncio.sleep(60)


async def lasts() -> None:
    await asyncio.Event().wait()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


# The supervisor


@pytest.mark.parametrize(
    ("dies", "kind"),
    [
        pytest.param(raises, "ValueError", id="raises"),
        pytest.param(returns, "PartEnded", id="returns"),
        pytest.param(cancels_itself, "CancelledError", id="is cancelled by nobody"),
        pytest.param(breaks_inside, "ValueError", id="breaks in a group"),
    ],
)
async def test_a_part_that_ends_is_named_once_and_stops_the_others(dies, kind: str):
    supervisor, told, ended = Supervisor(), [], []

    async def other() -> None:
        try:
            await lasts()
        finally:
            ended.append("other")

    supervisor.on_failure(lambda: told.append(supervisor.failure))
    with capture_logs() as lines:
        async with supervisor.running({"other": other(), "gauges": dies()}):
            await until(lambda: ended and told)
            await asyncio.sleep(0)  # the block lives on: a server ends its requests meanwhile

    assert (supervisor.failure, told, ended) == ("gauges", ["gauges"], ["other"])
    (line,) = [line for line in lines if line["log_level"] == "critical"]
    assert (line["part"], line["kind"]) == ("gauges", kind)
    assert SECRET not in str(lines)


async def test_a_service_that_is_told_to_stop_did_not_fail():
    supervisor = Supervisor()

    async def ends_badly() -> None:
        try:
            await lasts()
        finally:
            raise ValueError("while stopping")

    async with supervisor.running({"one": lasts(), "two": ends_badly()}):
        await asyncio.sleep(0)

    assert supervisor.failure == ""


async def test_a_part_inside_another_is_the_one_that_is_named():
    supervisor = Supervisor()

    async def outer() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.watch("run follower", raises()))
            await supervisor.watch("dispatcher", lasts())

    async with supervisor.running({"leader election": outer()}):
        await until(lambda: supervisor.failure)

    assert supervisor.failure == "run follower"


async def test_a_part_inside_another_may_be_stopped_and_begun_again():
    supervisor, rounds = Supervisor(), 0

    async def outer() -> None:
        nonlocal rounds
        while True:  # as leadership is lost and gained
            async with asyncio.TaskGroup() as group:
                inner = group.create_task(supervisor.watch("dispatcher", lasts()))
                await asyncio.sleep(0)
                inner.cancel()
            rounds += 1

    async with supervisor.running({"leader election": outer()}):
        await until(lambda: rounds >= 3)

    assert supervisor.failure == ""


# Work on one object


async def test_work_on_an_object_that_breaks_begins_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    tries: list[Callable[[], Any]] = [raises, cancels_itself, raises, returns]

    async def live() -> None:
        await tries.pop(0)()

    before = metrics.unexpected.labels("actor", "ValueError")._value.get()
    with capture_logs() as lines:
        async with asyncio.timeout(PATIENCE):
            await persevere(Guard("actor"), BASE, live)

    assert tries == []
    assert metrics.unexpected.labels("actor", "ValueError")._value.get() == before + 2
    assert [(line["name"], line["kind"]) for line in lines] == [
        (BASE, "ValueError"),
        (BASE, "CancelledError"),
    ]


async def test_work_on_an_object_ends_when_it_is_cancelled():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(persevere(Guard("actor"), BASE, lasts))
        await asyncio.sleep(0)
        task.cancel()

    assert task.cancelled()


def test_a_guard_says_each_kind_once_for_each_object_and_never_the_words():
    guard = Guard("gauges")

    with capture_logs() as lines:
        for name in ("a", "b", "a", "b"):
            with guard.around(name):
                raise KeyError(SECRET)
        with guard.around("a"):
            pass
        with guard.around("a"):
            raise KeyError(SECRET)

    assert [line["name"] for line in lines] == ["a", "b", "a"]
    assert {line["part"] for line in lines} == {"gauges"}
    assert SECRET not in str(lines)


def test_a_guard_remembers_a_bounded_number_of_objects():
    guard = Guard("gauges")

    with capture_logs() as lines:
        for number in range(MOST_SAID + 50):
            guard.note(str(number), ValueError())

    assert len(lines) == MOST_SAID


def test_the_places_of_an_error_are_told_without_its_words():
    with pytest.raises(KeyError) as caught:
        Unreadable().broken()
    group = ExceptionGroup("two", [ExceptionGroup("one", [caught.value])])

    assert kind_of(group) == "KeyError"
    assert re.fullmatch(r"jobs/names\.py:\d+ id_names", where(group))


class Unreadable(str):
    """A job id whose reading fails."""

    __slots__ = ()

    def broken(self) -> None:
        id_names(self, "intervene-dev")

    def upper(self) -> str:
        raise KeyError(SECRET)

    lower = upper


# The service


@asynccontextmanager
async def another_server(
    world: World, folder: Path
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    """Run the application by a server that knows nothing of supervision."""
    environment = world.environment(folder) | FAST
    settings = Settings.model_validate({key.lower(): environment[key] for key in environment})
    app = application.create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield app.state.service, client


async def test_a_dead_part_makes_the_replica_unready_at_once_and_gives_the_lease_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    die = asyncio.Event()

    async def mortal(*_: Any) -> None:
        await die.wait()
        raise ValueError(SECRET)

    monkeypatch.setattr(application, "keep_gauges", mortal)
    async with World() as world, another_server(world, tmp_path) as (service, client):
        await until_status(client, "/readyz", 200)
        await until(lambda: service._elector.is_leader)

        die.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ready, alive = await client.get("/readyz"), await client.get("/healthz")

        for answer in (ready, alive):
            assert problem_of(answer, 503) == "a part of the service ended: gauges"
        await until(lambda: not service._elector.is_leader and not service._elector._claimed)
        assert (await client.get("/jobs")).status_code != 500


DYING = """
import asyncio
from pyvatti import app

async def dies(*_):
    await asyncio.sleep(0.3)
    raise ValueError("foreign-text-of-a-neighbour")

app.keep_gauges = dies
from pyvatti.cli import main
main()
"""


async def test_serve_ends_with_1_and_one_line_when_a_part_dies(tmp_path: Path):
    async with World() as world:
        environment = world.environment(tmp_path) | FAST | {"PORT": "0", "LOG_FORMAT": "json"}
        async with (
            running("serve", program=("-c", DYING), **environment) as process,
            asyncio.timeout(60),
        ):
            said, complained = await process.communicate()

    lines = [json.loads(line) for line in complained.decode().splitlines()]
    assert (process.returncode, said) == (1, b"")
    loud = [line for line in lines if line["severity"] in ("ERROR", "CRITICAL")]
    assert [(line["part"], line["kind"]) for line in loud] == [("gauges", "ValueError")]
    assert lines[-1]["severity"] == "INFO"
    assert "stopped" in [line["event"] for line in lines]
    assert SECRET not in complained.decode()
    assert "Traceback" not in complained.decode()


async def test_a_replica_that_may_not_list_is_alive_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(controller, "BEAT", 0.01)
    async with World() as world:
        world.kube.faults.add("GET", "/(pods|jobs)", "status", status=403)
        async with another_server(world, tmp_path) as (service, client):
            await until(lambda: service._elector.is_leader)
            assert (await client.get("/healthz")).status_code == 200

            service._controller.beat -= LONGEST_SILENCE + 1

            await until_status(client, "/healthz", 200)
            assert (await client.get("/readyz")).status_code == 503


# Poison


async def test_a_row_that_breaks_its_reading_hides_no_other_run(monkeypatch: pytest.MonkeyPatch):
    now = datetime(2026, 7, 10, 18, tzinfo=UTC)
    rows: list[Any] = [
        {"runName": "of somebody", "submit": "0001-01-01T00:00:00+14:00"},
        {"runName": "of somebody", "submit": "9999-12-31T23:59:59-14:00"},
        {"runName": "dev-intp1", "submit": "0001-01-01T00:00:00+14:00", "status": "FAILED"},
        {"runName": "dev-intp2", "submit": now.isoformat(), "status": "FAILED", "id": "breaks"},
        {"runName": "dev-intp3", "submit": now.isoformat(), "status": "FAILED"},
    ]
    body = json.dumps({"workflows": [{"workflow": row} for row in rows]}).encode()
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, content=body))
    door = Seqera(settings_for(), transport=transport, clock=lambda: now)
    read = seqera._run

    def breaking(row: Any, *given: Any) -> Any:
        if row.get("id") == "breaks":
            raise LookupError(SECRET)
        return read(row, *given)

    monkeypatch.setattr(seqera, "_run", breaking)
    with capture_logs() as lines:
        found = await door.runs(dict.fromkeys(("dev-intp1", "dev-intp2", "dev-intp3"), now))
        alone = await door.find("dev-intp3", now)
    await door.close()

    assert list(found) == ["dev-intp3"]
    assert alone is not None
    assert [line["kind"] for line in lines if line["event"] == "unexpected error"] == [
        "LookupError"
    ]
    assert SECRET not in str(lines)


async def test_a_pass_over_seqera_that_breaks_is_a_failed_pass_and_the_next_one_counts():
    now, answers = datetime(2026, 7, 10, 18, tzinfo=UTC), [LookupError(SECRET), TypeError(SECRET)]
    run = Run(name="dev-intp1", status=RunStatus.FAILED, submitted_at=now, seen_at=now)

    class Door:
        async def check(self) -> None:
            raise LookupError(SECRET)

        async def runs(self, _wanted: Any, _clean: Any) -> dict[str, Run]:
            if answers:
                raise answers.pop(0)
            return {run.name: run}

    def changed(_name: str) -> None:
        raise KeyError(SECRET)

    door: Any = Door()
    moments = (now + timedelta(seconds=number) for number in itertools.count())
    follower = RunFollower(
        door,
        interval=3600,
        clock=lambda: next(moments),
        wanted=lambda: {run.name: now},
        clean=lambda _name, text: text,
        changed=changed,
    )
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        task = group.create_task(follower.follow())
        await follower.ask(run.name)
        assert follower.failing_since is not None
        await follower.ask(run.name)
        await follower.ask(run.name)
        assert follower.failing_since is None
        assert follower.run_of(run.name) == run
        task.cancel()


def test_an_odd_job_costs_its_own_count_alone():
    odd = replace(job(State.FAILED), outbox=(notice(T0.replace(tzinfo=None)),))
    sound = replace(
        job(State.FAILED), uid="2", names=names_for("INTP2", "dev", "2"), outbox=(notice(T0),)
    )
    cache = SimpleNamespace(
        jobs=lambda: [odd, sound], pods=lambda _uid: (), oldest_deletion=lambda: T0
    )
    remains = SimpleNamespace(
        stuck=lambda _uid: (), denial=lambda _uid: None, oldest=lambda: None, count=lambda: 0
    )
    doors: Any = SimpleNamespace(
        cache=cache,
        remains=remains,
        settings=settings(),
        clock=lambda: T0 + timedelta(seconds=90),
    )
    elector: Any = SimpleNamespace(is_follower=False)

    with capture_logs() as lines:
        gauges._count_jobs(doors, Guard("gauges"))
        gauges._measure_ages(doors, elector, Guard("gauges"))

    assert metrics.outbox_age._value.get() == 90
    assert metrics.oldest_undeleted._value.get() == 90
    assert metrics.outbox._value.get() == 2
    assert {line["name"] for line in lines} == {f"{odd.names.base} (outbox)"}


def notice(moment: datetime) -> Notice:
    return Notice(sequence=1, event=Event.FAILED, at=moment)


ZONELESS = "2026-01-01T00:00:00"
ANNOTATION = "hattivatti.geneticscores.org"


async def test_poisoned_objects_stop_neither_the_service_nor_other_jobs(
    monkeypatch: pytest.MonkeyPatch,
):
    """Each of four jobs meets a fault of its own; a row of Seqera is of another millennium."""
    ids = [f"INTP0000000000{number}" for number in range(1, 5)]
    broken_pass, broken_rest, broken_courier, edited = (job_id.lower() for job_id in ids)

    def breaking(method: Any, base: str) -> Any:
        async def instead(self: Any, *given: Any) -> Any:
            if self.base == base:
                raise LookupError(SECRET)
            return await method(self, *given)

        return instead

    monkeypatch.setattr(JobActor, "_observe", breaking(JobActor._observe, broken_pass))
    monkeypatch.setattr(JobActor, "_rest", breaking(JobActor._rest, broken_rest))
    monkeypatch.setattr(Courier, "_rest", breaking(Courier._rest, broken_courier))
    with capture_logs() as lines:
        async with stage(jobs=dict.fromkeys(map(str.lower, ids), "slow")) as on:
            row = on.world.seqera.runs.get(on.world.seqera.put_run("somebody-elses"))
            row.workflow["submit"] = "0001-01-01T00:00:00+14:00"
            for job_id in ids:
                await on.launch(job_id)
            await on.until_state("Created", "Deployed", job_id=ids[3])
            moments = json.dumps({"Requested": ZONELESS, "Created": ZONELESS})
            edit(on.world, JOBS, edited, annotations={f"{ANNOTATION}/transitions": moments})
            edit(on.world, PODS, on.world.objects("Pod")[0], labels={"controller-uid": "?"})

            await on.launch()

            assert (await on.until_finished())["state"] == "Succeeded"
            assert (await on.client.get("/readyz")).status_code == 200
            assert (await on.client.get("/healthz")).status_code == 200
            page = (await on.client.get("/metrics")).text

    met = {(line["part"], line["name"]) for line in lines if line["event"] == "unexpected error"}
    assert met >= {
        ("actor", broken_pass),
        ("actor", broken_rest),
        ("courier", broken_courier),
    }
    assert SECRET not in str(lines)
    for part in ("actor", "courier"):
        assert f'pyvatti_unexpected_errors_total{{error="LookupError",part="{part}"}}' in page


def edit(world: World, resource: Any, name: str, **metadata: dict[str, str]) -> None:
    """Change an object's metadata as anybody may."""

    def change(body: dict[str, Any]) -> None:
        for key, values in metadata.items():
            body["metadata"].setdefault(key, {}).update(values)

    world.kube.store.mutate(resource, world.namespace, name, change)
