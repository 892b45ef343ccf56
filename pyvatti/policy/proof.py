"""PURE: what a deletion report needs to be complete, and what is missing of it.

Says nothing about whose a resource is, and removes nothing.
"""

from collections.abc import Iterable

from pyvatti.models import IdNames, Job, Names, Record, Remainder, Removal, State
from pyvatti.policy import actions as act

REFUSALS = {
    ("bucket", "MakeBucketRefused"): "bucket {}: ",
    ("secret", "MakeTransferSecretRefused"): "Secret {} belongs to somebody else",
}
"""How the errors begin that say that a name is somebody else's, by kind and verdict."""


def cluster_resources(names: IdNames) -> tuple[str, ...]:
    """Name what a job has in the cluster beside the Job itself."""
    return (
        f"secret/{names.base}",
        f"secret/{names.transfer_secret}",
        f"pods/{names.base}",
    )


def folder_resource(names: Names) -> str:
    """Name the folder in which the transfer works: it goes before its bucket."""
    return f"bucket/{names.work_bucket}/{names.transfer_folder}"


def doomed_buckets(names: Names, state: State) -> tuple[str, ...]:
    """Name what must not survive: the genomes always, results unless the job succeeded."""
    if state is State.SUCCEEDED:
        return (names.work_bucket,)
    return names.work_bucket, names.results_bucket


def resources_of(names: Names, state: State) -> tuple[str, ...]:
    """Name everything a job may have made and that must be gone after its end."""
    buckets = tuple(f"bucket/{name}" for name in doomed_buckets(names, state))
    return (*cluster_resources(names), folder_resource(names), *buckets)


def unproven(
    wanted: Iterable[str], removals: Iterable[Removal], remaining: Iterable[Remainder]
) -> tuple[str, ...]:
    """Give what of `wanted` may still exist: no read has shown its absence.

    A name that was taken before this job could use it holds nothing of the job.
    """
    absent = {item.resource for item in removals if item.proven_absent_at is not None}
    never_made = {item.resource for item in remaining if not item.made}
    return tuple(
        name
        for name in wanted
        if name not in absent | never_made
        and not any(name.startswith(f"{other}/") for other in never_made)
    )


def unproven_of(record: Record, names: Names) -> tuple[str, ...]:
    """Give what a finished job made and nobody has seen to be gone.

    A record of version 0 may speak of buckets by older names: each it lists is wanted.
    """
    if record.version == 0:
        listed = (item.resource for item in record.removals)
        wanted: Iterable[str] = dict.fromkeys((*cluster_resources(names), *listed))
    else:
        wanted = resources_of(names, record.state)
    return unproven(wanted, record.removals, record.remaining)


def is_complete(record: Record, names: Names) -> bool:
    """Tell whether everything the job made was seen to be gone."""
    return not unproven_of(record, names) and not holds_data(record.remaining)


def holds_data(remaining: Iterable[Remainder]) -> bool:
    """Tell whether any of what remains was made by the job."""
    return any(item.made for item in remaining)


def was_never_made(job: Job, resource: str) -> bool:
    """Tell whether the job has failed because this very name was somebody else's when it came.

    That our create was refused is the one proof of it: all else counts as made by the job.
    """
    verdict, (kind, _, name) = job.verdict, resource.partition("/")
    if verdict is None or (kind, verdict.reason) not in REFUSALS:
        return False
    return verdict.message.startswith(refused(REFUSALS[kind, verdict.reason].format(name)))


def refused(sentence: str) -> str:
    """Say that a launch failed at a step that can never succeed."""
    return f"launch failed: {sentence}"


def merged(removals: Iterable[Removal], *news: Removal) -> tuple[Removal, ...]:
    """Give one entry a resource: what is known of its deletion, and of its absence."""
    known = {item.resource: item for item in removals}
    for item in news:
        before = known.get(item.resource, item)
        known[item.resource] = Removal(
            resource=item.resource,
            removed_at=item.removed_at or before.removed_at,
            objects=item.objects if before.objects is None else before.objects,
            bytes=item.bytes if before.bytes is None else before.bytes,
            proven_absent_at=item.proven_absent_at or before.proven_absent_at,
        )
    return tuple(known.values())


def touched_by(step: act.Action, names: Names) -> str:
    """Name the resource that a step of the clean-up works on."""
    match step:
        case act.RemoveBucket(name=name):
            return f"bucket/{name}"
        case act.WriteRecord():
            return f"configmap/{names.record}"
        case act.LookAgain(resources=resources):
            return ", ".join(resources)
        case act.RemoveStrays():
            return ", ".join(cluster_resources(names))
        case _:
            return f"job/{names.base}"


def with_folder(removal: Removal, names: Names) -> tuple[Removal, ...]:
    """Give the removal of a bucket, and for the work bucket that of its folder: it went along."""
    if removal.resource != f"bucket/{names.work_bucket}":
        return (removal,)
    folder = Removal(resource=folder_resource(names), proven_absent_at=removal.proven_absent_at)
    return removal, folder
