"""PURE: what a driver Pod says, read into our values; a container is found by its name."""

from collections.abc import Callable
from datetime import datetime

from pyvatti import foreign, labels
from pyvatti.jobs.bounds import read_time, read_word
from pyvatti.models import ContainerEnd, Manifest, Pod

LAST_WORDS_LIMIT = 2048  # characters of a container's last words: all that a kubelet keeps
MESSAGE_LIMIT = 1000  # of any other text
EXIT_CODES = range(-(2**31), 2**31)

Clean = Callable[[str], str]


def clean_unknown(text: str) -> str:
    """Clean a text about a job whose request is not known."""
    return foreign.clean_for(None, text, is_cut=True)


def read_pod(raw: Manifest, clean: Clean = clean_unknown) -> Pod:
    """Read a core/v1 Pod of a driver Job; a container is found by its name, never by position.

    `clean` takes out of the texts what must not be told; the end of a log begins anywhere.
    """
    metadata, status = raw["metadata"], raw.get("status") or {}
    init = _container(status.get("initContainerStatuses"), labels.INIT_CONTAINER)
    main = _container(status.get("containerStatuses"), labels.MAIN_CONTAINER)
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=labels.owner_uid(raw),
        phase=read_word(status.get("phase")) or "Pending",
        reason=read_word(status.get("reason")),
        message=_text(status.get("message"), clean),
        deleting=bool(metadata.get("deletionTimestamp")),
        created_at=read_time(metadata.get("creationTimestamp")),
        init_end=_end(init, clean),
        main_end=_end(main, clean),
        init_running="running" in _state(init),
        main_running="running" in _state(main),
        main_started_at=_started_at(main),
        waiting=_waiting(init, clean) or _waiting(main, clean),
        unschedulable=_unschedulable(conditions.get("PodScheduled"), clean),
        disruption=_true_reason(conditions.get("DisruptionTarget")),
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def _text(value: object, clean: Clean, most: int = MESSAGE_LIMIT) -> str:
    return clean(str(value))[-most:] if value else ""


def _container(statuses: list[Manifest] | None, name: str) -> Manifest:
    return next((item for item in statuses or () if item.get("name") == name), {"name": name})


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
        name=container["name"],
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
    if reason in ("", "PodInitializing", "ContainerCreating"):
        return None
    return container["name"], reason, _text(waiting.get("message"), clean)


def _unschedulable(condition: Manifest | None, clean: Clean) -> str:
    if condition and condition.get("status") == "False":
        said = condition.get("message") or condition.get("reason") or "unschedulable"
        return _text(said, clean)
    return ""


def _true_reason(condition: Manifest | None) -> str:
    return (
        read_word(condition.get("reason"))
        if condition and condition.get("status") == "True"
        else ""
    )
