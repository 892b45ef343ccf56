"""A stage for stories: the running service on the sandbox, in a hurry, and what stories ask."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
from patience import PATIENCE, patient_client

from pyvatti.demo import Running, run_stack, serve_in_loop
from pyvatti.sandbox.driver_plans import PLANS, Plan, by_job
from pyvatti.sandbox.kube.resources import EVENTS
from pyvatti.sandbox.kube.selectors import compile_selectors
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.telemetry import metrics

LOOK = 0.01  # seconds between two looks at a condition
PAYLOADS = Path(__file__).parent / "data" / "payloads"
FAST = {
    "POLL_INTERVAL": "0.2",
    "BUCKET_INTERVAL": "0.02",
    "FAILED_GRACE": "0.4",
    "COMPLETE_GRACE": "0.4",
    "TELEMETRY_GRACE": "0.4",
    "HANG_GRACE": "0.4",
    "IMAGE_GRACE": "0.3",
    # a machine that is busy with other tests deposes nobody
    "LEASE_DURATION": "15",
    "RENEW_DEADLINE": "10",
    "RETRY_PERIOD": "1",
}
SHORT_LEASE = {"LEASE_DURATION": "3", "RENEW_DEADLINE": "2", "RETRY_PERIOD": "0.5"}
"""For stories about a leader that is deposed."""
JOB = "INTP00000000513"


def payload(name: str) -> dict[str, Any]:
    """Read one of the recorded payloads."""
    read: dict[str, Any] = json.loads((PAYLOADS / name).read_text())
    return read


def launch_body(job_id: str = JOB) -> dict[str, Any]:
    """Give a valid launch request for a job."""
    body = deepcopy(payload("launch-ok-trait-pfile.json"))
    body["pipeline_param"]["id"] = job_id
    return body


class Stage:
    """The service under test and its world.

    `client` asks again what the service could not answer in time, `hasty` takes every answer.
    """

    def __init__(self, running: Running, client: httpx.AsyncClient) -> None:
        self.world, self.url = running.world, running.url
        self.client, self.hasty = client, running.client

    async def until_ready(self) -> None:
        """Wait until the service has read the cluster."""
        async with asyncio.timeout(PATIENCE):
            while (await self.client.get("/readyz")).status_code != 200:
                await asyncio.sleep(LOOK)

    async def launch(self, job_id: str = JOB) -> None:
        """Launch a job and insist on 201."""
        answer = await self.client.post("/launch", json=launch_body(job_id))
        assert (answer.status_code, answer.json()) == (201, {"id": job_id}), answer.text

    async def show(self, job_id: str = JOB) -> dict[str, Any]:
        """Give what the API says of a job."""
        shown: dict[str, Any] = (await self.client.get(f"/jobs/{job_id}")).json()
        return shown

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition of the world."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise AssertionError(f"never happened: {what}") from None

    async def until_state(self, *states: str, job_id: str = JOB) -> dict[str, Any]:
        """Wait until the API says that a job is in one of the states."""
        shown: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while shown.get("state") not in states:
                    await asyncio.sleep(LOOK)
                    shown = await self.show(job_id)
        except TimeoutError:
            raise AssertionError(f"never {states}: {shown}") from None
        return shown

    async def until_finished(self, job_id: str = JOB) -> dict[str, Any]:
        """Wait until a job is cleaned up; give what its record says."""
        shown: dict[str, Any] = {"live": True}
        try:
            async with asyncio.timeout(PATIENCE):
                while shown.get("live", True):
                    await asyncio.sleep(LOOK)
                    shown = await self.show(job_id)
                while job_id.lower() in self.world.objects("Job"):
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise AssertionError(f"never finished: {shown}") from None
        return shown

    def events(self, job_id: str = JOB) -> list[str]:
        """Give the reasons of the Events that `kubectl events --for job/…` shows of a job."""
        fields = (
            "involvedObject.kind=Job,involvedObject.apiVersion=batch/v1,"
            f"involvedObject.name={job_id.lower()}"
        )
        shown = compile_selectors(EVENTS, "", fields)
        found = self.world.kube.store.list(EVENTS, self.world.namespace, shown)
        return [item["reason"] for item in found]

    def told(self, job_id: str = JOB) -> list[str]:
        """Give the events the backend took for a job, in order."""
        return self.world.backend.delivered(job_id)

    def leftovers(self) -> list[str]:
        """Name everything sensitive that exists: cluster objects, buckets, objects in them."""
        kinds = ("Job", "Secret", "Pod")
        found = [f"{kind} {name}" for kind in kinds for name in self.world.objects(kind)]
        return found + self.world.storage.leftovers()

    def writes(self, job_id: str = JOB) -> list[str]:
        """Give what the service wrote about one job but Events; a refused patch wrote nothing."""
        base = job_id.lower()
        return [
            f"{item.verb} {item.resource}"
            for item in self.world.kube.requests
            if item.user_agent.startswith("pyvatti/")
            and item.method != "GET"
            and item.status < 300
            and item.resource in ("jobs.batch", "secrets", "configmaps", "pods")
            and "dryRun" not in item.path
            and (base in item.path or item.method == "POST")
        ]


@asynccontextmanager
async def stage(
    plan: str | Plan = "success",
    *,
    jobs: dict[str, str] | None = None,
    speed: float = 20.0,
    rate_limit: bool = False,
    **changes: str,
) -> AsyncIterator[Stage]:
    """Run the service; `jobs` gives single jobs (by lower-case id) a plan of their own."""
    usual = PLANS[plan] if isinstance(plan, str) else plan
    plans = by_job({base: PLANS[name] for base, name in (jobs or {}).items()}, usual)
    world = World(plans=plans, speed=speed, rate_limit=rate_limit)
    before = events_found_invalid()
    async with staged(FAST | changes, world) as on:
        yield on
    assert events_found_invalid() == before


def events_found_invalid() -> float:
    """Count the Events of this process that an API server found invalid."""
    return metrics.events_refused.labels("Rejected")._value.get()


@asynccontextmanager
async def staged(settings: dict[str, str], world: World) -> AsyncIterator[Stage]:
    """Run the service with these settings on a world of one's own."""
    async with run_stack(settings, world) as running, patient_client(running.url) as client:
        yield Stage(running, client)


@asynccontextmanager
async def service_on(world: World, settings: Settings) -> AsyncIterator[Stage]:
    """Run one more service on a world that runs; it need not be ready."""
    async with serve_in_loop(settings) as url, patient_client(url) as client:
        yield Stage(Running(world, url, client), client)
