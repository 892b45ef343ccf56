"""What globflow and Nextflow with pgsc_calc do in a driver pod, as HTTP clients of the stand-ins.

Nothing is known of the service: a container's arguments, environment and files say what to do.
Exit codes and last words are those of a real Nextflow 25.10.4.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import aiohttp

from pyvatti.sandbox.driver_calls import CallFailed, Trace, Wire
from pyvatti.sandbox.driver_ends import HeapExhausted, TaskFailed, Terminated
from pyvatti.sandbox.driver_launch import (
    PROJECT,
    Launch,
    described,
    make_trace,
    missing_code,
    nextflow_version,
    read_input,
    read_launch,
    read_samplesheet,
    work_dir,
)
from pyvatti.sandbox.driver_objects import stage_files, write_results, write_work
from pyvatti.sandbox.driver_pace import passed
from pyvatti.sandbox.driver_plans import (
    HEAP_EXHAUSTED,
    KILLING,
    PLANS,
    TRANSFER_PROCESS,
    Outcome,
    Plan,
    Plans,
    by_job,
    everyone,
    faults_of,
    printed,
)
from pyvatti.sandbox.kube.kubelet_runtime import SIGTERMED, ContainerSpec, OutOfMemory, Runtime
from pyvatti.sandbox.kube.kubelet_shell import ShellRuntime

__all__ = ["PLANS", "DriverRuntime", "Outcome", "Plan", "Plans", "by_job", "everyone", "faults_of"]

HOLD_SECONDS = 0.05  # between two looks whether a held run may end
FOREVER = 1e7
GENOMES_NOT_FOUND = 19
HEAP_EXIT = 3
PROCESSES = (
    "PGSCATALOG_PGSCCALC:PGSCCALC:INPUT_CHECK:FORMAT_SCOREFILES (1)",
    "PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_VARIANTS (1)",
    "PGSCATALOG_PGSCCALC:PGSCCALC:REPORT:SCORE_REPORT (1)",
)


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
        except Terminated:  # while it pulls: no session is there to say anything
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
            self.log(f"data transfer: credential file {missing[0]} is missing")
            return missing_code(launch.text)
        if self.stop.is_set():
            raise Terminated
        try:
            return await self._fetch(launch)
        except Terminated:
            self.log(KILLING)
        except TaskFailed as failure:
            self.log(printed(failure.report))
        except (CallFailed, ValueError) as error:
            self.log(f"ERROR ~ {error}")
        return 1

    async def _fetch(self, launch: Launch) -> int:
        wanted = read_input(self.container, launch)
        if not isinstance(wanted, dict):
            raise ValueError("input must be an object with files")  # noqa: TRY004 - a bad launch
        self.log(f"Launching `gdp-public/globflow` for {len(wanted['files'])} files")
        plan = self.plan
        await write_work(self.wire, self.storage, launch)
        await stage_files(self.wire, self.storage, launch, self.container.files)
        await self._nap(plan.transfer_seconds)
        if plan.transfer_status is not None:
            failed = replace(plan, process=TRANSFER_PROCESS, exit_status=plan.transfer_status)
            raise TaskFailed(failed.exit_status, failed.report(f"{work_dir(launch)}/57/c060f46e7b"))
        for line in plan.transfer_log:
            self.log(line)
        if plan.transfer_exit:
            return plan.transfer_exit
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
        if self.plan.start_log:
            self.log("\n".join(self.plan.start_log))
            return 1
        if self.plan.outcome is not Outcome.SILENT:
            self.trace = make_trace(launch, self.container.env, self.wire, self.seqera)
        if not await self._begin(launch):
            return 1
        try:
            await self._run(launch)
        except Terminated:
            return await self._stop()
        except HeapExhausted:
            self.log(HEAP_EXHAUSTED)
            return HEAP_EXIT
        except TaskFailed as failure:
            self.log(printed(failure.report))
            return await self._end(failure)
        except CallFailed as failure:
            self.log(f"ERROR ~ {failure}")
            return await self._end(TaskFailed(None, str(failure)))
        return await self._end(None)

    async def _stop(self) -> int:
        """End on SIGTERM; the session and its shutdown hook tell so, twice within 50 ms."""
        self.log(KILLING)
        async with asyncio.TaskGroup() as twice:
            for _ in range(2):
                twice.create_task(self._tell_end(TaskFailed(None, "SIGTERM")))
        return 1

    async def _begin(self, launch: Launch) -> bool:
        """Tell Seqera; False if this Nextflow gives up without it.

        Source: nextflow#7055: 25.04 to 25.10 swallow the failure. After a refused create such a
        one goes on with the id `null`; after a refused begin there is no progress, but an end.
        """
        if self.trace is None:
            return True
        trace, self.trace = self.trace, None
        is_patient = (25, 4) <= nextflow_version(self.container.image) < (26, 4)
        created = trace.create(PROJECT, f"https://gitlab.ebi.ac.uk/{PROJECT}")
        if not await self._is_taken(created) and not is_patient:
            return False
        if self.plan.outcome is Outcome.SUBMITTED:
            return True
        begun = trace.begin(described(self.container, launch))
        if not await self._is_taken(begun) and not is_patient:
            return False
        self.trace = trace
        return True

    async def _is_taken(self, call: Coroutine[Any, Any, None]) -> bool:
        try:
            await call
        except CallFailed as failure:
            self.log(f"WARN: Unexpected HTTP response: {failure}")
            return False
        return True

    async def _run(self, launch: Launch) -> None:
        plan = self.plan
        folder = await write_work(self.wire, self.storage, launch)
        await self._need_genomes(launch)
        steps = len(PROCESSES)
        for number, process in enumerate(PROCESSES, 1):
            self.log(f"[{uuid4().hex[:2]}/{uuid4().hex[:6]}] Submitted process > {process}")
            await self._progress(number, process, folder)
            await self._nap(plan.run_seconds / steps)
        if plan.held_by is not None:
            await self._hold(plan.held_by)
        if plan.outcome is Outcome.CANCELLED and self.trace:
            await self.trace.cancel_by_hand()
            await self._nap(FOREVER)
        if plan.outcome is Outcome.DIE:
            raise OutOfMemory
        if plan.outcome is Outcome.HEAP:
            raise HeapExhausted
        if plan.outcome is Outcome.FAIL:
            report = plan.report(f"{work_dir(launch)}/57/c060f46e7b")
            raise TaskFailed(plan.exit_status, report, "\n".join(plan.error_lines))
        if plan.writes_results:
            genomes = read_samplesheet(self.container, launch)
            # The folder is the task's tag, cut at the first blank.
            tag = str(genomes[0]["sampleset"]).partition(" ")[0] if genomes else "sampleset"
            outdir = str(launch.params["outdir"])
            await write_results(self.wire, self.storage, outdir, tag)
            self.log(f"results are in {outdir}")

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

    async def _progress(self, number: int, process: str, folder: str) -> None:
        if self.trace is None or not self.trace.begun:
            return
        self.trace.counts = {"running": 1, "succeeded": number - 1}
        name, _, tag = process.partition(" ")
        task = {
            "taskId": number, "hash": f"{uuid4().hex[:2]}/{uuid4().hex[:6]}", "name": process,
            "process": name, "tag": tag.strip("()"), "status": "RUNNING", "exit": None,
            "executor": "google-batch", "attempt": 1, "workdir": folder, "script": "stand-in",
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
        await self._tell_end(failure)
        if self.plan.outcome is Outcome.HANG and failure is None:
            self.trace = None
            with suppress(Terminated):
                await self._nap(FOREVER)
            return 1
        if self.plan.exit_code is not None:
            return self.plan.exit_code
        return 0 if failure is None else 1

    async def _tell_end(self, failure: TaskFailed | None) -> None:
        if self.trace is None:
            return
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
