"""What the process says of itself: liveness, readiness, metrics; how it begins and stops."""

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from api_calls import AS_JSON, PATIENCE, problem_of, replica, until_status
from patience import patient_client
from prometheus_client.parser import text_string_to_metric_families
from stage import FAST, JOB, launch_body, stage

from pyvatti.api import Service, make_api
from pyvatti.app import run_service
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.telemetry import Metrics


async def test_it_is_alive_but_not_ready_before_the_cluster_is_read():
    async with World() as world:
        hang = world.kube.faults.add("GET", "/pods", "hang")
        async with replica(world) as client:
            alive = await client.get("/healthz")
            ready = await client.get("/readyz")
            jobs = [await client.get(path) for path in ("/jobs", f"/jobs/{JOB}")]

            assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
            assert "not read yet" in problem_of(ready, 503)
            for answer in jobs:
                problem_of(answer, 503)
                assert answer.headers["retry-after"]
            log = await client.get(f"/jobs/{JOB}/log")
            problem_of(log, 503)
            world.kube.faults.remove(hang)


async def test_it_accepts_before_the_cluster_is_read():
    async with World() as world:
        world.kube.faults.add("GET", "/pods", "status", status=503)
        async with replica(world) as client:
            async with patient_client(str(client.base_url)) as caller:
                answer = await caller.post("/launch", json=launch_body())

            assert answer.status_code == 201
            world.kube.faults.clear()
            await until_status(client, "/readyz", 200)
            assert (await client.get(f"/jobs/{JOB}")).status_code == 200


async def test_it_is_not_ready_while_it_may_not_watch_and_again_once_it_may():
    async with World() as world:
        world.kube.faults.add("GET", "/jobs.*watch=true", "reset_body", seconds=0.2)
        async with replica(world) as client:
            await until_status(client, "/readyz", 200)

            world.kube.faults.clear()
            world.kube.faults.add("GET", "/jobs", "status", status=401)
            deaf = await until_status(client, "/readyz", 503)
            alive = await client.get("/healthz")

            assert "not heard" in problem_of(deaf, 503)
            assert alive.status_code == 200
            world.kube.faults.clear()
            await until_status(client, "/readyz", 200)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        pytest.param("_beat", "event loop", id="the loop does not turn"),
        pytest.param("beat", "no passes", id="the acting loop does not turn"),
    ],
)
async def test_it_is_not_alive_when_it_is_stuck(plant: str, says: str, tmp_path: Path):
    running: list[Service] = []
    async with World() as world:
        environment = world.environment(tmp_path) | FAST
        settings = Settings.model_validate({key.lower(): environment[key] for key in environment})

        @asynccontextmanager
        async def lifespan(app):
            async with run_service(settings) as app.state.service:
                running.append(app.state.service)
                yield

        app = make_api(settings, lifespan)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            service = running[0]
            async with asyncio.timeout(PATIENCE):
                while not service._elector.is_leader:
                    await asyncio.sleep(0.02)
            assert (await client.get("/healthz")).status_code == 200

            holder = service if plant == "_beat" else service._controller
            setattr(holder, plant, time.monotonic() - 61)

            assert says in problem_of(await client.get("/healthz"), 503)


async def test_every_metric_is_shown_in_a_format_that_prometheus_reads():
    async with stage("slow") as on:
        await on.launch()
        await on.until_state("Created", "Deployed")

        answer = await on.client.get("/metrics")

        assert answer.headers["content-type"].startswith("text/plain; version=")
        shown = {family.name: family for family in text_string_to_metric_families(answer.text)}
        named = {
            metric._name for metric in vars(Metrics()).values() if hasattr(metric, "_documentation")
        }
        assert len(named) > 10
        assert named <= shown.keys()
        assert all(family.documentation for family in shown.values())
        states = {item.labels["state"]: item.value for item in shown["pyvatti_jobs"].samples}
        assert states.keys() == {"Requested", "Created", "Deployed", "Succeeded", "Failed"}


async def test_metrics_say_nothing_about_a_single_job():
    async with stage("slow") as on:
        await on.launch()
        await on.until_state("Created", "Deployed")

        text = (await on.client.get("/metrics")).text

        assert JOB.lower() not in text.lower()


async def test_refusals_are_counted():
    def launches(text: str) -> dict[str, float]:
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = families["pyvatti_launches"].samples
        return {
            item.labels["answer"]: item.value for item in samples if item.name.endswith("_total")
        }

    async with stage("slow") as on:
        before = launches((await on.client.get("/metrics")).text)
        await on.launch()
        await on.client.post("/launch", content=b"{", headers=AS_JSON)
        after = launches((await on.client.get("/metrics")).text)

        for answer in ("201", "422"):
            assert after[answer] == before.get(answer, 0) + 1
