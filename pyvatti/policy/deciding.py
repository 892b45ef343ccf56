"""PURE: the next steps for one job, in order. An empty list means "at rest until a change".

Ladders with early return: a job is withdrawn, or prepared and started, or followed, or cleaned up.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from pyvatti.labels import FINALIZER, FOREGROUND
from pyvatti.models import Event, Job, Pod, Presence, Remainder, State, Verdict
from pyvatti.policy import actions as act
from pyvatti.policy import evicting, proof
from pyvatti.policy.judging import judge
from pyvatti.policy.limits import (
    grace_end,
    is_asked_since,
    is_done,
    is_lost,
    last_look,
    state_limit,
)
from pyvatti.policy.observed import Observed
from pyvatti.policy.pods import NODE_LOST
from pyvatti.policy.podwords import OVERDUE, silence, silent_since
from pyvatti.settings import Settings

NO_POD_PATIENCE = timedelta(seconds=3)
"""How long a released job may be without a pod before its Events are read."""


REQUEST_LOST = Verdict(
    state=State.FAILED,
    reason="RequestLost",
    message="launch failed: the stored request was deleted",
    next_step="Submit again under a new id.",
    trace_name="launch failed: the stored request was deleted",
    trace_exit=1,
)


def decide(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    """Give the next steps for one job, in order. Pure."""
    job = seen.job
    if seen.progress.let_go:
        return []
    if job.presence is Presence.UNSEEN:
        return [act.FindJob()]
    if job.withdrawn or not is_accepted(seen):
        return _take_back(seen, now, settings)
    if FINALIZER not in job.finalizers:
        return [act.Repair()] if job.deleting_since is None else []
    if job.state.is_terminal:
        return _end(seen, now, settings)
    return _live(seen, now, settings)


def _live(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    """Give the next steps of a job that was accepted and has not ended."""
    job = seen.job
    if killed := evicting.missed(seen):
        return [act.NoteEviction(killed)]
    if evicting.is_resumed(job):
        return [act.NoteResumed()]
    verdict = judge(seen, now, settings)
    if verdict is not None:
        return [act.Enter(verdict, witness=seen.pod)]
    if seen.is_held:
        return evicting.hold(seen) or _repair(job)
    if job.state is State.REQUESTED and job.deleting_since is None:
        return _start(seen, settings)
    return _follow(seen, now, settings)


def is_accepted(seen: Observed) -> bool:
    """Tell whether the accept is known to be complete: the Job says so, or its Secret stood."""
    return seen.job.is_marked or seen.progress.accepted or seen.secret_stands


def _take_back(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    """Withdraw what nobody was promised: nothing else happens to such a Job.

    At once where a withdrawal began or the Job is being deleted, for no launch of a dying Job is
    answered 201; else when no accept can be under way any more.
    """
    job = seen.job
    if job.deleting_since is not None:
        return [act.Withdraw()] if FINALIZER in job.finalizers else []
    is_over = now >= seen.accepting_since + settings.accept_grace
    return [act.Withdraw()] if job.withdrawn or is_over else []


def _start(seen: Observed, settings: Settings) -> list[act.Action]:
    job, done = seen.job, seen.progress
    if not job.suspended:
        return [act.NoteCreated()]
    marked = State.REQUESTED in job.transitions
    if marked and not seen.has_slot:
        return []
    if not seen.secret_stands:
        return [act.Enter(REQUEST_LOST)]
    if not marked:  # before anything is made: a 201 must outlive this process
        return [act.MarkQueued()]
    buckets = (job.names.work_bucket, job.names.results_bucket)
    steps: list[act.Action] = [act.MakeBucket(name) for name in buckets if name not in done.buckets]
    if not done.transfer_made:
        steps.append(act.MakeTransferSecret())
    steps += evicting.renew(seen)
    if not settings.kueue_queue:
        return [*steps, act.Release()]
    return steps if job.queue_name else [*steps, act.Enqueue()]


def _follow(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    job, pod, done = seen.job, seen.pod, seen.progress
    steps: list[act.Action] = []
    if not needs_no_credentials(seen):
        steps += evicting.renew(seen)
    elif not done.transfer_gone:
        steps.append(act.DeleteTransferSecret())
    steps += evicting.keep_pod(seen)
    look = last_look(seen, now, settings)
    if look is None:
        return steps + _repair(job) + _remove_staged_files(seen)
    if not is_asked_since(seen, look):
        return [*steps, act.AskSeqera()]
    if pod is not None and _tells_more(pod, job.witness):
        steps.append(act.KeepWitness(pod))
    over = grace_end(seen, settings)
    if is_done(seen) and done.report_found is None and over is not None and now >= over:
        steps.append(act.LookForReport())
    return steps


def _tells_more(pod: Pod, witness: Pod | None) -> bool:
    """Tell whether an end was seen that is not written down yet."""
    if witness is None:
        return pod.main_end is not None or pod.init_end is not None
    return pod.main_end is not None and witness.main_end is None


def needs_no_credentials(seen: Observed) -> bool:
    """Tell whether the transfer is over: the main container runs, or something ended for good."""
    pod, job = seen.pod, seen.job
    if job.ended is not None:
        return True
    if pod is None:
        return False
    failed_init = pod.init_end is not None and pod.init_end.exit_code != 0
    return pod.main_running or pod.main_end is not None or failed_init


def _remove_staged_files(seen: Observed) -> list[act.Action]:
    """Come last: Cloud Storage may fail for a time, and the job is followed meanwhile."""
    pod = seen.pod
    over = pod is not None and pod.main_running and not seen.progress.staged_gone
    return [act.RemoveStagedFiles()] if over else []


def _repair(job: Job) -> list[act.Action]:
    return [act.Repair()] if job.label != job.state or job.edited else []


def _end(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    job, done = seen.job, seen.progress
    if job.verdict is not None and all(notice.event is Event.DEPLOYED for notice in job.outbox):
        return [act.Enter(job.verdict, witness=seen.pod)]  # an operator broke the outbox
    if _may_finish_alone(seen, now, settings):
        if done.transfer_gone or not needs_no_credentials(seen):
            return []
        return [act.DeleteTransferSecret()]
    if job.deleting_since is None or not (done.stop_sent or FOREGROUND in job.finalizers):
        return [act.StopJob()]
    return _remove(seen, now, settings)


def _remove(seen: Observed, now: datetime, settings: Settings) -> list[act.Action]:
    """Remove data as soon as no container can write; only letting go waits for pod objects.

    Nothing here waits for the garbage collector, which a finalizer on an ended pod can stop; nor
    for a node that does not answer, which may never do: a deleted bucket takes no writes.
    """
    job, done = seen.job, seen.progress
    lost = [pod for pod in seen.pods if is_lost(pod, seen, now, settings)]
    held = [pod for pod in seen.pods if pod not in lost]
    may_write = any(pod.is_live for pod in held)
    if not done.strays_gone and not (may_write and FOREGROUND in job.finalizers):
        return [act.RemoveStrays(frozenset(pod.uid for pod in lost))]
    if may_write:
        return []
    for name in _buckets_left(seen):
        return [act.RemoveBucket(name)]
    if unseen := _to_look_at(seen):
        return [act.LookAgain(unseen)]
    if job.pending or held:
        return []
    is_said = done.recorded and done.recorded_outbox == job.outbox
    record = act.WriteRecord(tuple(_end_unseen(job, pod, now) for pod in lost))
    return [act.LetGo()] if is_said else [record, act.LetGo()]


def _end_unseen(job: Job, pod: Pod, now: datetime) -> Remainder:
    since = silent_since(pod, now)
    why = silence(since) if since is not None else "its node does not answer"
    said = f"pod {pod.name}: {why}; that its containers ended was not observed"
    return Remainder(resource=f"pods/{job.names.base}", reason=said)


def is_data_gone(seen: Observed) -> bool:
    """Tell whether everything sensitive of a finished job was seen to be gone."""
    done = seen.progress
    if not (seen.job.state.is_terminal and done.strays_gone):
        return False
    is_left = _buckets_left(seen) or _to_look_at(seen) or proof.holds_data(done.remaining)
    return not is_left and not any(pod.is_live for pod in seen.pods)


def _buckets_left(seen: Observed) -> list[str]:
    """Name the buckets that are to be removed, those it failed at last."""
    job, done = seen.job, seen.progress
    doomed = [f"bucket/{name}" for name in proof.doomed_buckets(job.names, job.state)]
    left = proof.unproven(doomed, done.removals, done.remaining)
    given_up = {item.resource for item in done.remaining}
    failed = [item.resource for item in done.stuck]
    order = {name: failed.index(name) if name in failed else -1 for name in left}
    names = [name for name in left if name not in given_up]
    return [name.removeprefix("bucket/") for name in sorted(names, key=order.__getitem__)]


def _to_look_at(seen: Observed) -> tuple[str, ...]:
    """Name what of the cluster nobody has seen to be gone; not pods that are known to be there."""
    done = seen.progress
    wanted = proof.cluster_resources(seen.job.names)
    given_up = {item.resource for item in done.remaining}
    return tuple(
        name
        for name in proof.unproven(wanted, done.removals, ())
        if name not in given_up and not (seen.pods and name.startswith("pods/"))
    )


def _may_finish_alone(seen: Observed, now: datetime, settings: Settings) -> bool:
    """Tell whether a driver whose run is over in Seqera is still given time to end by itself."""
    job, verdict = seen.job, seen.job.verdict
    if job.deleting_since is not None or verdict is None or seen.ended_at is not None:
        return False
    if verdict.reason in ("Cancelled", "TimedOut", NODE_LOST) or not any(
        pod.main_running for pod in seen.pods
    ):
        return False
    since = job.transitions.get(job.state, job.accepted_at)
    return now < since + settings.hang_grace


def wake_times(seen: Observed, settings: Settings) -> Iterator[datetime]:
    """Give every moment at which the answer of `decide` may change by itself."""
    job, pod = seen.job, seen.pod
    yield seen.accepting_since + settings.accept_grace
    if (limit := state_limit(job, settings)) is not None:
        yield limit[0] + limit[1]
    if (end := seen.ended_at) is not None:
        yield end + settings.failed_grace
        yield end + settings.complete_grace
        yield end + 2 * settings.complete_grace
    if seen.progress.image_error_since is not None:
        yield seen.progress.image_error_since + settings.image_grace
    since = seen.progress.silent_seen_at, job.attempt.resumed_at
    yield from (moment + settings.node_grace for moment in since if moment is not None)
    yield from (pod.due_at + OVERDUE for pod in seen.pods if pod.due_at and pod.is_live)
    if pod is not None and pod.main_started_at is not None:
        yield pod.main_started_at + settings.telemetry_grace
    if job.state.is_terminal:
        yield job.transitions.get(job.state, job.accepted_at) + settings.hang_grace
    if pod is None and State.CREATED in job.transitions:
        yield job.transitions[State.CREATED] + NO_POD_PATIENCE
