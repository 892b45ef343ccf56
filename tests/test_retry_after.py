"""No server's Retry-After stops us for longer than a bound, and none of its forms breaks us."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api
from hypothesis import example, given
from hypothesis import strategies as st

from pyvatti.api.problems import _field
from pyvatti.errors import RateLimited, TransientError
from pyvatti.kube.answers import error_for
from pyvatti.rest import LONGEST_PAUSE, LONGEST_RETRY_AFTER, retry_after
from pyvatti.storage import BucketLimiter
from pyvatti.storage.calls import mapped

SENT = "Wed, 10 Jul 2024 18:01:00 GMT"
LATER = "Wed, 10 Jul 2024 18:01:30 GMT"
NEVER = "Wed, 10 Jul 9999 18:01:00 GMT"

Door = Callable[[dict[str, str]], float | None]


def of_storage(headers: dict[str, str]) -> float | None:
    answer = requests.Response()
    answer.status_code = 429
    answer.headers.update(headers)
    with pytest.raises(RateLimited) as caught, mapped("create bucket"):
        raise api.TooManyRequests("slow down", response=answer)
    return caught.value.retry_after


def of_kubernetes(headers: dict[str, str], **details: Any) -> float | None:
    body = json.dumps({"kind": "Status", "details": details}).encode()
    lower = {name.lower(): value for name, value in headers.items()}  # as aiohttp looks them up
    error = error_for(429, lower, body, target="GET /")
    assert isinstance(error, TransientError)
    return error.retry_after


def of_a_neighbour(headers: dict[str, str]) -> float | None:
    return retry_after({name.lower(): value for name, value in headers.items()})


DOORS = [
    pytest.param(of_storage, LONGEST_PAUSE, id="storage"),
    pytest.param(of_kubernetes, LONGEST_PAUSE, id="kubernetes"),
    pytest.param(of_a_neighbour, LONGEST_RETRY_AFTER, id="seqera and backend"),
]


@pytest.mark.parametrize(("door", "most"), DOORS)
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0", 0, id="now"),
        pytest.param("120", 120, id="seconds"),
        pytest.param(" 7 ", 7, id="with blanks"),
        pytest.param("86400", math.inf, id="a day"),
        pytest.param("9" * 5000, math.inf, id="5000 digits"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1e9", None, id="with an exponent"),
        pytest.param("1.5", None, id="with a fraction"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("nan", None, id="no number"),
        pytest.param("²", None, id="a digit that is no number"),
        pytest.param("٣", None, id="a digit of another script"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="nonsense"),
        pytest.param(LATER, 30, id="a date"),
        pytest.param("Wed, 10 Jul 2024 18:01:30", 30, id="a date without zone"),
        pytest.param("Wed, 10 Jul 2024 18:01:30 -0000", 30, id="a date of no known zone"),
        pytest.param("Wed, 10 Jul 1999 18:01:00 GMT", 0, id="a date of the past"),
        pytest.param(NEVER, math.inf, id="a date of the far future"),
        pytest.param(f"Wed, 10 Jul {'9' * 30} 18:01:00 GMT", None, id="a year of 30 digits"),
        pytest.param(f"Wed, 10 Jul 2024 18:01:00 +{'9' * 30}", None, id="a zone of 30 digits"),
    ],
)
def test_every_door_reads_it_alike_and_within_its_bound(
    door: Door, most: float, text: str, seconds: float | None
):
    told = door({"Retry-After": text, "Date": SENT})

    assert told == (None if seconds is None else min(seconds, most))


@pytest.mark.parametrize(("door", "most"), DOORS)
def test_a_sender_whose_date_is_nonsense_is_measured_by_our_clock(door: Door, most: float):
    for date in ("", "²", f"Wed, 10 Jul {'9' * 30} 18:01:00 GMT"):
        assert door({"Retry-After": NEVER, "Date": date}) == most
        assert door({"Retry-After": SENT, "Date": date}) == 0
    assert door({}) is None


@given(text=st.text(), date=st.text())
@example(text="Mon, 1 Jan 1 24:60:60 +9999", date="")
def test_no_text_breaks_it(text: str, date: str):
    told = retry_after({"retry-after": text, "date": date}, most=LONGEST_PAUSE)

    assert told is None or 0 <= told <= LONGEST_PAUSE


@pytest.mark.parametrize(
    ("inside", "seconds"),
    [(3, 3), ("4", 4), (10**9, LONGEST_PAUSE), (-1, None), (1e300, None), (True, None), ({}, None)],
)
def test_what_a_status_asks_for_has_the_same_bound(inside: Any, seconds: float | None):
    assert of_kubernetes({}, retryAfterSeconds=inside) == seconds
    assert of_kubernetes({"Retry-After": "9"}, retryAfterSeconds=inside) == 9


@pytest.mark.parametrize("asked", [86400.0, 1e9, math.inf, math.nan])
def test_a_pause_of_all_buckets_ends(asked: float):
    limiter = BucketLimiter(2.0)

    limiter.postpone(asked, 0.0)
    limiter.postpone(asked, 10.0)

    assert limiter.delay("a", 10.0) == LONGEST_PAUSE
    assert limiter.delay("a", 10.0 + LONGEST_PAUSE) == 0


@pytest.mark.parametrize("key", ["²", "٣", "7" * 5000])
def test_a_field_named_by_odd_digits_is_no_index(key: str):
    assert _field(f"files.0.{key}", "a rule")["loc"] == ["body", "files", 0, key]
