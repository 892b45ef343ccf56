"""PURE: a released job whose slot was taken back: Kueue, or a person, suspended its Job again.

The suspension kills its pods, so that neither their end nor the time that passes says anything. The
job waits to be resumed, as another attempt with a run name and transfer credentials of its own.
"""

from datetime import datetime

from pyvatti.models import Evidence, Job, State, Verdict, Witness
from pyvatti.policy import actions as act
from pyvatti.policy.observed import Observed
from pyvatti.settings import Settings


def evictor(seen: Observed) -> str:
    """Say who takes slots of this job: Kueue, where it was handed to it."""
    return "Kueue" if seen.job.queue_name else "somebody who suspended its Job"


def told_eviction(seen: Observed) -> str:
    """Say when and why the last attempt ended; of a job that had only one, nothing."""
    attempt = seen.job.attempt
    if attempt.evicted_at is None:
        return ""
    at = attempt.evicted_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    said = f" ({attempt.said})" if attempt.said else ""
    return f"evicted by {evictor(seen)} at {at}{said}"


def by_evictions(seen: Observed, now: datetime, settings: Settings) -> Verdict | None:
    """Judge a job that is evicted once more than it may be."""
    attempt, most = seen.job.attempt, settings.max_evictions
    if attempt.waits or attempt.number <= most or _ends_by_itself(seen):
        return None
    times = "once" if attempt.number == 1 else f"{attempt.number} times"
    sentence = f"the job was evicted {times} by {evictor(seen)}; MAX_EVICTIONS is {most}"
    evidence = Evidence(witness=Witness.KUBERNETES, said="the Job is suspended again", at=now)
    return Verdict(
        state=State.FAILED,
        reason="EvictedTooOften",
        message=sentence,
        next_step=(
            "Give the queue more quota or the job a higher priority (or raise MAX_EVICTIONS),"
            " then submit again under a new id."
        ),
        trace_name=sentence,
        trace_exit=1,
        evidence=(evidence,),
    )


def missed(seen: Observed) -> tuple[str, ...]:
    """Name the pods that an eviction killed that nobody saw: the Job is not suspended any more.

    A Job of ours gets a second pod in no other way, for it allows no failure (`backoffLimit: 0`).
    One whose main container has begun has its run's name already: it is followed.
    """
    job, pod = seen.job, seen.pod
    is_over = job.deleting_since is not None or job.ended is not None
    if is_over or job.suspended or not job.queue_name or job.state is State.REQUESTED:
        return ()
    has_begun = pod is not None and (pod.main_running or pod.main_end is not None)
    return () if has_begun else seen.replaced


def is_resumed(job: Job) -> bool:
    """Tell whether the slot was given again and nobody has written it down."""
    return job.attempt.waits and not job.suspended and job.deleting_since is None


def is_taken_back(before: Job, newest: Job) -> bool:
    """Tell whether a Job that was not suspended is now: what was seen may come of that."""
    return newest.suspended and not before.suspended and newest.deleting_since is None


def is_given_again(before: Job, newest: Job) -> bool:
    """Tell whether a Job that waited was resumed: a pod that is new may be the next attempt's."""
    waited = newest.attempt.waits or newest.state is State.REQUESTED
    return before.suspended and waited and not newest.suspended


def hold(seen: Observed) -> list[act.Action]:
    """Give the next steps for a job that waits to be resumed."""
    attempt = seen.job.attempt
    known = [*seen.pods, *([seen.vanished] if seen.vanished else [])]
    pods = tuple(dict.fromkeys(pod.uid for pod in known))
    if not attempt.waits:
        return [] if _ends_by_itself(seen) else [act.NoteEviction(pods)]
    if unknown := tuple(uid for uid in pods if uid not in attempt.former):
        return [act.NoteEviction(unknown)]
    return renew(seen)


def renew(seen: Observed) -> list[act.Action]:
    """Give what another attempt needs before its transfer begins, once; none follows a deletion."""
    number = seen.job.attempt.number
    is_over = seen.job.deleting_since is not None or seen.going_since is not None
    is_ready = number in (1, seen.progress.prepared_for)
    return [] if is_ready or is_over else [act.PrepareAttempt(number)]


def keep_pod(seen: Observed) -> list[act.Action]:
    """Write down the pod of another attempt once it runs: by it a missed eviction is known.

    The first attempt's is written with its state.
    """
    job, pod = seen.job, seen.pod
    if job.attempt.number == 1 or job.state is not State.DEPLOYED or job.witness is not None:
        return []
    return [act.KeepWitness(pod)] if pod is not None and pod.main_running else []


def _ends_by_itself(seen: Observed) -> bool:
    """Tell whether a pod had ended before it could be killed: then its Job ends, suspended or not.

    Source: kubernetes pkg/controller/job, 1.36: ended pods are counted before a suspension is
    looked at, and one that the suspension deletes is counted no more.
    """
    former = seen.job.attempt.former
    return any(not pod.is_live and not pod.deleting and pod.uid not in former for pod in seen.pods)
