"""PURE: what a Job object says, read into our values.

Tolerant: an annotation somebody broke counts as absent and is named in `broken`, and what can be
derived from the rest of the object is derived, so one odd object stops nothing.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter

from pyvatti import foreign, labels
from pyvatti.jobs.annotations import (
    ATTEMPT,
    OUTBOX,
    TRANSITIONS,
    VERDICT,
    WITNESS,
    Unreadable,
    read_annotation,
)
from pyvatti.jobs.bounds import read_time, read_word
from pyvatti.jobs.names import names_for
from pyvatti.jobs.patches import EVENT_OF, name_marks
from pyvatti.models import Attempt, Installation, Job, Manifest, Names, Notice, State, Verdict

_STATE_OF = {event: state for state, event in EVENT_OF.items()}
_ORDER = tuple(State)
_T = TypeVar("_T")
JOB_NAME = re.compile(r"intp[0-9]{1,11}")
REQUEST_HASH = re.compile(r"[0-9a-f]{64}")


def read_job(
    raw: Manifest, known: Job | None = None, clean: Callable[[str], str] = foreign.clean_known
) -> Job:
    """Read a batch/v1 Job: needs `{"metadata": {"name", "namespace", "uid", "resourceVersion"}}`.

    `known` is what was read of it before, with the very same annotations: most of a Job's versions
    differ in their status alone, and parsing annotations is most of the work. `clean` takes out of
    the annotations' texts what another version or somebody else should not have written there.

    The state is that of a terminal verdict or event, else the latest that a transition or an event
    tells of. The label, which anybody may edit, only helps where neither is readable, and never
    ends a job.
    """
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    said = _Annotations(annotations, clean) if known is None else known
    verdict, transitions, outbox = said.verdict, said.transitions, said.outbox
    ended = _terminal_condition(status)
    attempt = said.attempt
    names = names_for(metadata["name"], metadata["namespace"], metadata["uid"], attempt.number)
    state = _read_state(metadata, verdict, transitions, outbox)
    # the mark of a withdrawal is written only to a Job that was not accepted: here it is forged
    is_accepted = state is not State.REQUESTED or State.REQUESTED in transitions
    withdrawal = annotations.get(labels.WITHDRAWN)
    return Job(
        names=names,
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        state=state,
        accepted_at=read_time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        request_hash=annotations.get(labels.REQUEST_HASH, ""),
        suspended=bool(spec.get("suspend")),
        started=bool(status.get("startTime")),
        deleting_since=read_time(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        ended=ended.get("type"),
        ended_reason=read_word(ended.get("reason")),
        ended_at=read_time(ended.get("lastTransitionTime")),
        transitions=transitions,
        outbox=outbox,
        verdict=verdict,
        witness=said.witness,
        attempt=attempt,
        broken=tuple(said.broken),
        queue_name=(metadata.get("labels") or {}).get(labels.KUEUE_QUEUE, ""),
        nonce=annotations.get(labels.ACCEPT, ""),
        withdrawn=withdrawal is not None and not is_accepted,
        withdrawal_decided=withdrawal == labels.DECIDED and not is_accepted,
        label=(metadata.get("labels") or {}).get(labels.STATE, ""),
        edited=_edited(metadata, names, state, is_accepted=is_accepted),
    )


class _Annotations:
    """What the annotations of a Job say; those that say nothing of ours are named in `broken`."""

    def __init__(self, annotations: Mapping[str, str], clean: Callable[[str], str]) -> None:
        self._annotations, self._clean = annotations, clean
        self.broken: list[str] = []
        self.verdict = self._read(labels.VERDICT, VERDICT)
        self.transitions = self._read(labels.TRANSITIONS, TRANSITIONS) or {}
        self.outbox = self._read(labels.OUTBOX, OUTBOX) or ()
        self.witness = self._read(labels.WITNESS, WITNESS)
        self.attempt = self._read(labels.ATTEMPT, ATTEMPT) or Attempt()

    def _read(self, key: str, adapter: TypeAdapter[_T]) -> _T | None:
        try:
            return read_annotation(self._annotations, key, adapter, self._clean)
        except Unreadable:
            self.broken.append(key.rpartition("/")[2])
            return None


def why_not_ours(raw: Manifest, installation: Installation) -> str:
    """Say why a Job that our selector finds is not this installation's; empty where it is.

    A copy, a Job restored elsewhere and a forged one say another Namespace or another id. One that
    was accepted stays ours without its request's hash, which anybody may edit away.
    """
    metadata = raw["metadata"]
    marks = metadata.get("labels") or {}
    if not labels.is_of(raw, installation):
        found = marks.get(labels.NAMESPACE_UID)
        return (
            f"label namespace-uid is {found}, not this Namespace's"
            if found
            else "no label namespace-uid"
        )
    if not JOB_NAME.fullmatch(metadata["name"]):
        return "its name is no job id"
    if marks.get(labels.JOB_ID) != metadata["name"]:
        return "label job-id does not agree with its name"
    request_hash = (metadata.get("annotations") or {}).get(labels.REQUEST_HASH, "")
    if not REQUEST_HASH.fullmatch(request_hash) and not read_job(raw).is_marked:
        return "annotation request-hash is missing or no hash"
    return ""


def _edited(
    metadata: Mapping[str, Any], names: Names, state: State, *, is_accepted: bool
) -> tuple[str, ...]:
    """Name the annotations that say otherwise than what is derived; from Created on all stand."""
    annotations = metadata.get("annotations") or {}
    absent_is_fine = state is State.REQUESTED
    odd = [
        key
        for key, value in name_marks(names).items()
        if annotations.get(key, value if absent_is_fine else None) != value
    ]
    if is_accepted and labels.WITHDRAWN in annotations:
        odd.append(labels.WITHDRAWN)
    return tuple(key.removeprefix(f"{labels.PREFIX}/") for key in odd)


def _read_state(
    metadata: Mapping[str, Any],
    verdict: Verdict | None,
    transitions: Mapping[State, datetime],
    outbox: tuple[Notice, ...],
) -> State:
    if verdict is not None and verdict.state.is_terminal:
        return verdict.state
    told = {_STATE_OF[notice.event] for notice in outbox}
    named = told | {state for state in transitions if not state.is_terminal}
    label = (metadata.get("labels") or {}).get(labels.STATE)
    if not named and label in (State.CREATED, State.DEPLOYED):
        return State(label)
    return max(named, key=_ORDER.index, default=State.REQUESTED)


def _terminal_condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find Complete or Failed with status "True"; other conditions may stand before it."""
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            return dict(condition)
    return {}
