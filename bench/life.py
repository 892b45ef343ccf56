"""How often the service writes to Kubernetes for one job, from its launch to its last trace."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from bench.counting import counted
from bench.objects import base_of, launch, names_of
from bench.processes import service, variables
from bench.report import Figure
from bench.site import Body, Site, open_site, real_kubeconfig
from pyvatti import labels
from pyvatti.settings import PACKAGED_TEMPLATES

WHAT = "Kubernetes writes per job over its whole life"
SCRIPT = re.compile(
    r'            - \|\n(?:              .*\n)*?              exec nextflow "\$@"\n'
)
PATIENCE = 150.0
LOOK = 0.1
PACE = {
    "POLL_INTERVAL": "1",
    "BUCKET_INTERVAL": "0.05",
    "MAX_CONCURRENT_JOBS": "100",
    "DRIVER_CPU": "10m",
    "DRIVER_MEMORY": "32Mi",
    "DRIVER_STORAGE": "32Mi",
    "NEXTFLOW_VERSION": "25.10.4",
}


async def measure(jobs: int) -> list[Figure]:
    """Run jobs whose containers sleep instead of Nextflow; the runs in Seqera are put there."""
    async with open_site(controllers=True) as site:
        if not (await site.get("/api/v1/nodes"))["items"]:
            return [Figure(WHAT, None, limit=13, note="no node: pods do not run here")]
        numbers = range(1, jobs + 1)
        seconds = 20 if real_kubeconfig() else 60  # the sandbox's containers are ten times faster
        environment = PACE | {
            "NEXTFLOW_IMAGE": variables().get("PYVATTI_TEST_IMAGE", "busybox"),
            "TEMPLATES_DIR": str(_templates(site.folder / "templates", seconds)),
        }
        async with (
            counted(site) as proxy,
            service(site.folder, site.environment(**environment)) as running,
        ):
            await _launch(running.url, numbers)
            async with asyncio.timeout(PATIENCE):
                await _live(site, numbers)
        bases = [base_of(number) for number in numbers]
    note = (
        f"most of {jobs} jobs; mean {_mean(proxy.writes, bases)}, besides"
        f" {_mean(proxy.refused, bases)} refused as stale or absent"
        f" and {_mean(proxy.events, bases)} Events"
    )
    return [Figure(WHAT, max(proxy.writes[base] for base in bases), limit=13, note=note)]


def _mean(counts: Mapping[str, int], bases: Sequence[str]) -> str:
    return f"{sum(counts[base] for base in bases) / len(bases):.1f}"


def _templates(folder: Path, seconds: int) -> Path:
    """Write a Job template whose containers sleep."""
    text = (PACKAGED_TEMPLATES / "job.yaml.j2").read_text()
    for script in ("sleep 1", f"sleep {seconds}"):
        text, found = SCRIPT.subn(f"            - {script}\n", text, count=1)
        if not found:
            raise RuntimeError("job.yaml.j2 starts Nextflow in a way this benchmark does not know")
    folder.mkdir()
    (folder / "job.yaml.j2").write_text(text)
    return folder


async def _launch(url: str, numbers: Sequence[int]) -> None:
    async with aiohttp.ClientSession(url) as session:
        for number in numbers:
            async with session.post("/launch", json=launch(number)) as answer:
                answer.raise_for_status()


async def _live(site: Site, numbers: Sequence[int]) -> None:
    """Play Seqera's part until no Job is left: each run begins, is told of and succeeds."""
    seqera, begun = site.world.seqera, dict.fromkeys(numbers, False)
    while (await site.get(site.path("batch/v1", "jobs")))["items"]:
        pods = (await site.get(site.path("v1", "pods")))["items"]
        running = {
            marks["job-name"]: marks[labels.CONTROLLER_UID]
            for marks in (pod["metadata"]["labels"] for pod in pods if _main_runs(pod))
        }
        for number in numbers:
            base, key = base_of(number), f"w{number:013}"
            if not begun[number] and base in running:
                begun[number] = True
                names = names_of(number, site.namespace, running[base])
                seqera.put_run(names.run_name, id=key)
            elif begun[number] and "deployed" in site.world.backend.delivered(base.upper()):
                seqera.runs.get(key).workflow |= {"status": "SUCCEEDED", "success": True}
        await asyncio.sleep(LOOK)


def _main_runs(pod: Body) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return any("running" in item.get("state", {}) for item in statuses)
