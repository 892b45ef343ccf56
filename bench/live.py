"""A thousand live jobs: memory, CPU of a pass, calls of Seqera, and how soon a failure is told."""

import asyncio
import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.objects import base_of, launched, live_job, names_of, pod_of, pod_status
from bench.processes import Service, child, line_of, service
from bench.report import Figure
from bench.site import AT_ONCE, MERGE, Body, Site, each, open_site
from pyvatti import jobs
from pyvatti.manifests import Renderer
from pyvatti.models import State

INTERVAL = 5.0  # seconds between two Seqera passes
FAILURES = 20
PATIENCE = 60.0
PACE = {
    "POLL_INTERVAL": str(INTERVAL),
    "MAX_CONCURRENT_JOBS": "10",
    "BUCKET_INTERVAL": "0.05",
}


async def measure(jobs: int, *, quick: bool) -> list[Figure]:
    """Put the jobs into the cluster and measure at rest, then let some of them fail."""
    async with open_site() as site:
        await put_live(site, range(1, jobs + 1), State.DEPLOYED)
        settings = site.environment(**PACE)
        figures = [await _pass(site, settings, jobs, rounds=3 if quick else 7)]
        async with service(site.folder, settings) as running:
            await _follow(site, jobs)
            figures += await _at_rest(site, running, jobs, intervals=1 if quick else 3)
            figures += await _failures(site, jobs)
    return figures


async def put_live(site: Site, numbers: Sequence[int], state: State) -> None:
    """Put jobs with a running pod and a running run into the cluster, as if released long ago."""
    renderer = Renderer(site.settings())

    async def put(number: int) -> None:
        job = live_job(renderer, number, site.installation, state)
        made = await site.send("POST", site.path("batch/v1", "jobs"), job)
        names = names_of(number, site.namespace, made["metadata"]["uid"])
        marks = {"metadata": {"annotations": jobs.name_marks(names)}}
        await site.send("PATCH", site.path("batch/v1", "jobs", names.base), marks, MERGE)
        pod = pod_of(made)
        await site.send("POST", site.path("v1", "pods"), pod)
        transfer = 0 if state is State.DEPLOYED else None
        await set_pod(site, pod, transfer=transfer, calculation=None)
        if state is State.DEPLOYED:
            site.world.seqera.put_run(names.run_name, submit=launched(number), id=f"w{number:013}")

    await each(numbers, put, AT_ONCE)


async def set_pod(site: Site, pod: Body, *, transfer: int | None, calculation: int | None) -> None:
    """Write the status of a pod, as its kubelet would."""
    path = site.path("v1", "pods", pod["metadata"]["name"], "status")
    status = pod_status(pod, transfer=transfer, calculation=calculation)
    await site.send("PATCH", path, status, MERGE)


async def _pass(site: Site, environment: dict[str, str], jobs: int, rounds: int) -> Figure:
    log = site.folder / "passes.log"
    arguments = ("-m", "bench.passes", str(jobs), str(rounds))
    async with child(*arguments, log=log, **environment) as process:
        seconds: list[float] = json.loads(await line_of(process, log))
    spread = ", ".join(f"{1000 * value:.0f}" for value in sorted(seconds))
    return Figure(
        f"CPU of a pass over {jobs:,} live jobs that needs no action",
        1000 * median(seconds),
        "ms",
        limit=100,
        note=f"observe and decide for each job; rounds: {spread}",
    )


async def _follow(site: Site, jobs: int) -> None:
    """Wait until the service has asked Seqera for its runs."""
    before = len(_lists(site))
    async with asyncio.timeout(PATIENCE):
        while len(_lists(site)) - before < jobs // 50 + 1:
            await asyncio.sleep(0.1)


def _lists(site: Site) -> list[str]:
    asked = site.world.seqera.requests
    return [item.path for item in asked if item.path.startswith("/workflow?")]


def _longest_pass(site: Site) -> int:
    """Count the calls of each pass, which begins with the first page; give the most."""
    passes: list[int] = []
    for path in _lists(site):
        if path.endswith("&offset=0"):
            passes.append(0)
        passes[-1] += 1
    return max(passes)


async def _at_rest(site: Site, running: Service, jobs: int, intervals: int) -> list[Figure]:
    await asyncio.sleep(INTERVAL)
    before = running.cpu_seconds
    await asyncio.sleep(intervals * INTERVAL)
    cpu = running.cpu_seconds - before
    return [
        Figure(f"Seqera calls per interval for {jobs:,} live jobs", _longest_pass(site), limit=25),
        Figure(
            f"memory of the service with {jobs:,} live jobs",
            running.memory(),
            "MiB",
            limit=150,
            note=f"resident; highest so far {running.memory('VmHWM'):.0f}",
        ),
        Figure(
            "CPU of the service at rest, with one Seqera pass",
            1000 * cpu / intervals,
            "ms",
            note=f"per interval of {INTERVAL:.0f} s: lists, rows, Lease, gauges, probes",
        ),
    ]


async def _failures(site: Site, jobs: int) -> list[Figure]:
    """Let drivers and transfers fail one after another, among all the live jobs."""
    drivers = [await _driver_fails(site, number) for number in range(1, FAILURES + 1)]
    transferring = range(jobs + 1, jobs + FAILURES + 1)
    await put_live(site, transferring, State.CREATED)
    transfers = [await _transfer_fails(site, number) for number in transferring]
    what = "from the write of a pod's failure to the notification at the backend"
    return [
        Figure(f"{what}: transfer", median(transfers), "s", limit=1, note=_range(transfers)),
        Figure(f"{what}: driver", median(drivers), "s", limit=1, note=_range(drivers)),
    ]


def _range(seconds: Sequence[float]) -> str:
    return f"median of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f}"


async def _driver_fails(site: Site, number: int) -> float:
    """Let a task fail: Nextflow tells Seqera, then its container ends."""
    run = site.world.seqera.runs.get(f"w{number:013}").workflow
    run |= {"status": "FAILED", "exitStatus": 14, "errorMessage": "MatchRateError"}
    return await _fails(site, number, transfer=0, calculation=1)


async def _transfer_fails(site: Site, number: int) -> float:
    return await _fails(site, number, transfer=1, calculation=None)


async def _fails(site: Site, number: int, **exit_codes: Any) -> float:
    """Give the seconds from just before the failure is written to its arrival at the backend."""
    base = base_of(number)
    pod = await site.get(site.path("v1", "pods", f"{base}-bench"))
    began = time.time()
    await set_pod(site, pod, **exit_codes)
    async with asyncio.timeout(PATIENCE):
        while True:
            for told in reversed(site.world.backend.received):
                if told.job_id == base.upper() and told.body["event"] == "failed":
                    return float(told.time - began)
            await asyncio.sleep(0.01)
