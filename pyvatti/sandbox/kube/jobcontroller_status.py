"""PURE: writes a Job's status in place, as the Job controller does.

No decisions; `now` is a moment as Kubernetes writes it (UTC, whole seconds).
"""

from typing import Any

from pyvatti.sandbox.kube.jobcontroller_rules import Tally, Verdict
from pyvatti.sandbox.kube.kubelet_status import set_condition

Body = dict[str, Any]


def write_start(job: Body, *, now: str, resumed: bool) -> None:
    """Write that the Job has begun, anew if it was suspended."""
    job["status"]["startTime"] = now
    if resumed:
        _set_condition(
            job["status"], "Suspended", "False", now, reason="JobResumed", message="Job resumed"
        )


def write_suspended(job: Body, *, now: str) -> None:
    """Write that the Job is suspended: no start, no active pods."""
    status = job["status"]
    for name in ("startTime", "active", "ready"):
        status.pop(name, None)
    status |= {"terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
    _set_condition(status, "Suspended", "True", now, reason="JobSuspended", message="Job suspended")


def write_active(job: Body, *, number: int) -> None:
    """Write how many pods are active."""
    job["status"]["active"] = number


def write_counts(job: Body, *, counts: Tally) -> None:
    """Write the counters of living pods."""
    status = job["status"]
    status |= {"ready": counts.ready, "terminating": counts.terminating}
    status.setdefault("uncountedTerminatedPods", {})
    status["active"] = len(counts.active)
    if not counts.active:
        del status["active"]


def write_totals(job: Body, *, counts: Tally) -> None:
    """Write the counters of ended pods."""
    totals = {"succeeded": counts.succeeded, "failed": counts.failed}
    job["status"] |= {name: number for name, number in totals.items() if number}


def write_verdict(job: Body, *, verdict: Verdict, now: str) -> None:
    """Write a decided or terminal condition."""
    _set_condition(
        job["status"], verdict.kind, "True", now, reason=verdict.reason, message=verdict.message
    )


def write_end(job: Body, *, counts: Tally, verdict: Verdict, now: str) -> None:
    """Write the terminal condition with all counters."""
    write_counts(job, counts=counts)
    write_totals(job, counts=counts)
    write_verdict(job, verdict=verdict, now=now)
    if verdict.kind == "Complete":
        job["status"]["completionTime"] = now


def _set_condition(
    status: Body, kind: str, value: str, now: str, *, reason: str, message: str
) -> None:
    set_condition(status, kind, value, now, reason=reason, message=message)
    written = next(item for item in status["conditions"] if item["type"] == kind)
    written["lastProbeTime"] = now
