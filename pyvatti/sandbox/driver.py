"""What globflow and Nextflow with pgsc_calc do in a driver pod, as HTTP clients of the stand-ins.

Nothing is known of the service: a container's arguments, environment and files say what to do.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp

from pyvatti.sandbox.driver_calls import CallFailed, Trace, Wire
from pyvatti.sandbox.driver_launch import (
    PROJECT,
    Launch,
    described,
    missing_code,
    nextflow_version,
    read_input,
    read_launch,
    read_samplesheet,
    work_dir,
)
from pyvatti.sandbox.driver_pace import passed
from pyvatti.sandbox.driver_plans import (
    PLANS,
    Outcome,
    Plan,
    Plans,
    by_job,
    everyone,
    faults_of,
)
from pyvatti.sandbox.kube.kubelet_runtime import SIGTERMED, ContainerSpec, OutOfMemory, Runtime
from pyvatti.sandbox.kube.kubelet_shell import ShellRuntime

__all__ = ["PLANS", "DriverRuntime", "Outcome", "Plan", "Plans", "by_job", "everyone", "faults_of"]

HOLD_SECONDS = 0.05  # between two looks whether a held run may end
FOREVER = 1e7
GENOMES_NOT_FOUND = 19
PROCESSES = (
    "PGSCATALOG_PGSCCALC:PGSCCALC:INPUT_CHECK:FORMAT_SCOREFILES (1)",
    "PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_VARIANTS (1)",
    "PGSCATALOG_PGSCCALC:PGSCCALC:REPORT:SCORE_REPORT (1)",
)


class Terminated(Exception):
    """SIGTERM arrived."""


class TaskFailed(Exception):
    """A task of the run failed."""

    def __init__(self, exit_status: int | None, report: str, message: str = "") -> None:
        super().__init__(message or report.partition("\n")[0])
        self.exit_status = exit_status
        self.report = report


class DriverRuntime:
    """Runs driver containers by plan; any other container goes to `other`.

    storage_url, seqera_url: the stand-ins; an endpoint in the container's configuration or
    environment wins. plans: the plan of a pod (None: success for all). speed divides the plan's
    durations and the pauses between retries.
    """

    def __init__(
        self,
        *,
        storage_url: str,
        seqera_url: str = "",
        plans: Plans | None = None,
        speed: float = 1.0,
        other: Runtime | None = None,
    ) -> None:
        self._storage = storage_url.rstrip("/")
        self._seqera = seqera_url.rstrip("/")
        self._plans = plans or everyone(PLANS["success"])
        self._speed = speed
        self._other = other or ShellRuntime(speed=speed)

    async def run(
        self,
        container: ContainerSpec,
        pod: dict[str, Any],
        log: Callable[[str], None],
        stop: asyncio.Event,
    ) -> int:
        """Run one container; see `Runtime.run`."""
        if "nextflow" not in " ".join(container.argv):
            return await self._other.run(container, pod, log, stop)
        plan = self._plans(pod)
        # Connections are closed at once: a thousand quiet drivers hold none.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            driver = _Driver(
                container=container, plan=plan, log=log, stop=stop, storage=self._storage,
                seqera=self._seqera, speed=self._speed, wire=Wire(session, self._speed),
            )  # fmt: skip
            return await driver.run()


@dataclass(slots=True, kw_only=True)
class _Driver:
    container: ContainerSpec
    plan: Plan
    log: Callable[[str], None]
    stop: asyncio.Event
    storage: str
    seqera: str
    speed: float
    wire: Wire
    trace: Trace | None = None

    async def run(self) -> int:
        self.log("N E X T F L O W  ~  version sandbox")
        try:
            launch = read_launch(self.container)
        except ValueError as error:
            self.log(f"ERROR ~ {error}")
            return 1
        try:
            return await (self._transfer if launch.is_transfer else self._calculate)(launch)
        except Terminated:
            self.log("SIGTERM")
            return SIGTERMED

    # globflow

    async def _transfer(self, launch: Launch) -> int:
        missing = [
            value
            for key, value in launch.params.items()
            if (key.startswith("config_") or key == "secret_key")
            and value not in self.container.files
        ]
        if missing:
            self.log(f"ERROR ~ credential file {missing[0]} is missing")
            return missing_code(launch.text)
        try:
            return await self._fetch(launch)
        except (CallFailed, ValueError) as error:
            self.log(f"ERROR ~ {error}")
            return 1

    async def _fetch(self, launch: Launch) -> int:
        wanted = read_input(self.container, launch)
        if not isinstance(wanted, dict):
            raise ValueError("input must be an object with files")  # noqa: TRY004 - a bad launch
        self.log(f"Launching `gdp-public/globflow` for {len(wanted['files'])} files")
        await self._write_work(launch)
        await self._stage_files(launch)
        await self._nap(self.plan.transfer_seconds)
        for line in self.plan.transfer_log:
            self.log(line)
        if self.plan.transfer_exit:
            return self.plan.transfer_exit
        for item in wanted["files"]:
            name = item["filename"].removesuffix(".c4gh")
            content = f"stand-in of {name}\n".encode()
            await self.wire.put_object(self.storage, f"{launch.params['outdir']}/{name}", content)
            self.log(f"transferred and decrypted {name}")
        return 0

    # pgsc_calc

    async def _calculate(self, launch: Launch) -> int:
        self.log(f"Launching `{PROJECT}` [{launch.run_name}]")
        await self._nap(self.plan.start_seconds)
        self.trace = self._make_trace(launch)
        if not await self._begin(launch):
            return 1
        try:
            await self._run(launch)
        except Terminated:
            self.log("WARN: Killing running tasks (SIGTERM)")
            return await self._end(TaskFailed(None, "SIGTERM"))
        except TaskFailed as failure:
            self.log(failure.report)
            return await self._end(failure)
        except CallFailed as failure:
            self.log(f"ERROR ~ {failure}")
            return await self._end(TaskFailed(None, str(failure)))
        return await self._end(None)

    def _make_trace(self, launch: Launch) -> Trace | None:
        config, env = launch.config, self.container.env
        token = config.get("accessToken") or env.get("TOWER_ACCESS_TOKEN", "")
        if self.plan.outcome is Outcome.SILENT or not token:
            return None
        endpoint = config.get("endpoint", "")
        if endpoint in ("", "-"):
            endpoint = env.get("TOWER_API_ENDPOINT") or self.seqera
        return Trace(
            wire=self.wire,
            endpoint=endpoint.rstrip("/"),
            token=token,
            workspace=config.get("workspaceId") or env.get("TOWER_WORKSPACE_ID", ""),
            run_name=launch.run_name,
        )

    async def _begin(self, launch: Launch) -> bool:
        """Tell Seqera; False if this Nextflow gives up without it.

        Source: nextflow#7055: 25.04 to 25.10 swallow the failure.
        """
        if self.trace is None:
            return True
        try:
            await self.trace.create(PROJECT, f"https://gitlab.ebi.ac.uk/{PROJECT}")
            if self.plan.outcome is Outcome.SUBMITTED:
                self.trace = None
                return True
            await self.trace.begin(described(self.container, launch))
        except CallFailed as failure:
            self.log(f"WARN: Unexpected HTTP response: {failure}")
            self.trace = None
            return (25, 4) <= nextflow_version(self.container.image) < (26, 4)
        return True

    async def _run(self, launch: Launch) -> None:
        plan = self.plan
        await self._write_work(launch)
        await self._need_genomes(launch)
        steps = len(PROCESSES)
        for number, process in enumerate(PROCESSES, 1):
            self.log(f"[{uuid4().hex[:2]}/{uuid4().hex[:6]}] Submitted process > {process}")
            await self._progress(number, process)
            await self._nap(plan.run_seconds / steps)
        if plan.held_by is not None:
            await self._hold(plan.held_by)
        if plan.outcome is Outcome.CANCELLED and self.trace:
            await self.trace.cancel_by_hand()
            await self._nap(FOREVER)
        if plan.outcome is Outcome.DIE:
            raise OutOfMemory
        if plan.outcome is Outcome.FAIL:
            report = plan.report(f"{work_dir(launch)}/57/c060f46e7b")
            raise TaskFailed(plan.exit_status, report, "\n".join(plan.error_lines))
        if plan.writes_results:
            await self._write_results(launch)

    async def _need_genomes(self, launch: Launch) -> None:
        for genome in read_samplesheet(self.container, launch):
            for key in ("geno", "variants", "pheno"):
                uri = genome.get(key)
                if uri and not await self.wire.has_object(self.storage, uri):
                    lost = Plan(
                        process="PGSCATALOG_PGSCCALC:PGSCCALC:INPUT_CHECK:SAMPLESHEET_JSON (1)",
                        exit_status=GENOMES_NOT_FOUND,
                        error_lines=(f"GenomesNotFound: {uri}",),
                    )
                    raise TaskFailed(lost.exit_status, lost.report(work_dir(launch)))

    async def _progress(self, number: int, process: str) -> None:
        if self.trace is None:
            return
        self.trace.counts = {"running": 1, "succeeded": number - 1}
        name, _, tag = process.partition(" ")
        task = {
            "taskId": number, "hash": f"{uuid4().hex[:2]}/{uuid4().hex[:6]}", "name": process,
            "process": name, "tag": tag.strip("()"), "status": "RUNNING", "exit": None,
            "executor": "google-batch", "attempt": 1,
        }  # fmt: skip
        await self._tell(self.trace.progress([task]))

    async def _tell(self, call: Any) -> None:
        """Send a progress call; Nextflow 26.04 and later give up the run when it is refused."""
        try:
            await call
        except CallFailed as failure:
            self.log(f"WARN: Unexpected HTTP response: {failure}")
            if nextflow_version(self.container.image) >= (26, 4):
                raise

    async def _nap(self, seconds: float) -> None:
        """Wait scaled seconds. Raises Terminated."""
        if not await passed(seconds / self.speed, self.stop, self._beat):
            raise Terminated

    async def _hold(self, until: asyncio.Event) -> None:
        """Go on until an event happens. Raises Terminated."""
        while not until.is_set():
            await self._nap(HOLD_SECONDS * self.speed)

    async def _beat(self) -> None:
        if self.trace is None or not self.trace.begun:
            return
        try:
            await self.trace.heartbeat()
        except CallFailed as failure:
            self.log(f"WARN: Unexpected HTTP response: {failure}")

    async def _end(self, failure: TaskFailed | None) -> int:
        """Tell Seqera the end and give Nextflow's exit code."""
        if self.trace is not None and self.trace.begun:
            self.trace.counts = {"succeeded": len(PROCESSES)} if failure is None else {"failed": 1}
            try:
                await self.trace.complete(
                    success=failure is None,
                    exit_status=failure.exit_status if failure else 0,
                    error=failure.args[0] if failure else None,
                    report=failure.report if failure else None,
                )
            except CallFailed as error:
                self.log(f"WARN: Unexpected HTTP response: {error}")
        if self.plan.outcome is Outcome.HANG and failure is None:
            self.trace = None
            await self._nap(FOREVER)
        if self.plan.exit_code is not None:
            return self.plan.exit_code
        return 0 if failure is None else 1

    # objects

    async def _write_work(self, launch: Launch) -> None:
        folder = f"{work_dir(launch)}/{uuid4().hex[:2]}/{uuid4().hex[2:]}"
        for name in (".command.run", ".command.sh", ".command.log", ".exitcode"):
            await self.wire.put_object(self.storage, f"{folder}/{name}", b"stand-in\n")

    async def _stage_files(self, launch: Launch) -> None:
        """Copy local input files to the work folder, as Nextflow does for remote tasks."""
        folder = f"{work_dir(launch)}/stage-{uuid4()}"
        for path in launch.params.values():
            if path in self.container.files:
                name = f"{folder}/{uuid4().hex[:2]}/{uuid4().hex[2:]}/{path.rpartition('/')[2]}"
                await self.wire.put_object(self.storage, name, self.container.files[path])

    async def _write_results(self, launch: Launch) -> None:
        outdir = str(launch.params["outdir"])
        genomes = read_samplesheet(self.container, launch)
        # The folder is the task's tag, cut at the first blank.
        sampleset = str(genomes[0]["sampleset"]).partition(" ")[0] if genomes else "sampleset"
        for name in (
            f"{sampleset}/score/aggregated_scores.txt.gz",
            f"{sampleset}/score/report.html",
            f"{sampleset}/match/{sampleset}_log.csv.gz",
            "pipeline_info/execution_report.html",
            "pipeline_info/software_versions.yml",
        ):
            await self.wire.put_object(self.storage, f"{outdir}/{name}", b"stand-in result\n")
        self.log(f"results are in {outdir}")
