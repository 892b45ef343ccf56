"""The objects a simulated driver writes: Nextflow's work folders, staged files, results."""

from collections.abc import Mapping
from uuid import uuid4

from pyvatti.sandbox.driver_calls import Wire
from pyvatti.sandbox.driver_launch import Launch, work_dir


async def write_work(wire: Wire, storage: str, launch: Launch) -> str:
    """Write what Nextflow leaves of a task and give its folder. Raises CallFailed."""
    folder = f"{work_dir(launch)}/{uuid4().hex[:2]}/{uuid4().hex[2:]}"
    for name in (".command.run", ".command.sh", ".command.log", ".exitcode"):
        await wire.put_object(storage, f"{folder}/{name}", b"stand-in\n")
    return folder


async def stage_files(wire: Wire, storage: str, launch: Launch, files: Mapping[str, bytes]) -> None:
    """Copy local input files to the work folder, as Nextflow does for remote tasks."""
    folder = f"{work_dir(launch)}/stage-{uuid4()}"
    for path in launch.params.values():
        if path in files:
            name = f"{folder}/{uuid4().hex[:2]}/{uuid4().hex[2:]}/{path.rpartition('/')[2]}"
            await wire.put_object(storage, name, files[path])


async def write_results(wire: Wire, storage: str, outdir: str, sampleset: str) -> None:
    """Write what pgsc_calc publishes. Raises CallFailed."""
    for name in (
        f"{sampleset}/score/aggregated_scores.txt.gz",
        f"{sampleset}/score/report.html",
        f"{sampleset}/match/{sampleset}_log.csv.gz",
        "pipeline_info/execution_report.html",
        "pipeline_info/software_versions.yml",
    ):
        await wire.put_object(storage, f"{outdir}/{name}", b"stand-in result\n")
