"""PURE: the steps the lifecycle can take, as values. Each is idempotent."""

from dataclasses import dataclass
from typing import TypeAlias

from pyvatti.models import Pod, Remainder, Verdict


@dataclass(frozen=True, slots=True)
class FindJob:
    """Read a Job that left our sight: it is gone, or its labels were edited and are put back."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Remove a Job whose accept was never completed: nobody was promised anything."""


@dataclass(frozen=True, slots=True)
class MarkQueued:
    """Note on the Job that its accept was complete."""


@dataclass(frozen=True, slots=True)
class MakeBucket:
    """Create a bucket, in its turn of the limiter."""

    name: str


@dataclass(frozen=True, slots=True)
class MakeTransferSecret:
    """Create the Secret with the credentials of the transfer."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Hand the Job to Kueue."""


@dataclass(frozen=True, slots=True)
class Release:
    """Enter Created and let the Job controller start the pod."""


@dataclass(frozen=True, slots=True)
class NoteCreated:
    """Enter Created for a Job that Kueue or an operator has released."""


@dataclass(frozen=True, slots=True)
class NoteEviction:
    """Begin another attempt: the slot was taken back, which killed these pods (uids)."""

    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrepareAttempt:
    """Give the attempt of this number credentials for its transfer and a run name of its own."""

    number: int


@dataclass(frozen=True, slots=True)
class NoteResumed:
    """Note that the slot was given again."""


@dataclass(frozen=True, slots=True)
class AskSeqera:
    """Ask Seqera now instead of at the next interval."""


@dataclass(frozen=True, slots=True)
class LookForReport:
    """Look whether the results bucket holds a report."""


@dataclass(frozen=True, slots=True)
class KeepWitness:
    """Copy how the pod ended to the Job."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class DeleteTransferSecret:
    """Delete the credentials of the transfer."""


@dataclass(frozen=True, slots=True)
class RemoveStagedFiles:
    """Delete what the transfer left in its folder of the work bucket: credentials, genomes."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Enter the state of a verdict and put its event into the outbox, in one write."""

    verdict: Verdict
    witness: Pod | None = None


@dataclass(frozen=True, slots=True)
class StopJob:
    """Delete the Job in the foreground: its pods get TERM, its Secrets go at once."""


@dataclass(frozen=True, slots=True)
class RemoveStrays:
    """Delete pods and Secrets of the job that lost their owner, until no pod may write.

    `lost` are uids of pods whose end nobody waits for: their node does not answer.
    """

    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RemoveBucket:
    """Empty and delete a bucket of this job, in its turn of the limiter, and look again."""

    name: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Read whether resources of the cluster (`secret/...`, `pods/...`) are gone."""

    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Write what happened into the record; `unseen` is what nobody could see the end of."""

    unseen: tuple[Remainder, ...] = ()


@dataclass(frozen=True, slots=True)
class LetGo:
    """Remove our finalizer: nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Repair:
    """Put back what somebody edited away: our finalizer, the state label."""


Action: TypeAlias = (
    FindJob
    | Withdraw
    | MarkQueued
    | MakeBucket
    | MakeTransferSecret
    | Enqueue
    | Release
    | NoteCreated
    | NoteEviction
    | PrepareAttempt
    | NoteResumed
    | AskSeqera
    | LookForReport
    | KeepWitness
    | DeleteTransferSecret
    | RemoveStagedFiles
    | Enter
    | StopJob
    | RemoveStrays
    | RemoveBucket
    | LookAgain
    | WriteRecord
    | LetGo
    | Repair
)
