"""Frozen values two or more rooms speak about: states, verdicts, events, pods, runs, reports.

No I/O, no clock, no wire formats of other systems (those stay at their doors).
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as raw JSON."""


class State(StrEnum):
    """The life of a job, in the predecessor's words. Terminal states never change."""

    REQUESTED = "Requested"
    CREATED = "Created"
    DEPLOYED = "Deployed"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing but clean-up follows."""
        return self in (State.SUCCEEDED, State.FAILED)


class Witness(StrEnum):
    """Who said something about a job."""

    KUBERNETES = "kubernetes"
    SEQERA = "seqera"
    STORAGE = "storage"
    CLOCK = "clock"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one witness said, and when (UTC)."""

    witness: Witness
    said: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judged state of a job with its reason.

    `reason` is CamelCase for machines, `message` a sentence and `next_step` an advice for people.
    `exit_code` is the real exit code, any integer; `trace_name` and `trace_exit` are what the
    backend is told of a failure (`trace_exit` always 0..127).
    """

    state: State
    reason: str
    message: str
    next_step: str = ""
    exit_code: int | None = None
    trace_name: str | None = None
    trace_exit: int | None = None
    evidence: tuple[Evidence, ...] = ()


class Event(StrEnum):
    """What the backend can be told (`event` of its status route)."""

    DEPLOYED = "deployed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Delivery(StrEnum):
    """Where an event of the outbox stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DROPPED = "dropped"  # overtaken by a terminal event
    DEAD = "dead"  # the backend will never take it
    UNDELIVERED = "undelivered"  # given up after NOTIFY_GIVE_UP_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One event of a job's outbox. `sequence` counts from 1 within the job.

    `attempts`, `answer` and `tried_at` are those of the latest try. What is stored of a pending
    event lags behind: only some tries are written down, `next_try_at` never is.
    """

    sequence: int
    event: Event
    at: datetime
    trace_name: str | None = None
    trace_exit: int | None = None
    delivery: Delivery = Delivery.PENDING
    settled_at: datetime | None = None
    answer: str = ""
    attempts: int = 0
    tried_at: datetime | None = None
    next_try_at: datetime | None = None


def lost_events(outbox: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """Give what was never taken and may still be told: after its end no job is `deployed`."""
    is_over = any(notice.event is not Event.DEPLOYED for notice in outbox)
    return tuple(
        notice
        for notice in outbox
        if notice.delivery in (Delivery.DEAD, Delivery.UNDELIVERED)
        and not (is_over and notice.event is Event.DEPLOYED)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnd:
    """How a container ended. `message` is its termination message or last log lines."""

    name: str
    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What matters of a driver pod.

    `init_end` and `main_end` are None while that container has not ended; `waiting` is
    (container, reason, message) of the first container that waits with a reason, whosever it is.
    `disruption` is the reason of a true DisruptionTarget condition. `others` are the ends of
    containers that somebody adds (a mesh, a vault), `others_running` their names while they run.
    `silent_since` is when its node was found not to answer, `due_at` when a deleted pod should
    have ended: where it lives on much later, nobody stops it.
    """

    name: str
    uid: str
    job_uid: str
    phase: str
    reason: str = ""
    message: str = ""
    deleting: bool = False
    created_at: datetime | None = None
    init_end: ContainerEnd | None = None
    main_end: ContainerEnd | None = None
    init_running: bool = False
    main_running: bool = False
    main_started_at: datetime | None = None
    waiting: tuple[str, str, str] | None = None
    unschedulable: str = ""
    disruption: str = ""
    others: tuple[ContainerEnd, ...] = ()
    others_running: tuple[str, ...] = ()
    silent_since: datetime | None = None
    due_at: datetime | None = None
    finalizers: tuple[str, ...] = ()  # they hold the object, not its containers

    @property
    def is_live(self) -> bool:
        """Whether a process of it may still run and write."""
        return self.phase not in ("Succeeded", "Failed")


class RunStatus(StrEnum):
    """Seqera's status of a run; any value we do not know is OTHER."""

    SUBMITTED = "SUBMITTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The newest Seqera row of one run name. `exit_status` is the failing task's exit code."""

    name: str
    status: RunStatus
    submitted_at: datetime | None
    seen_at: datetime
    workflow_id: str | None = None
    exit_status: int | None = None
    error_message: str = ""
    error_report: str = ""
    raw_status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """A Kubernetes Event that speaks about a job or its pod."""

    reason: str
    note: str
    warning: bool
    at: datetime | None
    about: str  # kind of the object: "Job" or "Pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWords:
    """What Kueue says of a job: why it evicted it last, and why it does not admit it now."""

    evicted: str = ""
    pending: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of one resource (`bucket/...`, `secret/...`, `pods/...`), for the record.

    `removed_at` is when its deletion was accepted, None where nothing was there to delete: then it
    was only found absent. `objects` and `bytes` are None where they were not counted here (already
    gone, or not a bucket). `proven_absent_at` is when a read, made after the deletion if there was
    one, did not find it; None while no read has shown that.
    """

    resource: str
    removed_at: datetime | None = None
    objects: int | None = None
    bytes: int | None = None
    proven_absent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remainder:
    """A resource that still stands under a name of this job, and why it was not deleted.

    `made` is False where this job never had anything there: the name was taken before.
    """

    resource: str
    reason: str
    made: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a job waits for: `slot`, `bucket limiter`, `image`, `quota`, ..., and a sentence."""

    on: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Which pyvatti this is. No copy, restore or second cluster shares a Namespace's uid."""

    namespace: str
    namespace_uid: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a bucket is: this very Job of this very installation."""

    installation: Installation
    job_id: str  # lower case
    job_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdNames:
    """The names that follow from a job's id and the namespace alone."""

    job_id: str  # as on the wire: INTP00000000513
    base: str  # lower case, name of Job and Secret
    results_bucket: str  # fixed by the contract with the backend

    @property
    def transfer_secret(self) -> str:
        """Name of the Secret that only the transfer may read."""
        return f"{self.base}-transfer"

    @property
    def record(self) -> str:
        """Name of the ConfigMap that survives the job."""
        return f"{self.base}-record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names(IdNames):
    """The names of everything one Job makes: those below carry a part of its uid.

    So nobody can take them beforehand, and nothing that an earlier job of this id left is in the
    way or taken for this one's.
    """

    uid: str  # of the Job
    run_name: str  # in Nextflow and Seqera
    work_bucket: str

    @property
    def transfer_folder(self) -> str:
        """Folder of the work bucket in which the transfer alone works: Nextflow stages files there.

        Nextflow copies local input files of remote tasks to its work directory; here those are the
        transfer's credentials and the key, and beside them stand second copies of the genomes.
        """
        return "work/transfer"


class Presence(StrEnum):
    """Whether a Job object is there, as far as it is known."""

    SEEN = "seen"
    UNSEEN = "unseen"  # it left our sight before we let go of it: it must be looked for
    GONE = "gone"  # it was looked for and is not there: what it said is in memory alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Which try of a job this is: each time its slot is taken back, another one follows.

    `evicted_at` is when the slot was taken back for the last time, `said` why; `resumed_at` is when
    it was given again, None while the job waits for that. `former` are the uids of pods that the
    taking back killed: how they ended says nothing of the job.
    """

    number: int = 1
    evicted_at: datetime | None = None
    said: str = ""
    resumed_at: datetime | None = None
    former: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether its slot was taken back and not given again, as far as that is written down."""
        return self.evicted_at is not None and self.resumed_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A Job object, read: our annotations and labels as values (see `pyvatti.jobs.read_job`)."""

    names: Names
    uid: str
    resource_version: str
    state: State
    accepted_at: datetime
    request_hash: str
    suspended: bool
    started: bool  # the Job controller has set status.startTime
    deleting_since: datetime | None
    finalizers: tuple[str, ...]
    ended: str | None  # "Complete" or "Failed": type of the true terminal condition
    ended_reason: str = ""
    ended_at: datetime | None = None
    transitions: dict[State, datetime] = field(default_factory=dict)
    outbox: tuple[Notice, ...] = ()
    verdict: Verdict | None = None
    witness: Pod | None = None  # how its pod ended, copied before the pod vanishes
    attempt: Attempt = Attempt()
    queue_name: str = ""
    nonce: str = ""  # of the request that made it
    withdrawn: bool = False  # its accept failed, or it seemed so: nothing else happens to it
    withdrawal_decided: bool = False  # nobody was promised anything, and nobody will be
    broken: tuple[str, ...] = ()  # annotations of ours that somebody made unreadable
    label: str = ""  # the state label as it stands, for anybody may edit it
    edited: tuple[str, ...] = ()  # labels and annotations that do not say what is derived
    presence: Presence = Presence.SEEN

    @property
    def is_marked(self) -> bool:
        """Whether the Job itself says that its accept was complete."""
        return self.state is not State.REQUESTED or State.REQUESTED in self.transitions

    @property
    def pending(self) -> tuple[Notice, ...]:
        """Events the backend has not been told yet, in order."""
        return tuple(notice for notice in self.outbox if notice.delivery is Delivery.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept of a finished job: no request, no personal data.

    `version` is that of the form; 0 has no `version`, `namespace_uid` and `remaining`.
    """

    job_id: str
    uid: str
    state: State
    accepted_at: datetime
    finished_at: datetime
    removed_at: datetime
    run_name: str
    results_bucket: str | None = None
    request_hash: str = ""
    transitions: dict[State, datetime] = field(default_factory=dict)
    verdict: Verdict | None = None
    outbox: tuple[Notice, ...] = ()
    removals: tuple[Removal, ...] = ()
    remaining: tuple[Remainder, ...] = ()
    namespace_uid: str = ""  # of the installation that made it
    version: int = 0
