"""Reads a list page by page, to an end in any case: whatever the server says is the next page."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from pyvatti.errors import Unavailable

MOST_PAGES = 10_000  # ten million objects of a bucket: more than one job ever has

T = TypeVar("T")


async def pages(
    what: str, fetch: Callable[[str], Awaitable[tuple[T, str]]]
) -> AsyncGenerator[T, None]:
    """Give page after page until there is no next token; the first page's is empty.

    Raises Unavailable if a token comes again, or after MOST_PAGES with tokens that are ever new.
    """
    token = ""
    used: set[str] = set()
    for _ in range(MOST_PAGES):
        used.add(token)
        page, token = await fetch(token)
        yield page
        del page  # the next one is read without it in memory
        if not token:
            return
        if token in used:
            raise Unavailable(f"{what}: its pages go in circles")
    raise Unavailable(f"{what}: it has not ended after {MOST_PAGES} pages")
