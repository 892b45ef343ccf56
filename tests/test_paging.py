"""Lists that never end: the reader ends them."""

import pytest

from pyvatti.errors import Unavailable
from pyvatti.paging import MOST_PAGES, pages


async def test_pages_come_in_order_until_there_is_no_token():
    book = {"": ("one", "b"), "b": ("two", "c"), "c": ("three", "")}

    async def fetch(token: str) -> tuple[str, str]:
        return book[token]

    assert [page async for page in pages("list", fetch)] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("following", "said", "asked"),
    [
        pytest.param(lambda _count: "again", "in circles", 2, id="one token for ever"),
        pytest.param(lambda count: "ab"[count % 2], "in circles", 3, id="two tokens in turn"),
        pytest.param(str, "has not ended", MOST_PAGES, id="ever new tokens"),
    ],
)
async def test_list_without_an_end_is_given_up(following, said, asked):
    count = 0

    async def fetch(_token: str) -> tuple[int, str]:
        nonlocal count
        count += 1
        return count, following(count)

    with pytest.raises(Unavailable, match=said):
        async for _ in pages("list", fetch):
            pass

    assert count == asked
