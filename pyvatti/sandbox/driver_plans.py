"""What a simulated driver is to do: plans by name, with error texts as they really look.

No calls; `driver` acts a plan out.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

from pyvatti.sandbox.kube.kubelet_faults import Fault, FaultSelector, annotated_fault

JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")


class Outcome(StrEnum):
    """How a run ends, as Seqera sees it."""

    SUCCEED = "succeed"
    FAIL = "fail"  # a task fails; Nextflow exits 1
    SILENT = "silent"  # no trace call at all, exit 0
    SUBMITTED = "submitted"  # an id is reserved, the run never begins to speak
    DIE = "die"  # killed for memory: no last call
    HEAP = "heap"  # Java's own heap is exhausted: exit 3, no last call
    HANG = "hang"  # Seqera is told of the success, the process stays
    CANCELLED = "cancelled"  # somebody cancels in Seqera; the process stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One job's script. Durations in seconds.

    transfer_status: of the transfer's failing task; transfer_exit: of its container, and
    transfer_log: what it says before. start_log: why the calculation cannot start, exit 1.
    exit_status: of the failing task. error_report: None is one made from process and exit status.
    exit_code: of the driver, None is Nextflow's own. fault: what the pod suffers besides.
    held_by: the run does not end before this event.
    """

    transfer_seconds: float = 1.0
    transfer_exit: int = 0
    transfer_log: tuple[str, ...] = ()
    transfer_status: int | None = None
    start_seconds: float = 0.5
    start_log: tuple[str, ...] = ()
    run_seconds: float = 2.0
    outcome: Outcome = Outcome.SUCCEED
    process: str = "PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)"
    exit_status: int | None = None
    error_lines: tuple[str, ...] = field(default=())
    error_report: str | None = None
    exit_code: int | None = None
    writes_results: bool = True
    fault: Fault | None = None
    held_by: asyncio.Event | None = None

    def report(self, work_dir: str) -> str:
        """Give the text Nextflow sends, and prints with a frame, when a task failed."""
        if self.error_report is not None:
            return self.error_report
        name = self.process.partition(" ")[0].rpartition(":")[2]
        errors = "\n".join(f"  {line}" for line in self.error_lines) or "  (empty)"
        status = "-" if self.exit_status is None else str(self.exit_status)
        cause = f"with an error exit status ({status})"
        if self.exit_status is None:
            cause = "for an unknown reason -- Likely it has been terminated by the external system"
        return (
            f"Error executing process > '{self.process}'\n\nCaused by:\n"
            f"  Process `{self.process}` terminated {cause}\n\n\nCommand executed:\n\n"
            f"  pgscatalog-{name.lower().replace('_', '-')} -v\n\n"
            f"Command exit status:\n  {status}\n\nCommand output:\n  (empty)\n\n"
            f"Command error:\n{errors}\n\nWork dir:\n  {work_dir}\n\nContainer:\n"
            "  ghcr.io/pgscatalog/pygscatalog:pgscatalog-utils-2.0.0\n\n"
            "Tip: you can replicate the issue by changing to the process work dir and entering"
            " the command `bash .command.run`"
        )


def printed(report: str) -> str:
    """Give a report as Nextflow prints it: its last words."""
    return f"ERROR ~ {report}\n\n -- Check '.nextflow.log' file for details"


Plans: TypeAlias = Callable[[dict[str, Any]], Plan]

_MATCH_RATE = (
    "pgscatalog.match.cli.match_cli: 2024-07-10 16:58:02 CRITICAL Match rate 0.31 below 0.75",
    "Traceback (most recent call last):",
    '  File "/app/.venv/lib/python3.11/site-packages/pgscatalog/match/cli/merge_cli.py", line 133',
    "pgscatalog.core.lib.pgsexceptions.MatchRateError: Sample-Set: match rate 0.31 < min_overlap",
)
_ZERO_MATCHES = (
    "Traceback (most recent call last):",
    '  File "/app/.venv/lib/python3.11/site-packages/pgscatalog/match/cli/merge_cli.py", line 121',
    "pgscatalog.core.lib.pgsexceptions.ZeroMatchesError: All scores fail to meet match threshold",
)
_ACCESSION = (
    "pgscatalog.core.lib.pgsexceptions.InvalidAccessionError: No Catalog result for 'PGS999999'",
)
# Seen with 25.10.4
HEAP_EXHAUSTED = "Terminating due to java.lang.OutOfMemoryError: Java heap space"
NOT_FOUND = "Remote resource not found: https://gitlab.ebi.ac.uk/api/v4/projects/gdp-public%2F"
KILLING = "WARN: Killing running tasks (1)"
TRANSFER_PROCESS = "GLOBUS_TRANSFER (1)"
_TRANSFER = (
    "uk.ac.ebi.intervene.globus: 404 Not Found from GET https://g-sandbox.data.globus.org",
    "retry attempts exhausted: 3 of 3",
)

PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "success": Plan(),
        "slow": Plan(transfer_seconds=20, run_seconds=120),
        "long_run": Plan(run_seconds=120),
        "transfer_fails": Plan(transfer_status=1, error_lines=_TRANSFER),
        "transfer_preempted": Plan(transfer_status=50001),
        "transfer_cannot_start": Plan(transfer_exit=1, transfer_log=(f"{NOT_FOUND}globflow",)),
        "driver_cannot_start": Plan(start_log=(f"{NOT_FOUND}pgsc_calc",)),
        "heap_exhausted": Plan(outcome=Outcome.HEAP),
        "match_rate_too_low": Plan(outcome=Outcome.FAIL, exit_status=14, error_lines=_MATCH_RATE),
        "zero_matches": Plan(outcome=Outcome.FAIL, exit_status=15, error_lines=_ZERO_MATCHES),
        "task_failure": Plan(
            outcome=Outcome.FAIL,
            process="PGSCATALOG_PGSCCALC:PGSCCALC:INPUT_CHECK:FORMAT_SCOREFILES (1)",
            exit_status=12,
            error_lines=_ACCESSION,
        ),
        "image_cannot_be_pulled": Plan(fault=Fault.IMAGE_PULL_INIT),
        "driver_killed": Plan(outcome=Outcome.DIE),
        "driver_hangs": Plan(outcome=Outcome.HANG),
        "seqera_silent": Plan(outcome=Outcome.SILENT),
        "seqera_submitted": Plan(outcome=Outcome.SUBMITTED),
        "cancelled_in_seqera": Plan(outcome=Outcome.CANCELLED),
    }
)


def everyone(plan: Plan) -> Plans:
    """Give every job the same plan."""
    return lambda _pod: plan


def by_job(plans: Mapping[str, Plan], default: Plan | None = None) -> Plans:
    """Choose by the Job's name (`intp00000000513`)."""
    return lambda pod: plans.get(job_name(pod), default or PLANS["success"])


def faults_of(plans: Plans) -> FaultSelector:
    """Let plans choose the pod's fault too; an annotation on the pod comes first."""
    return lambda pod: annotated_fault(pod) or plans(pod).fault


def job_name(pod: dict[str, Any]) -> str:
    """Give the name of a pod's Job, empty without one."""
    labels = pod["metadata"].get("labels", {})
    return str(next((labels[key] for key in JOB_LABELS if key in labels), ""))
