"""Creates, checks, empties, deletes and lists buckets.

No threads of its own and no foreign exceptions (see calls), no rate (see limiter). Whose a bucket
is, and that it is gone, is decided in one place (see ownership).
"""

import contextlib
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    PyvattiError,
    Rejected,
    Unavailable,
    Undeletable,
    trim,
)
from pyvatti.models import Owner, Removal
from pyvatti.settings import Settings
from pyvatti.storage.buckets import Buckets, is_forbidden
from pyvatti.storage.calls import Calls
from pyvatti.storage.connection import MOST_CONNECTIONS, Connection, Patience
from pyvatti.storage.emptying import Emptier, Tally
from pyvatti.storage.keeping import Keeping, kept_until, require_nothing_kept
from pyvatti.storage.objects import list_objects
from pyvatti.storage.ownership import find, find_ours, identity, misfits, not_ours
from pyvatti.storage.protection import Purpose, deviations, expiry_days
from pyvatti.storage.reading import BucketInfo, Seen

BUCKET_THREADS = 8
# Apart from the bucket threads: a large clean-up does not starve creates. Four delete as fast as
# eight, and leave the event loop more of the interpreter.
OBJECT_THREADS = MOST_CONNECTIONS - BUCKET_THREADS


class Storage:
    """Cloud Storage of one project. Never asks the BucketLimiter: its caller does.

    Every method raises Unavailable (Denied: credentials or permissions) when the world may
    change and Rejected when the very request is refused.
    """

    def __init__(self, settings: Settings, *, patience: Patience | None = None) -> None:
        patience = patience or Patience()
        self._settings = settings
        self._connection = Connection(settings, patience)
        self._calls = Calls(self._connection, BUCKET_THREADS)
        self._buckets = Buckets(self._calls)
        self._emptier = Emptier(Calls(self._connection, OBJECT_THREADS))
        self._keeping = Keeping(self._buckets, self._emptier, patience.settle)
        # Counts of deletions under way: a bucket may take several tries.
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._deleted: set[tuple[str, str]] = set()  # buckets of jobs that this process deleted

    async def close(self) -> None:
        """Close the connections; calls under way end by themselves."""
        self._connection.close()

    async def create_bucket(self, name: str, *, owner: Owner, purpose: Purpose) -> None:
        """Create the bucket with all its protection in one call; ours already: success.

        Raises NotOurs, touching nothing, if a bucket of this name is not in our project's own
        list or not labelled as this job's, or if something is in one that is not protected as we
        make it. An empty one, made under other settings, is deleted: Unavailable, and the next
        call makes it anew. Raises Rejected if the server changed the protection of what this very
        call made; only that is deleted again.
        Not retried here: after a lost answer (Unavailable) the next call finds the bucket.
        """
        days, location = expiry_days(self._settings, purpose), self._settings.gcp_location
        made = await self._buckets.insert(
            name, labels=identity(owner), days=days, location=location
        )
        if made is None:
            seen = await find(self._buckets, name)
        else:
            seen = await self._buckets.look(name)
        if seen is None:
            raise Unavailable(f"bucket {name}: exists and is missing at once")
        strange, otherwise = misfits(seen, owner), deviations(seen, location, days)
        if made is not None and (strange or otherwise):
            await self._withdraw(name, made, strange + otherwise)
        if strange:
            raise not_ours(name, strange + otherwise)
        if otherwise:
            await self._unmake(seen, otherwise)

    async def empty_bucket(self, name: str, *, owner: Owner) -> bool:
        """Empty the bucket of this job and say whether there is one. Raises as delete_bucket.

        To be called before the turn for the deletion is taken: emptying may take minutes, and
        data need not wait for a turn. What it deletes is counted by the deletion that follows.
        """
        seen = await self._find(name, owner)
        if seen is None:
            return False
        await self._empty(seen, owner)
        return True

    async def remove_folder(self, name: str, folder: str, *, owner: Owner) -> Removal:
        """Delete all objects below a folder of this job's bucket; a missing bucket has none.

        Raises as delete_bucket; makes no bucket call that needs a turn of the limiter. The
        absence is what the last listing of the folder shows, or that of the whole bucket; it is
        not proven if the bucket was changed meanwhile, for soft delete may have been among that.
        """
        place = f"{name}/{folder}"
        seen = await self._find(name, owner)
        if seen is not None:
            seen = await self._empty(seen, owner, f"{folder}/")
        after = await self._find(name, owner) if seen is not None else None
        now = datetime.now(UTC)
        is_kept = seen is not None and kept_until(seen, now) is not None
        if seen is not None and after is not None:
            is_kept |= after.metageneration != seen.metageneration
        tally = self._tallies.pop((place, owner.job_uid), Tally())
        return Removal(
            resource=f"bucket/{place}",
            removed_at=now,
            objects=tally.objects,
            bytes=tally.size,
            proven_absent_at=None if is_kept else now,
        )

    async def delete_bucket(self, name: str, *, owner: Owner) -> Removal:
        """Empty and delete the bucket of this job and prove its absence; missing is done.

        It is this job's if it is in our project's list under exactly this name with all five
        labels. Location, life cycle and protection may have been changed since it was made: that
        is no reason to keep genomes. Soft delete is read as off before anything is deleted.

        Deletes all objects, versions and, with the bucket, unfinished uploads; takes as long as
        that takes and makes at most one bucket delete call. `objects` and `bytes` count what this
        process deleted, over all its tries; None if it never saw the bucket. `proven_absent_at`
        is the time of a read after the deletion (see ownership.find).
        Raises NotOurs, touching nothing, if the bucket is somebody else's; Undeletable if
        something is held fast, or somebody else deleted it and it can be restored; Unavailable if
        something was written meanwhile (then come again with a new turn of the limiter).
        """
        seen = await self._find(name, owner)
        if seen is not None:
            seen = await self._empty(seen, owner)
        removed_at = datetime.now(UTC)
        if seen is not None:
            require_nothing_kept(seen)
            if await self._delete_empty(seen):
                self._deleted.add((name, owner.job_uid))
            removed_at = datetime.now(UTC)
            if await self._find(name, owner) is not None:
                raise Unavailable(f"bucket {name}: still there after its deletion")
        proven_absent_at = datetime.now(UTC)
        tally = self._tallies.pop((name, owner.job_uid), None)
        self._forget(lambda place, uid: uid == owner.job_uid and place.startswith(f"{name}/"))
        return Removal(
            resource=f"bucket/{name}",
            removed_at=removed_at,
            objects=tally.objects if tally else None,
            bytes=tally.size if tally else None,
            proven_absent_at=proven_absent_at,
        )

    def keep_counts(self, job_uids: Collection[str]) -> None:
        """Forget the counts of all other jobs: another replica brought them to their end."""
        self._forget(lambda _place, uid: uid not in job_uids)
        self._deleted = {key for key in self._deleted if key[1] in job_uids}

    def _forget(self, is_over: Callable[[str, str], bool]) -> None:
        self._tallies = {key: tally for key, tally in self._tallies.items() if not is_over(*key)}

    async def has_object(self, bucket: str, prefix: str, suffix: str, *, owner: Owner) -> bool:
        """Whether the name of an object in the bucket of this job begins and ends so.

        A bucket that is missing or not this job's has none: what strangers hold is no result.
        """
        seen = await self._buckets.look(bucket)
        if seen is None or misfits(seen, owner):
            return False
        listed = list_objects(self._calls, bucket, _read_name, items="name", prefix=prefix)
        async with contextlib.aclosing(listed) as found:
            async for names in found:
                if any(name.endswith(suffix) for name in names or ()):
                    return True
        return False

    async def list_buckets(self, prefix: str) -> list[BucketInfo]:
        """List the project's buckets by name; raises Unavailable if the list is not complete."""
        return await self._buckets.listing(prefix)

    async def _empty(self, seen: Seen, owner: Owner, prefix: str = "") -> Seen | None:
        """Empty our bucket, or a folder of it; None if it went meanwhile, which is proven then."""
        name = seen.name
        ready = await self._keeping.stop(seen, owner)
        tally = self._tallies.setdefault((f"{name}/{prefix}".rstrip("/"), owner.job_uid), Tally())
        if ready is not None and await self._emptier.empty(name, tally, prefix):
            return ready
        if await self._find(name, owner) is not None:
            raise Unavailable(f"bucket {name}: exists and is missing at once")
        return None

    async def _find(self, name: str, owner: Owner) -> Seen | None:
        is_deleted = (name, owner.job_uid) in self._deleted
        return await find_ours(self._buckets, name, owner, is_deleted=is_deleted)

    async def _unmake(self, seen: Seen, problems: list[str]) -> None:
        """Delete our bucket that was made otherwise if it never held anything; raises always."""
        if seen.soft_delete_seconds != 0:
            raise not_ours(seen.name, problems)  # what was in it may still be there
        try:
            await self._buckets.delete(seen.name, metageneration=seen.metageneration)
        except (AlreadyExists, Conflict) as exc:
            raise not_ours(seen.name, problems) from exc
        raise Unavailable(trim(f"bucket {seen.name}: is made anew: {'; '.join(problems)}"))

    async def _withdraw(self, name: str, made: int, problems: list[str]) -> None:
        """Delete the empty bucket that this call made, unless it changed since; raise Rejected."""
        text = f"bucket {name}: the server changed its protection: {'; '.join(problems)}"
        try:
            await self._buckets.delete(name, metageneration=made)
        except PyvattiError as exc:
            raise Rejected(trim(f"{text}; and it stays: {exc}")) from exc
        raise Rejected(trim(text))

    async def _delete_empty(self, seen: Seen) -> bool:
        """Delete our empty bucket; tell whether this call did. Raises Undeletable, Unavailable."""
        name = seen.name
        try:
            return await self._buckets.delete(name, metageneration=seen.metageneration)
        except AlreadyExists as exc:
            raise Unavailable(f"bucket {name}: written to while it was emptied") from exc
        except Conflict as exc:  # a change in between, or an organisation's policy
            now = await self._buckets.look(name)
            if now is not None and now.metageneration == seen.metageneration:
                raise Undeletable(trim(f"bucket {name}: may not be deleted: {exc}")) from exc
            raise Unavailable(f"bucket {name}: changed while it was emptied") from exc
        except Denied as exc:
            if is_forbidden(exc):
                raise Undeletable(trim(f"bucket {name}: may not be deleted: {exc}")) from exc
            raise
        except Unavailable:
            # The answer may be lost and the bucket gone: the look that follows says.
            if await self._buckets.look(name) is not None:
                raise
            return False


def _read_name(row: dict[str, Any]) -> str:
    return str(row["name"])
