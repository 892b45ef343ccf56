"""The lists of one bucket's objects, page by page. Says nothing about whose the bucket is."""

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, TypeVar

from pyvatti.paging import pages
from pyvatti.storage.buckets import PAGE, read_page, unless_missing
from pyvatti.storage.calls import Calls

T = TypeVar("T")


def list_objects(  # noqa: PLR0913 - one keyword per part of the question
    calls: Calls,
    bucket: str,
    read: Callable[[dict[str, Any]], T],
    *,
    items: str,
    prefix: str = "",
    versions: bool = False,
    soft_deleted: bool | None = None,
) -> AsyncGenerator[list[T] | None, None]:
    """Give what `read` makes of each row, page by page; None if the bucket is missing.

    `items` names the fields of a row. A row that cannot be read raises Unavailable, as what
    Calls.run raises.
    """

    def list_page(client: Any, token: str) -> tuple[list[T] | None, str]:
        iterator = client.list_blobs(
            bucket,
            prefix=prefix or None,
            versions=versions or None,
            soft_deleted=soft_deleted,
            fields=f"kind,items({items}),nextPageToken",
            page_size=PAGE,
            page_token=token or None,
            timeout=calls.timeout,
            retry=None,
        )
        page = unless_missing(partial(next, iterator.pages))
        if page is None:
            return None, ""
        rows, following = read_page(page.raw_page)
        return [read(row) for row in rows], following

    async def fetch(token: str) -> tuple[list[T] | None, str]:
        return await calls.patiently(what, partial(list_page, token=token), bucket=bucket)

    what = f"list what {bucket} keeps" if soft_deleted else f"list {bucket}"
    return pages(what, fetch)
