"""Whose bucket is it: the one question before anything is written into one or deleted from it.

A bucket is ours only if it is in our project's own list under exactly this name, and its labels
say that it is this job's. That a create says 409, or that a GET succeeds, says nothing: both are
answered for buckets of other projects too.
"""

from pyvatti import labels
from pyvatti.errors import NotOurs, Undeletable, trim
from pyvatti.models import Owner
from pyvatti.storage.buckets import Buckets
from pyvatti.storage.reading import Seen


def identity(owner: Owner) -> dict[str, str]:
    """Give the labels of a job's bucket."""
    return labels.of_bucket(owner.installation, owner.job_id, owner.job_uid)


def misfits(seen: Seen, owner: Owner) -> list[str]:
    """Name each label that does not say that this very job made the bucket."""
    return [
        f"label {key} is {seen.labels[key]}, not this job's"
        if key in seen.labels
        else f"label {key} is missing"
        for key, value in identity(owner).items()
        if seen.labels.get(key) != value
    ]


def not_ours(name: str, problems: list[str]) -> NotOurs:
    """Give the error that says what does not fit."""
    return NotOurs(trim(f"bucket {name}: {'; '.join(problems)}"))


async def find(buckets: Buckets, name: str) -> Seen | None:
    """Find a bucket of our project; None: its absence is proven now.

    Proven is what two answers say: the project's complete list does not hold the name, and
    Google's own 404 says that nobody has it. Raises NotOurs if another project has it;
    Unavailable (Denied) where either answer is missing.
    """
    seen = await buckets.look(name)
    if seen is None and await buckets.stands(name):
        raise not_ours(name, ["is in another project"])
    return seen


async def find_ours(
    buckets: Buckets, name: str, owner: Owner, *, is_deleted: bool = False
) -> Seen | None:
    """Find the bucket of this job, to delete from it; None: its absence is proven now.

    `is_deleted` says that this process deleted it itself, with soft delete read as off. If it did
    not, somebody else may have, and all of it be restorable: then Undeletable is raised.

    Location, life cycle and protection are not asked for: whoever changed them since gave no
    reason to keep genomes. Raises as `find`, and NotOurs if a label is not this job's.
    """
    seen = await find(buckets, name)
    if seen is not None and (problems := misfits(seen, owner)):
        raise not_ours(name, problems)
    if seen is None and not is_deleted:
        await _require_nothing_restorable(buckets, name, owner)
    return seen


async def _require_nothing_restorable(buckets: Buckets, name: str, owner: Owner) -> None:
    """Raise Undeletable while a deleted bucket that may be this job's can be restored.

    Another job's is one whose labels name another job: missing ones may have been taken off.
    """
    for found in await buckets.restorable(name):
        if found.labels.get(labels.BUCKET_JOB_UID, owner.job_uid) != owner.job_uid:
            continue
        until = f"{found.until:%Y-%m-%dT%H:%M:%SZ}" if found.until else "a time nobody says"
        raise Undeletable(f"bucket {name}: somebody deleted it; it can be restored until {until}")
