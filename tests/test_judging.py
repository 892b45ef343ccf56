"""The decision table: what the witnesses say, and the state it means."""

from dataclasses import replace

import pytest
from builders import T0, at, ended, job, pod, run, running, seen, settings

from pyvatti.labels import INIT_CONTAINER
from pyvatti.models import ClusterEvent, RunStatus, State
from pyvatti.policy import Observed, Progress, judge

SETTINGS = settings()
REPORT = (
    "Error executing process > 'PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)'\n\nCaused"
)

FAILED_INIT = pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1))
OVER = job(ended="Failed", ended_reason="BackoffLimitExceeded", ended_at=T0)
DONE = job(State.DEPLOYED, ended="Complete", ended_at=T0)
KILLED = running(phase="Failed", main_running=False, main_end=ended(code=137, reason="OOMKilled"))
CHILD_KILLED = running(
    phase="Succeeded", main_running=False, main_end=ended(code=0, reason="OOMKilled")
)
EXITED = running(phase="Succeeded", main_running=False, main_end=ended(code=0))
NO_IMAGE = pod(waiting=(INIT_CONTAINER, "ImagePullBackOff", "not found"))
PULLING = Progress(image_error_since=T0)
LOOKED = Progress(report_found=True)

# (id, observation, seconds after T0, state or None for "no change", reason)
ROWS = [
    ("rule 1: SUCCEEDED wins whatever Kubernetes says",
     seen(OVER, KILLED, run=run(RunStatus.SUCCEEDED)), 1, State.SUCCEEDED, "RunSucceeded"),
    ("fault 27, rule 1: SUCCEEDED with an exit status is judged by its status",
     seen(job(), run=run(RunStatus.SUCCEEDED, exit_status=12)), 1,
     State.SUCCEEDED, "RunSucceededDespiteExitStatus"),
    ("fault 13, rule 1: a fast job is never seen Deployed",
     seen(job(State.CREATED), running(), run=run(RunStatus.SUCCEEDED)), 1,
     State.SUCCEEDED, "RunSucceeded"),
    ("rule 2: FAILED carries the task's exit code",
     seen(job(), running(), run=run(RunStatus.FAILED, exit_status=15, error_report=REPORT)), 1,
     State.FAILED, "ZeroMatchesError"),
    ("fault 19, rule 3: CANCELLED in Seqera fails the job",
     seen(job(State.DEPLOYED), running(), run=run(RunStatus.CANCELLED)), 1,
     State.FAILED, "Cancelled"),
    ("rule 4: a deleted Job is cancelled",
     seen(job(State.DEPLOYED, deleting_since=T0), running(), run=run(RunStatus.RUNNING)), 1,
     State.FAILED, "Cancelled"),
    ("rule 4: a run that says SIGTERM because its Job was deleted is cancelled",
     seen(job(State.DEPLOYED, deleting_since=T0), running(),
          run=run(RunStatus.FAILED, error_message="SIGTERM", error_report="SIGTERM")), 1,
     State.FAILED, "Cancelled"),
    ("rule 4: a queued job is cancelled without asking Seqera",
     seen(job(State.REQUESTED, deleting_since=T0), asked_at=None), 1, State.FAILED, "Cancelled"),
    ("a deleted job whose calculation never began needs no Seqera to be cancelled",
     seen(job(State.CREATED, deleting_since=T0), pod(init_running=True), asked_at=None), 1,
     State.FAILED, "Cancelled"),
    ("a transfer that dies of the deletion is a cancellation",
     seen(job(State.CREATED, deleting_since=T0), pod(init_end=ended(INIT_CONTAINER, 143))), 1,
     State.FAILED, "Cancelled"),
    ("a driver that dies of the deletion says nothing before Seqera was asked",
     seen(job(State.DEPLOYED, deleting_since=at(5)), running(main_end=ended(code=143)),
          asked_at=T0), 900, None, None),
    ("rule 4: before Seqera was asked, a deletion proves nothing",
     seen(job(State.DEPLOYED, deleting_since=at(5)), running(), asked_at=T0), 6, None, None),
    ("fault 13 and 28, rule 5: a failed transfer fails at once, though Seqera has no row",
     seen(job(), FAILED_INIT), 1, State.FAILED, "TransferFailed"),
    ("rule 5: a transfer without credentials says so",
     seen(job(), pod(init_end=ended(INIT_CONTAINER, 78))), 1, State.FAILED, "CredentialsMissing"),
    ("rule 5: a transfer out of memory says so",
     seen(job(), pod(init_end=ended(INIT_CONTAINER, 137, "OOMKilled"))), 1,
     State.FAILED, "TransferOutOfMemory"),
    ("rule 5: a transfer that could not start says so",
     seen(job(), pod(init_end=ended(INIT_CONTAINER, 128, "StartError"))), 1,
     State.FAILED, "TransferCannotStart"),
    ("rule 5: an evicted transfer is the cluster's fault",
     seen(job(), pod(phase="Failed", reason="Evicted", init_end=ended(INIT_CONTAINER, 143))), 1,
     State.FAILED, "Evicted"),
    ("rule 6: a dead driver waits for Seqera's reason",
     seen(OVER, KILLED), 239, None, None),
    ("fault 31, rule 6: after the grace a dead driver fails, Seqera saying RUNNING",
     seen(OVER, KILLED, run=run(RunStatus.RUNNING)), 240, State.FAILED, "DriverOutOfMemory"),
    ("fault 31, rule 6: after the grace a dead driver fails, Seqera saying UNKNOWN",
     seen(OVER, KILLED, run=run(RunStatus.UNKNOWN)), 240, State.FAILED, "DriverOutOfMemory"),
    ("rule 6: out of memory with exit 0 is no success",
     seen(job(State.DEPLOYED, ended="Complete", ended_at=T0), CHILD_KILLED),
     240, State.FAILED, "DriverOutOfMemory"),
    ("rule 6: an evicted driver is the cluster's fault",
     seen(OVER, running(phase="Failed", reason="Evicted", main_running=False)), 240,
     State.FAILED, "Evicted"),
    ("rule 6: a drained driver is the cluster's fault",
     seen(OVER, running(phase="Failed", disruption="EvictionByEvictionAPI", main_running=False)),
     240, State.FAILED, "EvictionByEvictionAPI"),
    ("rule 6: after the grace Seqera is asked once more before the verdict",
     seen(OVER, KILLED, asked_at=at(239)), 241, None, None),
    ("rule 7: exit 0 waits for Seqera's word",
     seen(DONE, EXITED, progress=LOOKED), 299, None, None),
    ("fault 26, rule 7: exit 0 without any row succeeds unconfirmed",
     seen(DONE, EXITED, progress=LOOKED), 300, State.SUCCEEDED, "SucceededUnconfirmed"),
    ("rule 7: before anybody looked for a report it waits",
     seen(DONE, EXITED), 300, None, None),
    ("rule 7: a storage that does not answer holds it up only so long",
     seen(DONE, EXITED), 600, State.SUCCEEDED, "SucceededUnconfirmed"),
    ("rule 8: a driver that vanished without a word is lost",
     seen(OVER), 240, State.FAILED, "DriverLost"),
    ("rule 8: what a vanished pod said is remembered",
     seen(OVER, vanished=KILLED), 240, State.FAILED, "DriverOutOfMemory"),
    ("rule 8: what a vanished pod said survives a restart",
     seen(replace(OVER, witness=KILLED)), 240, State.FAILED, "DriverOutOfMemory"),
    ("rule 9: Created may last an hour",
     seen(job(), pod()), 3599, None, None),
    ("fault 15, rule 9: Created times out",
     seen(job(), pod()), 3600, State.FAILED, "TimedOut"),
    ("rule 9: Deployed may last two days",
     seen(job(State.DEPLOYED), running(), run=run(RunStatus.RUNNING)), 172799, None, None),
    ("fault 15, rule 9: Deployed times out",
     seen(job(State.DEPLOYED), running(), run=run(RunStatus.RUNNING)), 172800,
     State.FAILED, "TimedOut"),
    ("rule 9: queue time is unlimited",
     seen(job(State.REQUESTED)), 10**7, None, None),
    ("rule 9: the Job's own deadline is a time-out, not a failed transfer",
     seen(job(ended="Failed", ended_reason="DeadlineExceeded", ended_at=T0),
          pod(phase="Failed", init_end=ended(INIT_CONTAINER, 137))), 1, State.FAILED, "TimedOut"),
    ("rule 10: an image error may pass",
     seen(job(), NO_IMAGE, progress=PULLING), 119, None, None),
    ("fault 30, rule 10: an image that stays away fails the job",
     seen(job(), NO_IMAGE, progress=PULLING), 120, State.FAILED, "ImagePullBackOff"),
    ("rule 11: an unschedulable pod waits",
     seen(job(), pod(unschedulable="0/3 nodes are available")), 3000, None, None),
    ("rule 12: a running driver with a RUNNING row is Deployed",
     seen(job(), running(), run=run(RunStatus.RUNNING)), 1, State.DEPLOYED, "RunStarted"),
    ("rule 12: a RUNNING row without a running driver changes nothing",
     seen(job(), pod(), run=run(RunStatus.RUNNING)), 1, None, None),
    ("fault 20, rule 13: UNKNOWN with a living driver changes nothing",
     seen(job(State.DEPLOYED), running(), run=run(RunStatus.UNKNOWN)), 9000, None, None),
    ("rule 13: a status we do not know changes nothing",
     seen(job(), running(), run=run(RunStatus.OTHER)), 3000, None, None),
    ("rule 14: SUBMITTED stays Created for ten minutes",
     seen(job(), running(), run=run(RunStatus.SUBMITTED)), 599, None, None),
    ("rule 14: a driver without telemetry becomes Deployed",
     seen(job(), running()), 600, State.DEPLOYED, "NoTelemetry"),
    ("rule 15: a transfer under way is Created",
     seen(job(), pod(init_running=True)), 60, None, None),
    ("a creation step that can never succeed fails the launch",
     seen(job(State.REQUESTED), progress=Progress(refusal=("MakeBucketRefused", "taken"))), 1,
     State.FAILED, "MakeBucketRefused"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "seconds", "state", "reason"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_decision_table(
    observed: Observed, seconds: float, state: State | None, reason: str | None
):
    verdict = judge(observed, at(seconds), SETTINGS)

    assert (verdict and verdict.state, verdict and verdict.reason) == (state, reason)


FAILURES = [row[1:3] for row in ROWS if row[3] is State.FAILED]


@pytest.mark.parametrize(("observed", "seconds"), FAILURES)
def test_every_failure_has_what_the_backend_needs_and_its_evidence(observed, seconds):
    verdict = judge(observed, at(seconds), SETTINGS)

    assert verdict is not None
    assert verdict.trace_name
    assert verdict.trace_exit in range(1, 128)
    assert verdict.next_step
    assert verdict.evidence


def test_failed_run_names_process_and_exit_code():
    failed = run(RunStatus.FAILED, exit_status=15, error_report=REPORT)

    verdict = judge(seen(job(), running(), run=failed), at(1), SETTINGS)

    assert verdict is not None
    assert verdict.trace_name == "PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)"
    assert verdict.trace_exit == 15


def test_timeout_says_what_the_job_waited_for():
    quota = ClusterEvent(
        reason="FailedCreate", note="exceeded quota: pods", warning=True, at=T0, about="Job"
    )

    verdict = judge(seen(job(), events=(quota,)), at(3600), SETTINGS)

    assert verdict is not None
    assert "exceeded quota: pods" in verdict.message


def test_a_node_with_a_wrong_clock_does_not_postpone_the_verdict_for_ever():
    ahead = running(
        phase="Failed", main_running=False, main_end=ended(code=1, finished_at=at(3600))
    )
    observed = seen(replace(OVER, ended_at=at(3600)), ahead, progress=Progress(end_seen_at=T0))

    verdict = judge(observed, at(240), SETTINGS)

    assert verdict is not None
    assert verdict.reason == "DriverFailed"
