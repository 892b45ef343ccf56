"""PURE: what Job and Pod objects say, read into our values, and our values written back as patches.

No decisions and no calls. Reading is tolerant: an annotation an operator broke counts as absent,
and what can be derived from the rest of the object is derived, so one odd object stops nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pyvatti import labels
from pyvatti.models import (
    ContainerEnd,
    Delivery,
    Event,
    Job,
    Manifest,
    Names,
    Notice,
    Pod,
    State,
    Verdict,
)

_T = TypeVar("_T")
_TRANSITIONS: TypeAdapter[dict[State, datetime]] = TypeAdapter(dict[State, datetime])
_OUTBOX: TypeAdapter[tuple[Notice, ...]] = TypeAdapter(tuple[Notice, ...])
_VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)
_POD: TypeAdapter[Pod] = TypeAdapter(Pod)

_EVENT_OF = {
    State.DEPLOYED: Event.DEPLOYED,
    State.SUCCEEDED: Event.SUCCEEDED,
    State.FAILED: Event.FAILED,
}
_STATE_OF = {event: state for state, event in _EVENT_OF.items()}
_ORDER = tuple(State)
_E_MAIL = re.compile(r"[^\s/\"'=:]+@[^\s/\"']+")
MESSAGE_LIMIT = 1000  # characters of a container's last words


def run_name(namespace: str, base: str, attempt: int = 1) -> str:
    """Name a run in Nextflow and Seqera: `{namespace}-{base}`, from the second attempt on `-a2`."""
    return f"{namespace}-{base}" + (f"-a{attempt}" if attempt > 1 else "")


def names_for(job_id: str, namespace: str) -> Names:
    """Name everything a job makes; `job_id` as on the wire (`INTP00000000513`)."""
    base = job_id.lower()
    return Names(
        job_id=job_id.upper(),
        base=base,
        run_name=run_name(namespace, base),
        work_bucket=f"{namespace}-{base}-work",
        results_bucket=f"{namespace}-{base}-results",
    )


def read_time(text: str | None) -> datetime | None:
    """Read a Kubernetes timestamp (RFC 3339); None where it is absent or no time."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def _annotation(annotations: Mapping[str, str], key: str, adapter: TypeAdapter[_T]) -> _T | None:
    try:
        return adapter.validate_json(annotations[key])
    except (KeyError, ValidationError):
        return None


def read_job(raw: Manifest) -> Job:
    """Read a batch/v1 Job: needs `{"metadata": {"name", "namespace", "uid", "resourceVersion"}}`.

    The state is that of a terminal verdict or event, else the latest that a transition or an event
    tells of. The label, which anybody may edit, only helps where neither is readable, and never
    ends a job.
    """
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    verdict = _annotation(annotations, labels.VERDICT, _VERDICT)
    transitions = _annotation(annotations, labels.TRANSITIONS, _TRANSITIONS) or {}
    outbox = _annotation(annotations, labels.OUTBOX, _OUTBOX) or ()
    ended = _terminal_condition(status)
    return Job(
        names=_read_names(metadata, annotations),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        state=_read_state(metadata, verdict, transitions, outbox),
        accepted_at=read_time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        request_hash=annotations.get(labels.REQUEST_HASH, ""),
        suspended=bool(spec.get("suspend")),
        started=bool(status.get("startTime")),
        deleting_since=read_time(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        ended=ended.get("type"),
        ended_reason=ended.get("reason") or "",
        ended_message=ended.get("message") or "",
        ended_at=read_time(ended.get("lastTransitionTime")),
        transitions=transitions,
        outbox=outbox,
        verdict=verdict,
        witness=_annotation(annotations, labels.WITNESS, _POD),
        queue_name=(metadata.get("labels") or {}).get(labels.KUEUE_QUEUE, ""),
        withdrawn=labels.WITHDRAWN in annotations,
        label=(metadata.get("labels") or {}).get(labels.STATE, ""),
    )


def _read_names(metadata: Mapping[str, Any], annotations: Mapping[str, str]) -> Names:
    names = names_for(metadata["name"], metadata["namespace"])
    return replace(
        names,
        run_name=annotations.get(labels.RUN_NAME) or names.run_name,
        work_bucket=annotations.get(labels.WORK_BUCKET) or names.work_bucket,
        results_bucket=annotations.get(labels.RESULTS_BUCKET) or names.results_bucket,
    )


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


def read_pod(raw: Manifest) -> Pod:
    """Read a core/v1 Pod of a driver Job; a container is found by its name, never by position."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    init = _container(status.get("initContainerStatuses"), labels.INIT_CONTAINER)
    main = _container(status.get("containerStatuses"), labels.MAIN_CONTAINER)
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=(metadata.get("labels") or {}).get(labels.CONTROLLER_UID, ""),
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        created_at=read_time(metadata.get("creationTimestamp")),
        init_end=_end(init),
        main_end=_end(main),
        init_running="running" in _state(init),
        main_running="running" in _state(main),
        main_started_at=_started_at(main),
        waiting=_waiting(init) or _waiting(main),
        unschedulable=_unschedulable(conditions.get("PodScheduled")),
        disruption=_true_reason(conditions.get("DisruptionTarget")),
    )


def _container(statuses: list[Manifest] | None, name: str) -> Manifest:
    return next((item for item in statuses or () if item.get("name") == name), {"name": name})


def _state(container: Manifest) -> Manifest:
    return container.get("state") or {}


def _end(container: Manifest) -> ContainerEnd | None:
    ended = _state(container).get("terminated")
    if ended is None:
        return None
    return ContainerEnd(
        name=container["name"],
        exit_code=int(ended.get("exitCode") or 0),
        reason=ended.get("reason") or "",
        message=_scrub(ended.get("message") or ""),
        finished_at=read_time(ended.get("finishedAt")),
    )


def _scrub(text: str) -> str:
    """Take e-mail addresses, as in paths of guest collections, out of a log's last lines."""
    return _E_MAIL.sub("(redacted)", text[-MESSAGE_LIMIT:])


def _started_at(container: Manifest) -> datetime | None:
    state = _state(container)
    running = state.get("running") or state.get("terminated") or {}
    return read_time(running.get("startedAt"))


def _waiting(container: Manifest) -> tuple[str, str, str] | None:
    waiting = _state(container).get("waiting") or {}
    reason = waiting.get("reason") or ""
    if reason in ("", "PodInitializing", "ContainerCreating"):
        return None
    return container["name"], reason, waiting.get("message") or ""


def _unschedulable(condition: Manifest | None) -> str:
    if condition and condition.get("status") == "False":
        return condition.get("message") or condition.get("reason") or "unschedulable"
    return ""


def _true_reason(condition: Manifest | None) -> str:
    return (
        (condition.get("reason") or "") if condition and condition.get("status") == "True" else ""
    )


def _patch(job: Job, annotations: dict[str, str], **metadata: Any) -> Manifest:
    """Build a merge patch that only applies to the version of the Job that was read."""
    return {
        "metadata": {
            "resourceVersion": job.resource_version,
            "uid": job.uid,
            "annotations": annotations,
            **metadata,
        }
    }


def dump_outbox(outbox: tuple[Notice, ...]) -> str:
    """Write an outbox as JSON, as the Job's annotation and the record hold it."""
    return _OUTBOX.dump_json(outbox, exclude_defaults=True).decode()


def dump_verdict(verdict: Verdict) -> str:
    """Write a verdict as JSON, as the Job's annotation and the record hold it."""
    return _VERDICT.dump_json(verdict, exclude_defaults=True).decode()


def dump_transitions(transitions: Mapping[State, datetime]) -> str:
    """Write the times of all states as JSON, as the Job's annotation and the record hold it."""
    return _TRANSITIONS.dump_json(dict(transitions)).decode()


def add_notice(job: Job, verdict: Verdict, now: datetime) -> tuple[Notice, ...]:
    """Give the outbox with the event of a new state; a terminal event drops a pending `deployed`.

    An outbox that holds a terminal event never gets another one.
    """
    event = _EVENT_OF.get(verdict.state)
    if event is None or any(notice.event is not Event.DEPLOYED for notice in job.outbox):
        return job.outbox
    kept = job.outbox
    if verdict.state.is_terminal:
        kept = tuple(
            replace(notice, delivery=Delivery.DROPPED, settled_at=now)
            if notice.delivery is Delivery.PENDING
            else notice
            for notice in kept
        )
    notice = Notice(
        sequence=len(kept) + 1,
        event=event,
        at=now,
        trace_name=verdict.trace_name,
        trace_exit=verdict.trace_exit,
    )
    return (*kept, notice)


def transition_patch(job: Job, verdict: Verdict, now: datetime, witness: Pod | None) -> Manifest:
    """Enter a state: label, time, verdict, witness and the event for the backend in one write."""
    annotations = {
        labels.TRANSITIONS: dump_transitions(_entered(job, verdict.state, now)),
        labels.VERDICT: dump_verdict(verdict),
        labels.OUTBOX: dump_outbox(add_notice(job, verdict, now)),
    }
    if witness is not None:
        annotations[labels.WITNESS] = _POD.dump_json(witness, exclude_defaults=True).decode()
    return _patch(job, annotations, labels={labels.STATE: verdict.state.value})


def release_patch(job: Job, now: datetime) -> Manifest:
    """Enter Created and let the Job controller start the pod, in one write."""
    return {**created_patch(job, now), "spec": {"suspend": False}}


def created_patch(job: Job, now: datetime) -> Manifest:
    """Enter Created for a Job that somebody else (Kueue) has released."""
    transitions = {labels.TRANSITIONS: dump_transitions(_entered(job, State.CREATED, now))}
    return _patch(job, transitions, labels={labels.STATE: State.CREATED.value})


def queued_patch(job: Job) -> Manifest:
    """Note that the accept was seen complete, for a job that has to wait for its slot."""
    return _patch(job, {labels.TRANSITIONS: dump_transitions({State.REQUESTED: job.accepted_at})})


def queue_patch(job: Job, queue: str) -> Manifest:
    """Hand a prepared Job to Kueue, which owns `suspend` from then on."""
    return _patch(job, {}, labels={labels.KUEUE_QUEUE: queue})


def witness_patch(job: Job, witness: Pod) -> Manifest:
    """Keep how the pod ended, for the pod may vanish before the job is judged."""
    return _patch(job, {labels.WITNESS: _POD.dump_json(witness, exclude_defaults=True).decode()})


def outbox_patch(job: Job, *changed: Notice) -> Manifest:
    """Write back how the delivery of some events stands; they are known by their sequence."""
    news = {notice.sequence: notice for notice in changed}
    outbox = tuple(news.get(notice.sequence, notice) for notice in job.outbox)
    return _patch(job, {labels.OUTBOX: dump_outbox(outbox)})


def withdrawal_patch(job: Job) -> Manifest:
    """Mark a Job whose accept failed and let go of it, so that its deletion is silent."""
    patch = _patch(job, {labels.WITHDRAWN: "true"})
    patch["metadata"]["finalizers"] = _others(job)
    return patch


def restore_patch(job: Job) -> Manifest:
    """Take a withdrawal back: another launch of the same request completed the accept."""
    patch = _patch(job, {})
    patch["metadata"]["annotations"] = {labels.WITHDRAWN: None}
    patch["metadata"]["finalizers"] = [*_others(job), labels.FINALIZER]
    return patch


def repair_patch(job: Job) -> Manifest:
    """Put back what an operator edited away: our finalizer, the state label."""
    patch = _patch(job, {}, labels={labels.STATE: job.state.value})
    patch["metadata"]["finalizers"] = [*_others(job), labels.FINALIZER]
    return patch


def identity_patch(job: Job, identity: Mapping[str, str]) -> Manifest:
    """Put back the labels by which we find the Job, which somebody edited away."""
    return _patch(job, {}, labels={**identity, labels.STATE: job.state.value})


def _others(job: Job) -> list[str]:
    return [name for name in job.finalizers if name != labels.FINALIZER]


def finalizer_patch(job: Job) -> Manifest:
    """Let go of the Job: remove our finalizer, keep those of others."""
    return {"metadata": {"resourceVersion": job.resource_version, "finalizers": _others(job)}}


def _entered(job: Job, state: State, now: datetime) -> dict[State, datetime]:
    return {State.REQUESTED: job.accepted_at} | job.transitions | {state: now}
