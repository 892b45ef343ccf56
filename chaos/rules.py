"""The rules that must hold when a job is at rest, each as a sentence about what broke it.

Reads the witness and the world; changes nothing.
"""

import json
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from chaos.strangers import Strangers
from chaos.witness import Seen, Told, Witness
from pyvatti import labels
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS, PODS, SECRETS
from pyvatti.sandbox.storage import SoftDeleted
from pyvatti.sandbox.world import World

CREDENTIAL_SECONDS = 5.0
"""How long an acting service may take to delete the transfer's credentials."""

ANSWERED_LATE = 5.0
"""How long a stand-in on a busy machine may take to answer: the teller may be deposed meanwhile."""

REFUSED = 400
EITHER = frozenset({"succeeded", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a story promises: the id, whether a launch was answered 201, how it may end."""

    job_id: str
    accepted: bool
    ends: frozenset[str] = EITHER

    @property
    def base(self) -> str:
        """Lower-case id."""
        return self.job_id.lower()


@dataclass(slots=True)
class Finding:
    """What was found about one job.

    `repeats`: notices sent again because the service died between the backend's 200 and its own
    note of it, or because the 200 was lost. `unanswered`: it ran though no launch of it was
    answered 201.
    """

    violations: list[str]
    leftovers: list[str]
    repeats: int = 0
    unanswered: bool = False


def is_at_rest(world: World, base: str, *, accepted: bool) -> bool:
    """Tell whether a job has ended and is cleaned up; objects that a stranger made do not count."""
    store, namespace = world.kube.store, world.namespace
    names = [(JOBS, base), (SECRETS, base), (SECRETS, f"{base}-transfer")]
    found = [store.find(kind, namespace, name) for kind, name in names]
    is_there = any(
        labels.MANAGED_BY in (item["metadata"].get("labels") or {}) for item in found if item
    )
    if is_there or _pods(world, base):
        return False
    return not accepted or read_record(world, base) is not None


def unrest(world: World, base: str) -> str:
    """Say how a job stands that does not come to rest."""
    job = world.kube.store.find(JOBS, world.namespace, base) or {"metadata": {}}
    metadata = job["metadata"]
    told = {
        "state": (metadata.get("labels") or {}).get(labels.STATE),
        "verdict": (metadata.get("annotations") or {}).get(labels.VERDICT),
        "finalizers": metadata.get("finalizers"),
        "deleted": metadata.get("deletionTimestamp"),
        "suspended": job.get("spec", {}).get("suspend"),
        "status": job.get("status"),
        "pods": _pods(world, base),
    }
    return f"{base.upper()}: does not come to rest: {told}"


def read_record(world: World, base: str) -> dict[str, Any] | None:
    """Give what the record of a job says, None without one."""
    body = world.kube.store.find(CONFIGMAPS, world.namespace, f"{base}-record")
    if body is None:
        return None
    record: dict[str, Any] = json.loads(body["data"]["record.json"])
    return record


def judge(
    world: World, witness: Witness, strangers: Strangers | None, expected: Expected
) -> Finding:
    """Check every rule for one job that is at rest."""
    seen, base = witness.jobs[expected.base], expected.base
    record = read_record(world, base)
    ran = expected.accepted or record is not None or bool(seen.pods)
    violations, repeats = _judge_told(witness, seen)
    if ran:
        violations += _judge_end(seen, record, expected)
    elif seen.told:
        violations.append(f"told {[told.event for told in seen.told]} though never accepted")
    if len(seen.pods) > 1:
        violations.append(f"run {len(seen.pods)} times")
    violations += [f"{name} is not ours and was touched" for name in _touched(strangers)]
    violations += _judge_credentials(witness, seen)
    succeeded = record is not None and record["state"] == "Succeeded"
    if succeeded and not _has_results(world, base):
        violations.append("succeeded without its results")
    return Finding(
        violations=[f"{expected.job_id}: {sentence}" for sentence in violations],
        leftovers=_leftovers(world, base, succeeded=succeeded),
        repeats=repeats,
        unanswered=ran and not expected.accepted,
    )


def _judge_end(seen: Seen, record: dict[str, Any] | None, expected: Expected) -> list[str]:
    if record is None:
        return ["lost: no record of it"]
    found = []
    final = [told for told in seen.told if told.status == 200 and told.event != "deployed"]
    events = {told.event for told in final}
    if len(events) != 1:
        found.append(f"terminal states told: {sorted(events)}")
    elif not events <= expected.ends:
        found.append(f"ended as {events}, allowed: {sorted(expected.ends)}")
    elif events != {record["state"].lower()}:
        found.append(f"told {events}, recorded {record['state']}")
    changed = [ends for ends in seen.ends.values() if len(ends) > 1]
    found += [f"its terminal state changed: {ends}" for ends in changed]
    pending = [item for item in record["outbox"] if item.get("delivery") in (None, "pending")]
    if pending:
        found.append(f"recorded with notices still pending: {pending}")
    return found


def _judge_told(witness: Witness, seen: Seen) -> tuple[list[str], int]:
    """Check number and order of notices; give also how many were repeated for a good reason."""
    found, repeats = [], 0
    by_id = sorted(seen.told, key=lambda told: (told.event_id, told.at))
    for event_id, group in groupby(by_id, key=lambda told: told.event_id):
        told = list(group)
        if any(item.body != told[0].body for item in told):
            found.append(f"{event_id} was told with different bodies")
        first = next((index for index, item in enumerate(told) if item.status == 200), len(told))
        for again in told[first + 1 :]:
            if _is_excused(witness, seen, told[first], again):
                repeats += 1
            else:
                found.append(
                    f"{event_id} ({again.event}) was told again after its 200 {told} {seen.noted}"
                )
    taken = [told for told in seen.told if told.status == 200]
    order = [told.sequence for told in taken if not told.is_late]  # else nobody can call it back
    if order != sorted(order):
        found.append(f"told out of order: {[told.event for told in taken]}")
    for event in ("deployed", "succeeded", "failed"):
        ids = {told.event_id for told in taken if told.event == event}
        if len(ids) > 1:
            found.append(f"{event} was told under {len(ids)} ids")
    return found, repeats


def _is_excused(witness: Witness, seen: Seen, first: Told, again: Told) -> bool:
    """Tell whether the teller never got the 200, or died or was deposed before noting it.

    What a dead one had sent may also be acted upon after its successor told the same.
    """
    if again.is_late:
        return True
    noted_at = seen.noted.get(first.sequence)
    if noted_at is not None and noted_at <= again.at:
        return False
    deposed = witness.was_deposed(first.at - ANSWERED_LATE, again.at)
    ended = first.epoch < again.epoch or deposed
    return ended or not first.arrived


def _judge_credentials(witness: Witness, seen: Seen) -> list[str]:
    if seen.main_started_at is None or seen.transfer_gone_at is None:
        return []
    late = witness.acted(seen.main_started_at, seen.transfer_gone_at)
    if late <= CREDENTIAL_SECONDS + witness.patience:
        return []
    return [f"the transfer's credentials outlived it by {late:.1f} s of an acting service"]


def _touched(strangers: Strangers | None) -> list[str]:
    return strangers.missing() if strangers is not None else []


def _has_results(world: World, base: str) -> bool:
    bucket = world.storage.buckets.get(f"{world.namespace}-{base}-results")
    return bucket is not None and any(name.endswith("report.html") for name in bucket.objects)


def _pods(world: World, base: str) -> list[str]:
    key = "batch.kubernetes.io/job-name"
    pods = world.kube.store.list(PODS, world.namespace)
    found = [pod["metadata"] for pod in pods]
    return [item["name"] for item in found if (item.get("labels") or {}).get(key) == base]


def judge_report(world: World, seen: Seen, base: str, report: dict[str, Any]) -> list[str]:
    """Check a deletion report against the world: complete means that nothing stands.

    What is kept on purpose (the results of a success) is named in it.
    """
    standing = [f"bucket {name}" for name in _buckets_of(world, seen)]
    standing = [name for name in standing if name.replace(" ", "/") not in report.get("kept", ())]
    for kind, key in ((SECRETS, labels.JOB_UID), (PODS, labels.CONTROLLER_UID)):
        for item in world.kube.store.list(kind, world.namespace):
            metadata = item["metadata"]
            ours = labels.owner_uid(item) in seen.uids
            if ours and (metadata.get("labels") or {}).get(key) in seen.uids:
                standing.append(f"{kind.kind} {metadata['name']}")
    standing += [f"soft-deleted data of {item.bucket}" for item in _recoverable(world, base)]
    if report.get("complete") and standing:
        return [f"the deletion report says complete while there is {', '.join(standing)}"]
    named = " ".join(item["resource"] for item in report.get("remaining", ()))
    unnamed = [name for name in standing if name.split()[-1] not in named]
    if report and not report.get("complete") and unnamed and not report.get("live"):
        return [f"the deletion report does not name {', '.join(unnamed)}"]
    return []


def _buckets_of(world: World, seen: Seen) -> list[str]:
    """Name the buckets that were made for one of an id's Jobs, whatever their labels say now."""
    return [
        name
        for name, bucket in world.storage.buckets.items()
        if bucket.labels.get(labels.BUCKET_JOB_UID) in seen.uids
        or any(name.endswith(f"-work-{uid[:8]}") for uid in seen.uids)
    ]


def _recoverable(world: World, base: str) -> list[SoftDeleted]:
    prefix = f"{world.namespace}-{base}-"
    return [item for item in world.storage.soft_deleted if item.bucket.startswith(prefix)]


def _leftovers(world: World, base: str, *, succeeded: bool) -> list[str]:
    store, namespace = world.kube.store, world.namespace
    found = [f"Pod {name}" for name in _pods(world, base)]
    for kind, name in ((JOBS, base), (SECRETS, base), (SECRETS, f"{base}-transfer")):
        if store.find(kind, namespace, name):
            found.append(f"{kind.kind} {name}")
    results = f"{namespace}-{base}-results"
    buckets = [] if succeeded or results not in world.storage.buckets else [results]
    if work := world.work_bucket(base):
        buckets.append(work)
    found += [f"bucket {name}" for name in buckets]
    return found + [f"soft-deleted data of {item.bucket}" for item in _recoverable(world, base)]
