"""The calls on buckets: list, look, insert, patch, delete. No decision whose they are.

Answers of another form than Cloud Storage's never get here (see answers).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from google.api_core.exceptions import Forbidden, NotFound

from pyvatti.errors import AlreadyExists, Conflict, Denied, Rejected, Unavailable
from pyvatti.paging import pages
from pyvatti.storage.calls import Calls, mapped
from pyvatti.storage.protection import protect
from pyvatti.storage.reading import (
    BucketInfo,
    Restorable,
    Seen,
    name_of,
    read_info,
    read_restorable,
    read_seen,
)

PAGE = 1000  # rows in one list answer, at most what the server gives


class Buckets:
    """The buckets of one project. Every method raises what Calls.run raises."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._timeout = calls.timeout

    async def listing(self, prefix: str) -> list[BucketInfo]:
        """List all buckets by name. Raises Unavailable if the list is not complete."""
        found, unreachable = await self._list(prefix)
        if unreachable:
            raise Unavailable(f"list buckets: {unreachable} are unreachable")
        with mapped("list buckets"):
            return [read_info(raw) for raw in found]

    async def look(self, name: str) -> Seen | None:
        """Look a bucket up in the project's list, None if the complete list does not hold it."""
        found, unreachable = await self._list(name)
        with mapped(f"look for bucket {name}"):
            seen = next((read_seen(raw) for raw in found if name_of(raw) == name), None)
        if seen is None and unreachable:
            raise Unavailable(f"look for bucket {name}: {unreachable} buckets are unreachable")
        return seen

    async def restorable(self, name: str) -> list[Restorable]:
        """List deleted buckets of this name that can be restored with what was in them.

        Raises Unavailable if the list is not complete.
        """
        found, unreachable = await self._list(name, soft_deleted=True)
        if unreachable:
            raise Unavailable(f"look for deleted {name}: {unreachable} buckets are unreachable")
        with mapped(f"look for deleted {name}"):
            return [read_restorable(raw) for raw in found if name_of(raw) == name]

    async def stands(self, name: str) -> bool:
        """Tell whether anybody has a bucket of this name: False is Google's own 404."""
        try:
            return await self._calls.patiently(
                f"get bucket {name}", partial(self._get, name=name), bucket=name
            )
        except Denied as exc:
            if is_forbidden(exc):  # the answer for the bucket of another project
                return True
            raise

    async def insert(
        self, name: str, *, labels: dict[str, str], days: int, location: str
    ) -> int | None:
        """Make a bucket with all its protection; give its metageneration, None if it exists.

        Raises Rejected where an organisation's policy refuses it (412).
        """
        insert = partial(self._insert, name=name, labels=labels, days=days, location=location)
        try:
            return await self._calls.run(f"create bucket {name}", insert, bucket=name)
        except AlreadyExists:
            return None
        except Conflict as exc:  # no precondition was sent
            raise Rejected(str(exc)) from exc

    async def stop_keeping(self, seen: Seen, marks: dict[str, str]) -> None:
        """Switch soft delete off, if nothing of the bucket has changed, and add labels."""
        patch = partial(self._patch, seen=seen, marks=marks)
        await self._calls.run(f"patch bucket {seen.name}", patch, bucket=seen.name)

    async def delete(self, name: str, *, metageneration: int | None = None) -> bool:
        """Delete an empty bucket; a missing one is done. Tell whether this call deleted it."""
        delete = partial(self._delete, name=name, metageneration=metageneration)
        return await self._calls.run(f"delete bucket {name}", delete, bucket=name)

    async def _list(
        self, prefix: str, *, soft_deleted: bool | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """Give the rows of all pages, and how many buckets the server could not list."""
        found: list[dict[str, Any]] = []
        unreachable = 0
        fetch = partial(self._page, prefix=prefix, soft_deleted=soft_deleted)

        async def page(token: str) -> tuple[tuple[list[dict[str, Any]], int], str]:
            call = partial(fetch, token=token)
            return await self._calls.patiently("list buckets", call, bucket=prefix)

        async for rows, missing in pages("list buckets", page):
            found += rows
            unreachable += missing
        return found, unreachable

    def _page(
        self, client: Any, *, prefix: str, token: str, soft_deleted: bool | None
    ) -> tuple[tuple[list[dict[str, Any]], int], str]:
        iterator = client.list_buckets(
            prefix=prefix,
            page_size=PAGE,
            page_token=token or None,
            soft_deleted=soft_deleted,
            return_partial_success=True,
            timeout=self._timeout,
            retry=None,
        )
        page = next(iterator.pages)
        rows, following = read_page(page.raw_page)
        return ([raw for raw in rows if name_of(raw).startswith(prefix)], len(page.unreachable)), (
            following
        )

    def _get(self, client: Any, *, name: str) -> bool:
        get = partial(client.get_bucket, name, timeout=self._timeout, retry=None)
        return unless_missing(get) is not None

    def _insert(
        self, client: Any, *, name: str, labels: dict[str, str], days: int, location: str
    ) -> int:
        try:
            bucket = client.bucket(name)
        except ValueError as exc:
            raise Rejected(f"bucket {name}: {exc}") from exc
        protect(bucket, labels, days)
        made = client.create_bucket(bucket, location=location, timeout=self._timeout, retry=None)
        return int(made.metageneration)

    def _patch(self, client: Any, *, seen: Seen, marks: dict[str, str]) -> None:
        bucket = client.bucket(seen.name)
        bucket.soft_delete_policy.retention_duration_seconds = 0
        if marks:
            bucket.labels = marks  # a merge patch: the other labels stay
        bucket.patch(if_metageneration_match=seen.metageneration, timeout=self._timeout, retry=None)

    def _delete(self, client: Any, *, name: str, metageneration: int | None) -> bool:
        delete = partial(
            client.bucket(name).delete,
            if_metageneration_match=metageneration,
            timeout=self._timeout,
            retry=None,
        )
        try:
            delete()
        except NotFound:
            return False
        return True


def read_page(raw: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Read the rows of a list answer and the token of the next, if any. Raises ValueError."""
    rows, token = raw.get("items", []), raw.get("nextPageToken")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows are not objects")
    if token is not None and not isinstance(token, str):
        raise ValueError("page token is not a string")
    return rows, token or ""


def unless_missing(call: Callable[[], Any]) -> Any | None:
    """Give what the call gives, None on Google's own 404."""
    try:
        return call()
    except NotFound:
        return None


def is_forbidden(error: Denied) -> bool:
    """Tell a refused permission (403) from refused credentials (401)."""
    return isinstance(error.__cause__, Forbidden)


def is_missing(error: Rejected) -> bool:
    """Tell that the thing itself is not there, by Google's own 404."""
    return isinstance(error.__cause__, NotFound)
