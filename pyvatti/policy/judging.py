"""PURE: one verdict from several witnesses: the decision table, first match wins.

Kubernetes decides death, Seqera decides success and why a task failed. "Open" is every Seqera
answer that is not final, and none at all: a failed look-up is never absence.
"""

from collections.abc import Callable
from datetime import datetime

from pyvatti.diagnosis import run_failure
from pyvatti.models import Evidence, Run, RunStatus, State, Verdict, Witness
from pyvatti.policy import proof
from pyvatti.policy.evicting import by_evictions
from pyvatti.policy.limits import (
    grace_end,
    is_asked_since,
    is_dead,
    is_done,
    last_look,
    lost_at,
    state_limit,
)
from pyvatti.policy.observed import Observed
from pyvatti.policy.pods import (
    Cause,
    added_cause,
    driver_cause,
    image_cause,
    infrastructure_cause,
    silent_node_cause,
    transfer_cause,
)
from pyvatti.policy.podwords import has_image_error, silent_since, waits_on, words_of
from pyvatti.settings import Settings

Rule = Callable[[Observed, datetime, Settings], Verdict | None]


def judge(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    """Give the state the witnesses agree on, or None for "no change". Pure.

    Never called for a job whose state is terminal: such a state does not change.
    """
    for rule in _rules(seen):
        verdict = rule(seen, now, settings)
        if verdict is not None:
            return verdict if verdict.state is not seen.job.state else None
    return None


def _rules(seen: Observed) -> tuple[Rule, ...]:
    if seen.is_held:
        return RULES_OF_A_HELD_JOB
    if seen.going_since is not None and not _is_older(seen, seen.going_since):
        return RULES_OF_A_GOING_NAMESPACE
    return RULES if seen.deleting_since is None else RULES_OF_A_DELETED_JOB


def _failed(cause: Cause, *evidence: Evidence) -> Verdict:
    return Verdict(
        state=State.FAILED,
        reason=cause.reason,
        message=cause.message,
        next_step=cause.next_step,
        exit_code=cause.exit_code,
        trace_name=cause.trace_name,
        trace_exit=cause.trace_exit,
        evidence=evidence,
    )


def _said_by_cluster(text: str, at: datetime) -> Evidence:
    return Evidence(witness=Witness.KUBERNETES, said=text, at=at)


def _said_by_seqera(run: Run) -> Evidence:
    exit_status = "" if run.exit_status is None else f", exitStatus {run.exit_status}"
    known_as = f" ({run.workflow_id})" if run.workflow_id else ""
    said = f"run {run.name}{known_as} is {run.raw_status or run.status}{exit_status}"
    return Evidence(witness=Witness.SEQERA, said=said, at=run.seen_at)


def _by_seqera_success(seen: Observed, _now: datetime, _settings: Settings) -> Verdict | None:
    run = seen.run
    if run is None or run.status is not RunStatus.SUCCEEDED:
        return None
    contradicted = bool(run.exit_status)
    return Verdict(
        state=State.SUCCEEDED,
        reason="RunSucceededDespiteExitStatus" if contradicted else "RunSucceeded",
        message="The calculation finished; its results are in the results bucket.",
        exit_code=run.exit_status,
        evidence=(_said_by_seqera(run),),
    )


def _by_seqera_failure(seen: Observed, _now: datetime, _settings: Settings) -> Verdict | None:
    run = seen.run
    if run is None or run.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        return None
    if run.status is RunStatus.CANCELLED:
        cause = Cause(
            reason="Cancelled",
            message="the run was cancelled in Seqera",
            next_step="Submit again under a new id if that was not meant.",
        )
        return _failed(cause, _said_by_seqera(run))
    failure = run_failure(run)
    is_deleted = seen.deleting_since is not None or seen.going_since is not None
    if failure.reason == "DriverStopped" and is_deleted:
        return None  # it failed because it was deleted: the deletion is the reason
    return Verdict(
        state=State.FAILED,
        reason=failure.reason,
        message=failure.message,
        next_step=failure.next_step,
        exit_code=failure.exit_code,
        trace_name=failure.trace_name,
        trace_exit=failure.trace_exit,
        evidence=(_said_by_seqera(run),),
    )


def _by_refusal(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    is_start = seen.job.state is State.REQUESTED or seen.job.attempt.number > 1
    if seen.progress.refusal is None or not is_start:
        return None
    reason, sentence = seen.progress.refusal
    cause = Cause(reason=reason, message=proof.refused(sentence), next_step="Tell the operator.")
    return _failed(cause, _said_by_cluster(sentence, now))


def _by_deletion(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    since = seen.deleting_since
    if since is None:
        return None
    look = seen.deletion_known_at or since
    if _may_have_run(seen) and not is_asked_since(seen, look):
        return None  # the run may have ended before somebody deleted the Job
    cause = Cause(
        reason="Cancelled",
        message="the job was cancelled",
        next_step="Submit again under a new id if that was not meant.",
    )
    said = _said_by_cluster("the Job was deleted on request", since)
    return _failed(cause, said, Evidence(witness=Witness.OPERATOR, said="cancel", at=now))


def _by_namespace(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    """Judge what still goes on when the whole namespace is deleted, once it is known to Seqera."""
    since, look = seen.going_since, seen.going_known_at
    if since is None or look is None:
        return None
    if seen.job.state is State.REQUESTED and not _is_accepted(seen):
        return None
    if _may_have_run(seen) and not is_asked_since(seen, look):
        return None
    cause = Cause(
        reason="NamespaceTerminating",
        message="the namespace in which the job ran was deleted",
        next_step="Submit again under a new id where pyvatti is installed.",
    )
    said = _said_by_cluster("the Namespace is being deleted", since)
    return _failed(cause, said, Evidence(witness=Witness.OPERATOR, said="deletion", at=now))


def _is_older(seen: Observed, since: datetime) -> bool:
    """Tell whether the job ended, or was cancelled, before the namespace's deletion began."""
    moments = (seen.ended_at, seen.job.deleting_since)
    return any(moment is not None and moment < since for moment in moments)


def _is_accepted(seen: Observed) -> bool:
    """Tell whether a queued job was promised to somebody."""
    known = seen.secret_stands or seen.progress.accepted or not seen.job.suspended
    return known or State.REQUESTED in seen.job.transitions


def _may_have_run(seen: Observed) -> bool:
    """Tell whether Seqera may know a run: only if the main container may have started."""
    pod = seen.pod
    is_before = pod is not None and not pod.main_running and pod.main_end is None
    return seen.job.state is not State.REQUESTED and not is_before


def _by_job_deadline(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    if seen.job.ended_reason != "DeadlineExceeded":
        return None
    cause = Cause(
        reason="TimedOut",
        message="the job took longer than its deadline allows",
        next_step="Look at the run in Seqera for what took so long.",
    )
    return _failed(
        cause, _said_by_cluster("Job failed: DeadlineExceeded", seen.job.ended_at or now)
    )


def _by_transfer(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    pod = seen.pod
    if pod is None or pod.init_end is None or pod.init_end.exit_code == 0:
        return None
    end = pod.init_end
    said = _said_by_cluster(words_of(pod), end.finished_at or now)
    return _failed(transfer_cause(pod, end), said)


def _by_added_container(seen: Observed, now: datetime, _settings: Settings) -> Verdict | None:
    """Judge at once what failed before the calculation began: Seqera knows nothing of it."""
    pod = seen.pod
    if pod is None or infrastructure_cause(pod) is not None:
        return None
    cause = added_cause(pod)
    if cause is None:
        return None
    return _failed(cause, _said_by_cluster(words_of(pod), seen.job.ended_at or now))


def _by_silent_node(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    """Judge a driver whose node did not answer for so long that nobody waits for it any more."""
    pod, over = seen.pod or seen.lingering, lost_at(seen, now, settings)
    since = silent_since(pod, now) if pod is not None else None
    if pod is None or over is None or since is None:
        return None
    if _may_have_run(seen) and not is_asked_since(seen, over):
        return None
    text = "the pod is not Ready while its containers are, as for a node that is silent"
    if pod.silent_since is None:
        text = f"the pod was to end by {since.isoformat()} and has not"
    said = "; ".join(part for part in (text, words_of(pod)) if part)
    return _failed(silent_node_cause(since.isoformat()), _said_by_cluster(said, since))


def _by_driver_failure(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    pod, job, since = seen.pod, seen.job, seen.ended_at
    if since is None or not is_dead(seen) or not _is_patience_over(seen, now, settings):
        return None
    text = f"Job {job.ended or 'open'} {job.ended_reason}".strip()
    if words := words_of(pod) if pod is not None else "":
        text += f"; {words}"
    return _failed(driver_cause(pod), _said_by_cluster(text, since))


def _is_patience_over(seen: Observed, now: datetime, settings: Settings) -> bool:
    """Tell whether the grace is over and Seqera was asked for a last time after it."""
    over, look = grace_end(seen, settings), last_look(seen, now, settings)
    return over is not None and look is not None and now >= over and is_asked_since(seen, look)


def _by_driver_success(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    since = seen.ended_at
    if since is None or not is_done(seen) or not _is_patience_over(seen, now, settings):
        return None
    report = seen.progress.report_found
    patience = since + 2 * settings.complete_grace
    if report is None and now < patience:
        return None
    found = {True: "a report is", False: "no report is", None: "nobody knows whether a report is"}[
        report
    ]
    return Verdict(
        state=State.SUCCEEDED,
        reason="SucceededUnconfirmed",
        message=f"The driver finished with exit code 0; Seqera did not confirm it; {found} there.",
        next_step="Check the results and the Seqera endpoint and token.",
        exit_code=0,
        evidence=(
            _said_by_cluster("the driver ended with exit code 0", since),
            Evidence(witness=Witness.STORAGE, said=f"{found} in the results bucket", at=now),
        ),
    )


def _by_clock(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    limit = state_limit(seen.job, settings)
    if limit is None or now < limit[0] + limit[1] or seen.ended_at is not None:
        return None
    seconds = int(limit[1].total_seconds())
    waits = waits_on(seen.pod, seen.events)
    what = "to start" if seen.job.state is State.CREATED else "to finish"
    sentence = f"timed out: the workflow took more than {seconds} s {what}"
    cause = Cause(
        reason="TimedOut",
        message=f"{sentence}: {waits[1]}" if waits else sentence,
        next_step="Look at what it waited for." if waits else "Look at the run in Seqera.",
    )
    said = Evidence(
        witness=Witness.CLOCK, said=f"{seen.job.state} since {limit[0].isoformat()}", at=now
    )
    words = words_of(seen.pod) if seen.pod is not None else ""
    return _failed(cause, said, *([_said_by_cluster(words, now)] if words else []))


def _by_image(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    since, pod = seen.progress.image_error_since, seen.pod
    if pod is None or since is None or not has_image_error(pod):
        return None
    if now < since + settings.image_grace:
        return None
    cause = image_cause(pod)
    return _failed(cause, _said_by_cluster(cause.message, since))


def _by_running(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    pod, run = seen.pod, seen.run
    if seen.job.state is State.DEPLOYED or pod is None or not pod.main_running:
        return None
    said = _said_by_cluster("the main container runs", pod.main_started_at or now)
    if run is not None and run.status is RunStatus.RUNNING:
        return Verdict(
            state=State.DEPLOYED,
            reason="RunStarted",
            message="The calculation runs.",
            evidence=(said, _said_by_seqera(run)),
        )
    silent = run is None or run.status is RunStatus.SUBMITTED
    started = pod.main_started_at
    if not silent or started is None or now < started + settings.telemetry_grace:
        return None
    return Verdict(
        state=State.DEPLOYED,
        reason="NoTelemetry",
        message="The driver runs, but Seqera knows no run of its name.",
        next_step="Check TOWER_API_URL, TOWER_TOKEN and TOWER_WORKSPACE.",
        evidence=(said,),
    )


RULES: tuple[Rule, ...] = (
    _by_seqera_success,
    _by_seqera_failure,
    _by_refusal,
    _by_job_deadline,
    _by_transfer,
    _by_added_container,
    _by_driver_failure,
    _by_driver_success,
    _by_silent_node,
    _by_clock,
    _by_image,
    _by_running,
)
RULES_OF_A_HELD_JOB: tuple[Rule, ...] = (
    # Its pods and its run were killed with its slot; a queue has no clock.
    _by_seqera_success,
    _by_refusal,
    by_evictions,
)
RULES_OF_A_GOING_NAMESPACE: tuple[Rule, ...] = (
    # What its containers and its Job say is that the namespace goes: everything is stopped.
    _by_seqera_success,
    _by_seqera_failure,
    _by_namespace,
)
RULES_OF_A_DELETED_JOB: tuple[Rule, ...] = (
    # How its pod ends says nothing any more: the deletion killed it.
    _by_seqera_success,
    _by_seqera_failure,
    _by_refusal,
    _by_deletion,
)
