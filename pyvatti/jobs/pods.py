"""PURE: what a driver Pod says, read into our values; a container is found by its name."""

from collections.abc import Callable, Sequence
from datetime import datetime

from pyvatti import foreign, labels
from pyvatti.jobs.bounds import read_time, read_word
from pyvatti.models import ContainerEnd, Manifest, Pod

LAST_WORDS_LIMIT = 2048  # characters of a container's last words: all that a kubelet keeps
MESSAGE_LIMIT = 1000  # of any other text
EXIT_CODES = range(-(2**31), 2**31)
MOST_OTHERS = 16  # added containers of which is told how they ended

_BORING = ("", "PodInitializing", "ContainerCreating")
_GATED = "ReadinessGatesNotReady"  # somebody's gate is not ready: the node answers

Clean = Callable[[str], str]


def clean_unknown(text: str) -> str:
    """Clean a text about a job whose request is not known."""
    return foreign.clean_for(None, text, is_cut=True)


def read_pod(
    raw: Manifest, clean: Clean = clean_unknown, clean_cluster: Clean | None = None
) -> Pod:
    """Read a core/v1 Pod of a driver Job; a container is found by its name, never by position.

    `clean` takes out of a container's last words what must not be told; the end of a log begins
    anywhere. `clean_cluster` (default: the same) does it with what scheduler and kubelet say: they
    know of the request only what the pod's specification holds, which is nothing personal.
    """
    by_cluster = clean_cluster or clean
    metadata, status = raw["metadata"], raw.get("status") or {}
    inits = _statuses(status, "initContainerStatuses")
    mains = _statuses(status, "containerStatuses")
    init = _container(inits, labels.INIT_CONTAINER)
    main = _container(mains, labels.MAIN_CONTAINER)
    others = [item for item in (*inits, *mains) if item is not init and item is not main]
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}
    disruption = _if_true(conditions.get("DisruptionTarget"))
    waits = (_waiting(item, by_cluster) for item in (*inits, *mains))
    ends = (_end(item, clean) for item in others[:MOST_OTHERS])
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=labels.owner_uid(raw),
        phase=read_word(status.get("phase")) or "Pending",
        reason=read_word(status.get("reason")),
        message=_text(status.get("message") or disruption.get("message"), by_cluster),
        deleting=bool(metadata.get("deletionTimestamp")),
        created_at=read_time(metadata.get("creationTimestamp")),
        init_end=_end(init, clean),
        main_end=_end(main, clean),
        init_running="running" in _state(init),
        main_running="running" in _state(main),
        main_started_at=_started_at(main),
        waiting=next((found for found in waits if found is not None), None),
        unschedulable=_unschedulable(conditions.get("PodScheduled"), by_cluster),
        disruption=read_word(disruption.get("reason")),
        others=tuple(end for end in ends if end is not None),
        others_running=tuple(_name(item) for item in others if "running" in _state(item)),
        silent_since=_silent_since(conditions),
        due_at=read_time(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def _silent_since(conditions: dict[str | None, Manifest]) -> datetime | None:
    """Tell since when its node does not answer: another hand than the kubelet's says "not ready".

    The kubelet writes Ready and ContainersReady together. For a node that is silent the node
    controller writes Ready alone (kubernetes pkg/controller/util/node, MarkPodsNotReady).
    """
    ready, containers = conditions.get("Ready") or {}, conditions.get("ContainersReady") or {}
    if (ready.get("status"), containers.get("status")) != ("False", "True"):
        return None
    return None if ready.get("reason") == _GATED else read_time(ready.get("lastTransitionTime"))


def _text(value: object, clean: Clean, most: int = MESSAGE_LIMIT) -> str:
    return clean(str(value))[-most:] if value else ""


def _statuses(status: Manifest, kind: str) -> list[Manifest]:
    return list(status.get(kind) or ())


def _name(container: Manifest) -> str:
    return str(container.get("name"))[:MESSAGE_LIMIT]


def _container(statuses: Sequence[Manifest], name: str) -> Manifest:
    return next((item for item in statuses if item.get("name") == name), {"name": name})


def _state(container: Manifest) -> Manifest:
    return container.get("state") or {}


def _end(container: Manifest, clean: Clean) -> ContainerEnd | None:
    ended = _state(container).get("terminated")
    if ended is None:
        return None
    code = ended.get("exitCode") or 0
    if not isinstance(code, int) or code not in EXIT_CODES:
        raise ValueError("an exit code that is none")
    return ContainerEnd(
        name=_name(container),
        exit_code=code,
        reason=read_word(ended.get("reason")),
        message=_text(ended.get("message"), clean, LAST_WORDS_LIMIT),
        finished_at=read_time(ended.get("finishedAt")),
    )


def _started_at(container: Manifest) -> datetime | None:
    state = _state(container)
    running = state.get("running") or state.get("terminated") or {}
    return read_time(running.get("startedAt"))


def _waiting(container: Manifest, clean: Clean) -> tuple[str, str, str] | None:
    waiting = _state(container).get("waiting") or {}
    reason = read_word(waiting.get("reason"))
    if reason in _BORING:
        return None
    return _name(container), reason, _text(waiting.get("message"), clean)


def _unschedulable(condition: Manifest | None, clean: Clean) -> str:
    if condition and condition.get("status") == "False":
        said = condition.get("message") or condition.get("reason") or "unschedulable"
        return _text(said, clean)
    return ""


def _if_true(condition: Manifest | None) -> Manifest:
    return condition if condition and condition.get("status") == "True" else {}
