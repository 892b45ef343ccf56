"""Creates, checks, empties, deletes and lists buckets.

No threads of its own and no foreign exceptions (see calls), no rate (see limiter).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from google.api_core.exceptions import NotFound

from pyvatti.errors import (
    AlreadyExists,
    Denied,
    NotOurs,
    PermanentError,
    Rejected,
    Unavailable,
)
from pyvatti.models import Owner, Removal
from pyvatti.settings import Settings
from pyvatti.storage.calls import (
    MOST_CONNECTIONS,
    Calls,
    Connection,
    Patience,
    is_definite,
)
from pyvatti.storage.emptying import PAGE, Emptier, Tally
from pyvatti.storage.protection import (
    Purpose,
    Seen,
    deviations,
    expiry_days,
    identity,
    is_ours,
    protect,
    read,
)

BUCKET_THREADS = 8
# Apart from the bucket threads: a large clean-up does not starve creates. Four delete as fast as
# eight, and leave the event loop more of the interpreter.
OBJECT_THREADS = MOST_CONNECTIONS - BUCKET_THREADS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInfo:
    """A bucket of the project; `created_at` in UTC, None if the server does not say."""

    name: str
    labels: dict[str, str]
    created_at: datetime | None


class Storage:
    """Cloud Storage of one project. Never asks the BucketLimiter: its caller does.

    Every method raises Unavailable (Denied: credentials or permissions) when the world may
    change and Rejected when the very request is refused.
    """

    def __init__(self, settings: Settings, *, patience: Patience | None = None) -> None:
        self._settings = settings
        self._connection = Connection(settings, patience or Patience())
        self._timeout = self._connection.timeout
        self._calls = Calls(self._connection, BUCKET_THREADS)
        self._emptier = Emptier(Calls(self._connection, OBJECT_THREADS))
        # Counts of deletions under way: a bucket may take several tries.
        self._tallies: dict[tuple[str, str], Tally] = {}

    async def close(self) -> None:
        """Close the connections; calls under way end by themselves."""
        self._connection.close()

    async def create_bucket(self, name: str, *, owner: Owner, purpose: Purpose) -> None:
        """Create the bucket with all its protection in one call; ours already: success.

        Raises NotOurs if the name is taken by anybody else, and Rejected, after deleting what was
        made, if the server does not keep the protection. Not retried here: after a lost answer
        (Unavailable) the next call finds the bucket by its job-uid label.
        """
        wanted = identity(owner)
        create = partial(self._create, name=name, wanted=wanted, purpose=purpose)
        try:
            seen: Seen | None = await self._calls.run(f"create bucket {name}", create)
        except AlreadyExists:
            seen = await self._get(name)
            if seen is not None:
                _require_ours(seen, owner)
        if seen is None:
            raise Unavailable(f"bucket {name}: exists and is missing at once")
        problems = deviations(seen, wanted)
        if problems:
            await self._calls.run(f"delete bucket {name}", partial(self._delete, name=name))
            raise Rejected(f"bucket {name}: the server changed its protection: {problems}")

    async def empty_bucket(self, name: str, *, owner: Owner) -> bool:
        """Empty the bucket of this job and say whether there is one. Raises as delete_bucket.

        To be called before the turn for the deletion is taken: emptying may take minutes, and
        data need not wait for a turn. What it deletes is counted by the deletion that follows.
        """
        seen = await self._get(name)
        if seen is None:
            return False
        await self._empty(seen, owner)
        return True

    async def remove_folder(self, name: str, folder: str, *, owner: Owner) -> Removal:
        """Delete all objects below a folder of this job's bucket; a missing bucket has none.

        Raises as delete_bucket; makes no bucket call that needs a turn of the limiter.
        """
        place = f"{name}/{folder}"
        seen = await self._get(name)
        if seen is not None:
            await self._empty(seen, owner, f"{folder}/")
        tally = self._tallies.pop((place, owner.job_uid), Tally())
        now = datetime.now(UTC)
        return Removal(
            resource=f"bucket/{place}",
            removed_at=now,
            objects=tally.objects,
            bytes=tally.size,
            proven_absent_at=now,  # emptying ends with an empty listing
        )

    async def delete_bucket(self, name: str, *, owner: Owner) -> Removal:
        """Empty and delete the bucket of this job and prove its absence; missing is done.

        Deletes all objects, versions and, with the bucket, unfinished uploads; takes as long as
        that takes and makes at most one bucket delete call. `objects` and `bytes` count what this
        process deleted, over all its tries; None if it never saw the bucket.
        Raises NotOurs, touching nothing, if the bucket is somebody else's; Unavailable if
        something was written meanwhile (then come again with a new turn of the limiter).
        """
        seen = await self._get(name)
        if seen is not None:
            await self._empty(seen, owner)
            await self._delete_empty(name)
        removed_at = datetime.now(UTC)
        if seen is not None:
            await self._prove_absent(name, owner)
        tally = self._tallies.pop((name, owner.job_uid), None)
        self._forget(lambda place, uid: uid == owner.job_uid and place.startswith(f"{name}/"))
        return Removal(
            resource=f"bucket/{name}",
            removed_at=removed_at,
            objects=tally.objects if tally else None,
            bytes=tally.size if tally else None,
            proven_absent_at=datetime.now(UTC),
        )

    def keep_counts(self, job_uids: Collection[str]) -> None:
        """Forget the counts of all other jobs: another replica brought them to their end."""
        self._forget(lambda _place, uid: uid not in job_uids)

    def _forget(self, is_over: Callable[[str, str], bool]) -> None:
        self._tallies = {key: tally for key, tally in self._tallies.items() if not is_over(*key)}

    async def has_object(self, bucket: str, prefix: str, suffix: str) -> bool:
        """Whether an object's name begins and ends so; a missing bucket has none."""
        token: str | None = ""
        while token is not None:
            page = partial(self._page_of_names, bucket=bucket, prefix=prefix, token=token)
            names, token = await self._calls.patiently(f"list {bucket}", page)
            if any(name.endswith(suffix) for name in names):
                return True
        return False

    async def list_buckets(self, prefix: str) -> list[BucketInfo]:
        """List the project's buckets by name; raises Unavailable if the list is not complete."""
        found: list[BucketInfo] = []
        token: str | None = ""
        while token is not None:
            page = partial(self._page_of_buckets, prefix=prefix, token=token)
            buckets, unreachable, token = await self._calls.patiently("list buckets", page)
            if unreachable:
                raise Unavailable(f"list buckets: {len(unreachable)} are unreachable")
            found += buckets
        return found

    async def _get(self, name: str) -> Seen | None:
        """Get the bucket, None on a definite 404. Raises NotOurs if another project has it."""
        try:
            return await self._calls.patiently(f"get bucket {name}", partial(self._read, name=name))
        except Denied as exc:
            # 403 is the answer for the bucket of another project and for a permission we miss.
            # The project's own list tells them apart; taking one for the other would leave data.
            if any(info.name == name for info in await self.list_buckets(name)):
                raise
            raise NotOurs(f"bucket {name}: the name belongs to somebody else") from exc

    async def _empty(self, seen: Seen, owner: Owner, prefix: str = "") -> None:
        _require_ours(seen, owner)
        await self._stop_keeping(seen)
        place = f"{seen.name}/{prefix}".rstrip("/")
        tally = self._tallies.setdefault((place, owner.job_uid), Tally())
        await self._emptier.empty(seen.name, tally, prefix)

    async def _stop_keeping(self, seen: Seen) -> None:
        """Turn soft delete off where somebody turned it on, or deleted objects would stay."""
        if not seen.soft_delete_seconds:
            return
        try:
            patch = partial(self._patch, seen=seen)
            await self._calls.run(f"patch bucket {seen.name}", patch)
        except (Denied, PermanentError) as exc:
            # Kept for a time is better than kept for ever.
            log.error(  # noqa: TRY400 - the cause is named, a trace adds nothing
                "bucket keeps deleted objects", bucket=seen.name, error=str(exc)
            )

    async def _delete_empty(self, name: str) -> None:
        try:
            await self._calls.run(f"delete bucket {name}", partial(self._delete, name=name))
        except AlreadyExists as exc:
            raise Unavailable(f"bucket {name}: written to while it was emptied") from exc
        except Denied:
            raise
        except Unavailable:
            # The answer may be lost and the bucket gone.
            if await self._get(name) is not None:
                raise

    async def _prove_absent(self, name: str, owner: Owner) -> None:
        try:
            seen = await self._get(name)
        except NotOurs:
            return  # a freed name is free for anybody
        if seen is not None and is_ours(seen, owner):
            raise Unavailable(f"bucket {name}: still there after its deletion")

    def _create(self, client: Any, *, name: str, wanted: dict[str, str], purpose: Purpose) -> Seen:
        try:
            bucket = client.bucket(name)
        except ValueError as exc:
            raise Rejected(f"bucket {name}: {exc}") from exc
        protect(bucket, wanted, expiry_days(self._settings, purpose))
        location = self._settings.gcp_location
        return read(
            client.create_bucket(bucket, location=location, timeout=self._timeout, retry=None)
        )

    def _read(self, client: Any, *, name: str) -> Seen | None:
        bucket = _unless_missing(
            partial(client.get_bucket, name, timeout=self._timeout, retry=None)
        )
        return None if bucket is None else read(bucket)

    def _delete(self, client: Any, *, name: str) -> None:
        delete = client.bucket(name).delete
        _unless_missing(partial(delete, timeout=self._timeout, retry=None))

    def _patch(self, client: Any, *, seen: Seen) -> None:
        bucket = client.bucket(seen.name)
        bucket.soft_delete_policy.retention_duration_seconds = 0
        bucket.patch(if_metageneration_match=seen.metageneration, timeout=self._timeout, retry=None)

    def _page_of_names(
        self, client: Any, *, bucket: str, prefix: str, token: str
    ) -> tuple[list[str], str | None]:
        iterator = client.list_blobs(
            bucket,
            prefix=prefix,
            fields="items(name),nextPageToken",
            page_size=PAGE,
            page_token=token or None,
            timeout=self._timeout,
            retry=None,
        )
        page = _unless_missing(partial(next, iterator.pages))
        return [blob.name for blob in page or ()], iterator.next_page_token or None

    def _page_of_buckets(
        self, client: Any, *, prefix: str, token: str
    ) -> tuple[list[BucketInfo], list[str], str | None]:
        iterator = client.list_buckets(
            prefix=prefix,
            page_size=PAGE,
            page_token=token or None,
            return_partial_success=True,
            timeout=self._timeout,
            retry=None,
        )
        page = next(iterator.pages)
        found = [
            BucketInfo(name=item.name, labels=item.labels, created_at=item.time_created)
            for item in page
        ]
        return found, page.unreachable, iterator.next_page_token or None


def _require_ours(seen: Seen, owner: Owner) -> None:
    if not is_ours(seen, owner):
        raise NotOurs(f"bucket {seen.name}: its labels are not this job's")


def _unless_missing(call: Any) -> Any | None:
    """Give what the call gives, None on a definite 404."""
    try:
        return call()
    except NotFound as exc:
        if is_definite(exc):
            return None
        raise
