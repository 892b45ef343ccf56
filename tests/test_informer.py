"""Rows 1 to 7 of the informer's checklist: list, watch, resume, relist, silence."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from informer_following import A1, A2, A3, B1, IMPATIENT, LIMITS, QUIET, following, lists
from kube_scripted import (
    Step,
    answer,
    bookmark,
    event,
    eventually,
    failure,
    hang,
    job,
    listing,
    status,
    stream,
)
from structlog.testing import capture_logs

from pyvatti.kube import WatchLimits

# Row 1


async def test_row_1_watch_begins_at_the_list_and_resumes_at_the_last_event(tmp_path: Path):
    watches = [stream(event("MODIFIED", job("a", 7)), 0.1), QUIET]
    async with following(tmp_path, LIST=[lists(A1, B1, version=5)], WATCH=watches) as it:
        await eventually(lambda: len(it.watched_from()) == 2)

        assert it.watched_from() == ["5", "7"]
        assert it.told == ["+a@1", "+b@1", "~a@7"]
        assert it.names == ["a", "b"]
        assert len(it.server.seen("LIST")) == 1

    for request in it.server.requests:
        assert request.query["labelSelector"] == "app=x"


async def test_row_1_listed_objects_look_like_watched_ones(tmp_path: Path):
    watches = [stream(event("ADDED", job("b", 6)), then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=5)], WATCH=watches) as it:
        await eventually(lambda: it.names == ["a", "b"])

        kinds = [(obj["apiVersion"], obj["kind"]) for obj in it.informer.items()]
        assert kinds == [("batch/v1", "Job")] * 2


# Row 2


async def test_row_2_all_pages_are_read(tmp_path: Path):
    pages = [answer(listing(A1, version=5, continue_="n")), lists(B1, version=5)]
    async with following(tmp_path, LIST=pages, WATCH=[QUIET]) as it:
        await it.informer.wait_synced()

        assert it.names == ["a", "b"]


async def test_row_2_page_that_expired_begins_the_list_anew(tmp_path: Path):
    pages = [
        answer(listing(A1, version=5, continue_="n")),
        failure(410, "Expired"),
        lists(B1, version=9),
    ]
    async with following(tmp_path, LIST=pages, WATCH=[QUIET]) as it:
        await it.informer.wait_synced()
        await eventually(it.watched_from)

        assert it.names == ["b"]
        assert it.told == ["+b@1"]
        assert it.watched_from()[0] == "9"
        assert [request.query.get("continue") for request in it.server.seen("LIST")] == [
            None,
            "n",
            None,
        ]


# Row 3


async def test_row_3_relist_replaces_the_store(tmp_path: Path):
    first = lists(job("gone", 1), job("same", 1), job("new-version", 1), version=5)
    second = lists(job("same", 1), job("new-version", 2), job("added", 8), version=9)
    watches = [stream(event("ERROR", status(410, "Expired"))), QUIET]
    async with following(tmp_path, LIST=[first, second], WATCH=watches) as it:
        await eventually(lambda: "+added@8" in it.told)

        assert it.names == ["added", "new-version", "same"]
        assert it.told[3:] == ["-gone@1", "~new-version@2", "+added@8"]


async def test_row_3_object_made_anew_in_a_gap_is_another_object(tmp_path: Path):
    first, second = lists(job("a", 1, "u1"), version=5), lists(job("a", 8, "u2"), version=9)
    watches = [failure(410, "Expired"), QUIET]
    async with following(tmp_path, LIST=[first, second], WATCH=watches) as it:
        await eventually(lambda: len(it.told) == 3)

        assert it.told == ["+a@1", "-a@1", "+a@8"]
        assert it.version("a") == "8"


async def test_row_3_object_made_anew_without_a_deletion_seen_is_another_object(tmp_path: Path):
    watches = [stream(event("MODIFIED", job("a", 8, "u2")), then="hang")]
    first = lists(job("a", 1, "u1"), version=5)
    async with following(tmp_path, LIST=[first], WATCH=watches) as it:
        await eventually(lambda: len(it.told) == 3)

        assert it.told == ["+a@1", "-a@1", "+a@8"]


async def test_row_3_object_missing_from_a_stale_list_is_known_again_by_its_first_event(
    tmp_path: Path,
):
    watches = [
        stream(event("ADDED", B1), event("ERROR", status(410, "Expired"))),
        stream(event("ADDED", B1), then="hang"),
    ]
    both = [lists(A1, version=1), lists(A1, version=1)]
    async with following(tmp_path, LIST=both, WATCH=watches) as it:
        await eventually(lambda: len(it.told) == 4)

        assert it.told == ["+a@1", "+b@1", "-b@1", "+b@1"]
        assert it.names == ["a", "b"]


async def test_row_3_own_write_missing_from_a_stale_list_is_known_again_by_its_event(
    tmp_path: Path,
):
    gate = asyncio.Event()

    async def expire(request: Any) -> Any:
        await gate.wait()
        return await failure(410, "Expired")(request)

    both = [lists(A1, version=1), lists(A1, version=1)]
    watches = [expire, stream(event("ADDED", B1), then="hang")]
    async with following(tmp_path, LIST=both, WATCH=watches) as it:
        await it.informer.wait_synced()
        it.informer.note_write(B1)
        gate.set()
        await eventually(lambda: len(it.told) == 4)

        assert it.told == ["+a@1", "+b@1", "-b@1", "+b@1"]


async def test_row_3_namesake_that_a_stale_list_does_not_know_yet_is_told_again(tmp_path: Path):
    former, latter = job("a", 1, "u1"), job("a", 8, "u2")
    watches = [
        stream(event("ADDED", latter), event("ERROR", status(410, "Expired"))),
        stream(event("DELETED", job("a", 7, "u1")), event("ADDED", latter), then="hang"),
    ]
    both = [lists(former, version=5), lists(former, version=5)]
    async with following(tmp_path, LIST=both, WATCH=watches) as it:
        await eventually(lambda: len(it.told) == 7)

        assert it.told[3:] == ["-a@8", "+a@1", "-a@7", "+a@8"]
        assert it.version("a") == "8"


async def test_row_3_repeated_events_change_nothing(tmp_path: Path):
    chunks = [
        event("MODIFIED", A2),
        event("MODIFIED", A3),
        event("MODIFIED", A2),
        event("ADDED", B1),
        event("DELETED", job("b", 4)),
        event("ADDED", B1),
        event("DELETED", job("b", 4)),
        event("ADDED", job("end", 9)),
    ]
    watches = [stream(*chunks, then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: "end" in it.names)

        assert it.told == ["+a@1", "~a@2", "~a@3", "+b@1", "-b@4", "+end@9"]
        assert it.version("a") == "3"


async def test_row_3_deletion_of_an_earlier_namesake_is_not_ours(tmp_path: Path):
    chunks = [event("DELETED", job("a", 2, "older")), event("ADDED", job("end", 9))]
    watches = [stream(*chunks, then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: "end" in it.names)

        assert it.names == ["a", "end"]


# Row 4


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(stream(event("ERROR", status(410, "Expired"))), id="ERROR event in a 200"),
        pytest.param(
            stream(event("MODIFIED", A2), event("ERROR", status(410, "Expired"))),
            id="ERROR event after good ones",
        ),
        pytest.param(failure(410, "Expired"), id="HTTP status"),
    ],
)
async def test_row_4_expired_watch_lists_anew(tmp_path: Path, step: Step):
    both = [lists(A1, version=5), lists(A3, version=9)]
    async with following(tmp_path, LIST=both, WATCH=[step, QUIET]) as it:
        await eventually(lambda: len(it.watched_from()) == 2)

        assert it.watched_from() == ["5", "9"]
        assert it.version("a") == "3"
        assert it.told.count("~a@3") == 1


# Row 5


async def test_row_5_bookmark_moves_the_version_and_is_no_object(tmp_path: Path):
    watches = [stream(bookmark(8), 0.1), QUIET]
    async with following(tmp_path, LIST=[lists(A1, version=5)], WATCH=watches) as it:
        await eventually(lambda: len(it.watched_from()) == 2)

        assert it.watched_from() == ["5", "8"]
        assert it.told == ["+a@1"]


async def test_row_5_bookmarks_keep_a_stream_without_events_alive(tmp_path: Path):
    beats = [part for beat in range(20) for part in (bookmark(10 + beat), 0.1)]
    limits, watches = replace(LIMITS, idle=1.5), [stream(*beats), QUIET]
    async with following(tmp_path, limits=limits, LIST=[lists(A1, version=5)], WATCH=watches) as it:
        await eventually(lambda: len(it.watched_from()) == 2)

        assert it.watched_from() == ["5", "29"]  # one stream of 2 s, and no list
        assert len(it.server.seen("LIST")) == 1


# Row 6


async def test_row_6_half_open_stream_is_dropped_within_the_idle_limit(tmp_path: Path):
    watches = [stream(event("MODIFIED", A2), then="hang"), stream(bookmark(3), then="hang")]
    async with following(
        tmp_path, limits=IMPATIENT, LIST=[lists(A1, version=1)], WATCH=watches
    ) as it:
        await eventually(lambda: len(it.watched_from()) == 2)
        first, second = it.server.seen("WATCH")[:2]

        assert IMPATIENT.idle <= second.at - first.at < 10 * IMPATIENT.idle
        assert it.watched_from()[:2] == ["1", "2"]  # it spoke before: resumed, not listed
        assert len(it.server.seen("LIST")) == 1


async def test_row_6_watch_from_the_future_is_silent_and_lists_anew(tmp_path: Path):
    both = [lists(A1, version=1000), lists(A2, version=2)]
    async with following(tmp_path, limits=IMPATIENT, LIST=both, WATCH=[QUIET]) as it:
        await eventually(lambda: len(it.watched_from()) >= 2)

        assert it.watched_from()[:2] == ["1000", "2"]
        assert it.version("a") == "2"


async def test_row_6_silence_cut_short_by_a_proxy_lists_anew_as_well(tmp_path: Path):
    both = [lists(A1, version=1000), lists(A2, version=2)]
    limits = replace(LIMITS, idle=1.4)
    async with following(tmp_path, limits=limits, LIST=both, WATCH=[stream(0.5)]) as it:
        await eventually(lambda: it.version("a") == "2")

        silent = it.watched_from().count("1000")
        assert 2 <= silent <= 3


async def test_row_6_stream_without_an_answer_is_dropped(tmp_path: Path):
    watches = [hang(), stream(event("MODIFIED", A2), then="hang")]
    async with following(
        tmp_path, limits=IMPATIENT, LIST=[lists(A1, version=1)], WATCH=watches
    ) as it:
        await eventually(lambda: it.version("a") == "2")


# Row 7


async def test_row_7_end_of_a_stream_that_spoke_is_no_error(tmp_path: Path):
    watches = [stream(0.06, bookmark(number)) for number in range(6, 12)] + [QUIET]
    slow = WatchLimits(short=0.05, backoff=30)
    with capture_logs() as logs:
        async with following(
            tmp_path, limits=slow, LIST=[lists(A1, version=5)], WATCH=watches
        ) as it:
            await eventually(lambda: len(it.watched_from()) == 7)

    assert it.watched_from() == ["5", "6", "7", "8", "9", "10", "11"]
    assert len(it.server.seen("LIST")) == 1
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error")] == []


async def test_row_7_server_is_asked_to_end_streams_at_random_times(tmp_path: Path):
    limits = WatchLimits(short=0, stream=(200, 290))
    async with following(
        tmp_path, limits=limits, LIST=[lists(version=5)], WATCH=[stream(bookmark(6))]
    ) as it:
        await eventually(lambda: len(it.watched_from()) >= 20)

    asked = {int(request.query["timeoutSeconds"]) for request in it.server.seen("WATCH")}
    assert asked <= set(range(200, 291))
    assert len(asked) > 5
