"""PURE: one job as it is seen in one pass. Values only."""

from dataclasses import dataclass
from datetime import datetime

from pyvatti.models import (
    ClusterEvent,
    Job,
    Notice,
    Pod,
    QueueWords,
    Remainder,
    Removal,
    Run,
    State,
    Waiting,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the acting replica knows of its own work on one job since it took over.

    All of it can be found out again, so it is lost without harm: True means "known to be so",
    False "not known". `refusal` is the sentence of a step that can never succeed. `remaining` is
    not ours and left for good; `stuck` is what the clean-up failed at and tries again ever later,
    the one tried last at the end. `denial` is what a policy of the cluster says against the next
    step, and since when.
    """

    accepted: bool = False  # the driver's Secret was seen, so the accept was complete
    buckets: frozenset[str] = frozenset()  # made, or found to be made by this very job
    prepared_for: int = 0  # the attempt that has credentials and a run name of its own
    transfer_made: bool = False
    transfer_gone: bool = False
    staged_gone: bool = False  # the transfer's folder of the work bucket was emptied
    stop_sent: bool = False  # a Foreground deletion of ours was accepted
    strays_gone: bool = False  # the API server listed no pod that may write
    removals: tuple[Removal, ...] = ()
    remaining: tuple[Remainder, ...] = ()
    stuck: tuple[Remainder, ...] = ()
    recorded: bool = False
    recorded_outbox: tuple[Notice, ...] = ()  # as the record has it
    let_go: bool = False
    refusal: tuple[str, str] | None = None  # (reason, sentence)
    denial: Waiting | None = None
    first_seen_at: datetime | None = None  # by our clock: the API server's may be wrong
    end_seen_at: datetime | None = None  # by our clock: a node's clock may be wrong
    deletion_seen_at: datetime | None = None
    going_seen_at: datetime | None = None
    image_error_since: datetime | None = None
    silent_seen_at: datetime | None = None  # by our clock: since when a node does not answer
    report_found: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything seen of one job. Absent things are None or empty.

    `asked_at` is the beginning of the last Seqera pass that ended, answered or not; a run that
    nobody has asked for yet proves nothing. `secret_stands` tells of the driver's Secret and is
    looked up only while the job is queued. `vanished` is how the last pod was when it went away.
    `going_since` is when the deletion of the whole namespace began. `queue` is what Kueue says,
    where somebody asked.
    """

    job: Job
    pods: tuple[Pod, ...] = ()
    vanished: Pod | None = None
    secret_stands: bool = False
    run: Run | None = None
    asked_at: datetime | None = None
    events: tuple[ClusterEvent, ...] = ()
    queue: QueueWords | None = None
    has_slot: bool = False
    going_since: datetime | None = None
    progress: Progress = Progress()

    @property
    def is_held(self) -> bool:
        """Whether its slot was taken back: released once, suspended now, and not at its end.

        A pod of a queued job tells that it was released before anybody noted that.
        """
        job = self.job
        stays = job.deleting_since is None and self.going_since is None and job.ended is None
        if not (job.suspended and stays) or job.state.is_terminal:
            return False
        known = [*self.pods, *([self.vanished] if self.vanished else [])]
        is_new = any(pod.uid not in job.attempt.former for pod in known)
        return job.state is not State.REQUESTED or is_new

    @property
    def pod(self) -> Pod | None:
        """The pod that tells of the run: the newest one, else what is known of one that went.

        None that was killed because the job's slot was taken back.
        """
        if self.is_held:
            return None
        former = self.job.attempt.former
        pods = tuple(pod for pod in self.pods if pod.uid not in former)
        if pods:
            since = self.job.accepted_at
            return max(pods, key=lambda pod: (pod.created_at or since, not pod.deleting))
        known = self.vanished or self.job.witness
        return None if known is not None and known.uid in former else known

    @property
    def lingering(self) -> Pod | None:
        """The killed pod of a former attempt that still lives, so that none of this one can come.

        Source: kubernetes pkg/controller/job, `podReplacementPolicy: Failed`.
        """
        if self.job.suspended or self.pod is not None:
            return None
        return next((pod for pod in self.pods if pod.is_live), None)

    @property
    def replaced(self) -> tuple[str, ...]:
        """The uids of pods of this attempt after which the cluster made another one."""
        newest, former = self.pod, self.job.attempt.former
        known = [*self.pods, *(pod for pod in (self.vanished, self.job.witness) if pod)]
        uids = dict.fromkeys(pod.uid for pod in known if pod.uid not in former)
        return () if newest is None else tuple(uid for uid in uids if uid != newest.uid)

    @property
    def accepting_since(self) -> datetime:
        """Since when an accept may be under way, by the later of two clocks: none is cut short."""
        return max(self.job.accepted_at, self.progress.first_seen_at or self.job.accepted_at)

    @property
    def deleting_since(self) -> datetime | None:
        """When the Job's deletion began, by the earlier of two clocks."""
        if self.job.deleting_since is None:
            return None
        return _earliest(self.job.deleting_since, self.progress.deletion_seen_at)

    @property
    def end_known_at(self) -> datetime | None:
        """When this replica first saw that the driver or the Job had ended, by our clock."""
        return None if self.ended_at is None else self.progress.end_seen_at or self.ended_at

    @property
    def deletion_known_at(self) -> datetime | None:
        """When this replica first saw the Job's deletion, by our clock."""
        if self.job.deleting_since is None:
            return None
        return self.progress.deletion_seen_at or self.job.deleting_since

    @property
    def going_known_at(self) -> datetime | None:
        """When this replica first saw, for this job, that the namespace goes, by our clock."""
        return None if self.going_since is None else self.progress.going_seen_at or self.going_since

    @property
    def ended_at(self) -> datetime | None:
        """When the main container, or the whole Job, ended, by the earlier of two clocks."""
        pod = self.pod
        end = pod.main_end if pod is not None else None
        if end is None and self.job.ended is None:
            return None
        moment = end.finished_at if end is not None else self.job.ended_at
        return _earliest(moment, self.progress.end_seen_at)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
