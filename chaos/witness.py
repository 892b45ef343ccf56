"""What really happened in a world, written down as it happens: objects, notices, ends of services.

Judges nothing but what is wrong at any moment (a secret outside of Secrets); the rest is `rules`.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from chaos.calls import Answer, Call, Calls
from pyvatti import labels
from pyvatti.sandbox.world import World

TERMINAL = ("Succeeded", "Failed")
SPOILT_SECONDS = 5.0
"""More for a step whose calls are spoilt or slow: four tries with back-off between them."""
_STATUS_PATH = re.compile(r"/pipeline/([^/]+)/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One notice as the backend got it. `epoch` counts the ends of services before it.

    `arrived`: no fault kept the answer from the teller. `is_late`: it was gone by then.
    """

    at: float
    epoch: int
    event: str
    event_id: str
    sequence: int
    body: dict[str, Any]
    status: int
    arrived: bool
    is_late: bool


@dataclass(slots=True)
class Seen:
    """The history of one id. Times are monotonic seconds.

    `noted`: when a notice (by its number) was written down as delivered.
    """

    uids: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    noted: dict[int, float] = field(default_factory=dict)
    pods: list[str] = field(default_factory=list)
    main_started_at: float | None = None
    transfer_gone_at: float | None = None
    transfer_exists: bool = False
    is_marked: bool = False
    written: set[int] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The state label as last seen."""
        return self.states[-1] if self.states else ""


class Witness:
    """Watches one world from its start. `secrets` must appear in no object but a Secret.

    `renew_deadline`: seconds after its last renewal for which a holder of the Lease may act.
    """

    def __init__(
        self, world: World, calls: Calls, secrets: Iterable[str], renew_deadline: float
    ) -> None:
        self.world = world
        self.jobs: dict[str, Seen] = defaultdict(Seen)
        self.violations: list[str] = []
        self.epoch = 0
        self.deposed_at: list[float] = []
        self.patience = 0.0  # seconds more for each step
        self.secrets = [value.encode() for value in secrets]
        self._renew_deadline = renew_deadline
        self._acted: list[tuple[float, float]] = []
        self._renewed_at: float | None = None
        world.kube.store.subscribe(self._changed)
        calls.answered.append(self._answered)

    def service_ended(self) -> None:
        """Note that who told or acted is gone."""
        self.epoch += 1
        self.acting_stopped()

    def acting_stopped(self) -> None:
        """Note that nobody acts until the Lease is written again."""
        self._acted += self._acting(time.monotonic())
        self._renewed_at = None

    def was_deposed(self, since: float, until: float) -> bool:
        """Tell whether a service said in between that it had lost the Lease."""
        return any(since <= at <= until for at in self.deposed_at)

    def acted(self, since: float, until: float) -> float:
        """Give the seconds of an interval during which a replica could act."""
        spans = [*self._acted, *self._acting(until)]
        return sum(max(0.0, min(end, until) - max(start, since)) for start, end in spans)

    def _acting(self, until: float) -> list[tuple[float, float]]:
        """Give the time since the last renewal, if anybody holds the Lease."""
        since = self._renewed_at
        return [] if since is None else [(since, min(until, since + self._renew_deadline))]

    def accuse(self, sentence: str) -> None:
        """Write down a violation, once."""
        if sentence not in self.violations:
            self.violations.append(sentence)

    def _changed(
        self, change: str, resource: Any, new: dict[str, Any], _old: dict[str, Any] | None
    ) -> None:
        name = new["metadata"]["name"]
        if resource.kind == "Secret":
            self._secret_changed(change, name)
            return
        self._look_for_secrets(resource.kind, name, new)
        if resource.kind == "Job":
            self._job_changed(name, new)
            if change == "DELETED":
                self._job_gone(name, new)
        elif resource.kind == "Pod":
            self._pod_changed(new)
        elif resource.kind == "Lease":
            self._lease_changed(change, new)

    def _lease_changed(self, change: str, new: dict[str, Any]) -> None:
        self.acting_stopped()
        if change != "DELETED" and new["spec"].get("holderIdentity"):
            self._renewed_at = time.monotonic()

    def _look_for_secrets(self, kind: str, name: str, new: dict[str, Any]) -> None:
        text = orjson.dumps(new)
        if any(value in text for value in self.secrets):
            self.accuse(f"{kind} {name} holds a credential")

    def _job_changed(self, base: str, new: dict[str, Any]) -> None:
        metadata = new["metadata"]
        found = metadata.get("labels") or {}
        if base not in self.jobs and found.get(labels.MANAGED_BY) != labels.MANAGER:
            return
        seen, marks = self.jobs[base], metadata.get("annotations") or {}
        seen.is_marked = seen.is_marked or labels.TRANSITIONS in marks
        if metadata["uid"] not in seen.uids:
            seen.uids.append(metadata["uid"])
        if found.get(labels.STATE, "") != seen.state:
            seen.states.append(found.get(labels.STATE, ""))
        state = (_parsed(marks.get(labels.VERDICT)) or {}).get("state")
        ends = seen.ends[metadata["uid"]]
        if state in TERMINAL and state not in ends[-1:]:
            ends.append(state)
        for notice in _parsed(marks.get(labels.OUTBOX)) or []:
            seen.written.add(notice["sequence"])
            if notice.get("delivery") == "delivered":  # not: overtaken while it is being told
                seen.noted.setdefault(notice["sequence"], time.monotonic())

    def _job_gone(self, base: str, last: dict[str, Any]) -> None:
        """Check that a Job was let go only when its buckets were gone."""
        buckets, uid = self.world.storage.buckets, last["metadata"]["uid"]
        bucket = buckets.get(f"{self.world.namespace}-{base}-work-{uid[:8]}")
        if bucket is not None and bucket.labels.get(labels.BUCKET_JOB_UID) == uid:
            self.accuse(f"Job {base} was let go while its work bucket was there")

    def _pod_changed(self, new: dict[str, Any]) -> None:
        metadata = new["metadata"]
        base = (metadata.get("labels") or {}).get("batch.kubernetes.io/job-name", "")
        if base not in self.jobs:
            return
        seen = self.jobs[base]
        if metadata["uid"] not in seen.pods:
            seen.pods.append(metadata["uid"])
        for status in (new.get("status") or {}).get("containerStatuses") or ():
            started = {"running", "terminated"} & set(status.get("state") or {})
            if started and seen.main_started_at is None:
                seen.main_started_at = time.monotonic()

    def _secret_changed(self, change: str, name: str) -> None:
        base = name.removesuffix("-transfer")
        if base == name or base not in self.jobs:
            return
        seen = self.jobs[base]
        seen.transfer_exists = change != "DELETED"
        if not seen.transfer_exists:
            seen.transfer_gone_at = time.monotonic()

    def _answered(self, call: Call, answer: Answer) -> None:
        found = _STATUS_PATH.search(call.path)
        if call.neighbour != "backend" or found is None:
            return
        said = _parsed(answer.request) or {}
        seen, sequence = self.jobs[found.group(1).lower()], call.headers["x-hattivatti-sequence"]
        if int(sequence) not in seen.written:
            self.accuse(f"{found.group(1)}: {said.get('event')} was told before it was stored")
        seen.told.append(
            Told(
                at=time.monotonic(),
                epoch=self.epoch,
                event=str(said.get("event")),
                event_id=call.headers.get("x-hattivatti-event-id", ""),
                sequence=int(sequence),
                body=said,
                status=answer.status,
                arrived=answer.arrived,
                is_late=answer.is_late,
            )
        )


def _parsed(text: str | bytes | None) -> Any:
    """Read JSON that an operator may have broken; None if it is none."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
