"""Rows 8 to 10 of the informer's checklist: pauses, broken streams, refused access."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from informer_following import A1, A2, A3, LIMITS, QUIET, Followed, following, lists
from kube_scripted import (
    Step,
    answer,
    bookmark,
    event,
    eventually,
    failure,
    listing,
    reset,
    running,
    scripted,
    status,
    stream,
    text,
)
from structlog.testing import capture_logs

from pyvatti.kube import JOBS, Informer, WatchLimits
from pyvatti.kube.backoff import Backoff

# Row 8


def test_row_8_pauses_double_up_to_their_cap_and_start_over_after_a_calm():
    for _ in range(100):
        backoff = Backoff(base=0.05, cap=0.4, calm=10)
        pauses = [backoff.next(now) for now in (0, 1, 2, 3, 4, 15)]

        for pause, least in zip(pauses, [0.05, 0.1, 0.2, 0.4, 0.4, 0.05], strict=True):
            assert least <= pause <= min(1.25 * least, 0.4)


async def test_row_8_failures_are_answered_by_growing_pauses(tmp_path: Path):
    limits = WatchLimits(backoff=0.05, backoff_cap=0.4)
    async with following(
        tmp_path, limits=limits, LIST=[lists(version=5)], WATCH=[text("no", 503)]
    ) as it:
        await eventually(lambda: len(it.server.seen("WATCH")) == 6)

    for pause, least in zip(_pauses(it), [0.05, 0.1, 0.2, 0.4, 0.4], strict=True):
        assert pause >= least
    assert len(it.server.seen("LIST")) == 1


async def test_row_8_empty_streams_that_end_at_once_are_failures(tmp_path: Path):
    limits = WatchLimits(short=60, backoff=0.05, backoff_cap=0.1)
    async with following(tmp_path, limits=limits, LIST=[lists(version=5)], WATCH=[stream()]) as it:
        await eventually(lambda: len(it.watched_from()) == 8)

    assert all(pause >= 0.1 for pause in _pauses(it)[2:])


async def test_row_8_short_streams_that_speak_do_not_spin_either(tmp_path: Path):
    limits = WatchLimits(short=60, backoff=0.05, backoff_cap=0.1)
    async with following(
        tmp_path, limits=limits, LIST=[lists(version=5)], WATCH=[stream(bookmark(6))]
    ) as it:
        await eventually(lambda: len(it.watched_from()) == 12)

    assert sum(pause >= 0.05 for pause in _pauses(it)) >= 8


def _pauses(it: Followed) -> list[float]:
    """Give the seconds between two watches each."""
    return [later.at - earlier.at for earlier, later in pairwise(it.server.seen("WATCH"))]


@pytest.mark.parametrize("operation", ["LIST", "WATCH"])
async def test_row_8_too_many_requests_waits_as_asked_without_a_list(
    tmp_path: Path, operation: str
):
    steps = {"LIST": [lists(A1, version=5)], "WATCH": [QUIET]}
    steps[operation].insert(0, failure(429, "TooManyRequests", headers={"Retry-After": "1"}))
    async with following(tmp_path, limits=WatchLimits(backoff=0.01), **steps) as it:
        await eventually(lambda: len(it.server.seen(operation)) == 2)
        first, second = it.server.seen(operation)

    assert 1 <= second.at - first.at < 10
    assert len(it.server.seen("LIST")) == (2 if operation == "LIST" else 1)


# Row 9


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(stream(event("MODIFIED", A2)[:-20]), id="cut line"),
        pytest.param(stream(event("MODIFIED", A2)[:-20], then="reset"), id="reset inside a line"),
        pytest.param(reset(), id="reset before the answer"),
        pytest.param(stream(b"<html>502</html>\n"), id="line of HTML"),
        pytest.param(stream(b"[1]\n"), id="line that is no object"),
        pytest.param(stream(b'{"type": "ADDED", "object": null}\n'), id="event without object"),
        pytest.param(stream(event("ERROR", status(500, "InternalError"))), id="ERROR event 500"),
        pytest.param(stream(b"x" * 33 * 2**20), id="line over the limit"),
        pytest.param(text("<html>502</html>", 502), id="HTML 502"),
        pytest.param(failure(401, "Unauthorized"), id="401"),
    ],
)
async def test_row_9_broken_stream_is_resumed_where_it_stood(tmp_path: Path, bad: Step):
    good = stream(event("MODIFIED", A2), then="hang")
    both = [lists(A1, version=1)]
    async with following(tmp_path, LIST=both, WATCH=[bad, good]) as it:
        await eventually(lambda: it.version("a") == "2")

        assert it.watched_from() == ["1", "1"]
        assert it.told == ["+a@1", "~a@2"]


@pytest.mark.parametrize("size", [1, 7, 4096], ids="chunks of {} bytes".format)
async def test_row_9_characters_cut_between_chunks_are_whole(tmp_path: Path, size: int):
    line = event("MODIFIED", A2 | {"note": "PLACE"}).replace(b"PLACE", "Käse €🧬".encode())
    chunks = [line[at : at + size] for at in range(0, len(line), size)]
    watches = [stream(*chunks, then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: it.version("a") == "2")

        assert (it.informer.get("a") or {})["note"] == "Käse €🧬"


async def test_row_9_event_over_4_mib_is_read(tmp_path: Path):
    watches = [stream(event("MODIFIED", A2 | {"note": "x" * 5 * 2**20}), then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: it.version("a") == "2")

        assert len(it.server.seen("WATCH")) == 1


async def test_row_9_unknown_types_fields_and_broken_objects_are_passed_over(tmp_path: Path):
    chunks = [
        event("RENAMED", A2),
        event("ADDED", {"kind": "Job"}),
        event("ADDED", {"kind": "Job", "metadata": None}),
        event("ADDED", {"kind": "Job", "metadata": {"name": 7}}),
        b"\n",
        event("MODIFIED", A3).replace(b"{", b'{"novelty": 1, ', 1),
    ]
    watches = [stream(*chunks, then="hang")]
    first = answer(listing(A1, {"metadata": {"name": "bad"}}, version=1))
    async with following(tmp_path, LIST=[first], WATCH=watches) as it:
        await eventually(lambda: it.version("a") == "3")

        assert it.told == ["+a@1", "~a@3"]
        assert len(it.server.seen("WATCH")) == 1


async def test_row_9_event_that_is_never_readable_is_skipped_by_a_list(tmp_path: Path):
    both = [lists(A1, version=1), lists(A3, version=3)]
    watches = [stream(b"garbage\n")]
    async with following(tmp_path, LIST=both, WATCH=watches) as it:
        await eventually(lambda: it.version("a") == "3")

        assert it.watched_from()[:3] == ["1"] * 3


async def test_row_9_server_away_is_waited_for(tmp_path: Path):
    steps = [reset(), text("", 503), text("<html>"), failure(500, ""), lists(A1, version=1)]
    async with following(tmp_path, LIST=steps, WATCH=[QUIET]) as it:
        await eventually(lambda: it.informer.synced)

        assert it.names == ["a"]


# Row 10


async def test_row_10_watch_with_a_rotated_token_goes_on(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("old")
    steps = {
        "LIST": [lists(A1, version=1)],
        "WATCH": [failure(401, "Unauthorized"), stream(event("MODIFIED", A2), then="hang")],
    }
    user = {"tokenFile": str(token)}
    async with scripted(tmp_path, user=user, **steps) as (server, client):
        informer = Informer(
            client, JOBS, selector="", on_change=lambda *_: token.write_text("new"), limits=LIMITS
        )
        async with running(informer.run()):
            await eventually(
                lambda: (informer.get("a") or A1)["metadata"]["resourceVersion"] == "2"
            )

    assert [request.token for request in server.seen("WATCH")] == ["old", "new"]
    assert len(server.seen("LIST")) == 1


async def test_row_10_forbidden_is_loud_ever_slower_and_not_ready(tmp_path: Path):
    """Soon again at first: an API server that has just started refuses what it will grant."""
    limits = WatchLimits(short=0, backoff=0.1, backoff_cap=5)
    no = failure(403, "Forbidden")
    steps = {
        "LIST": [lists(A1, version=1), no, no, lists(A2, version=2)],
        "WATCH": [stream(bookmark(1)), no, QUIET],
    }
    with capture_logs() as logs:
        async with following(tmp_path, limits=limits, **steps) as it:
            await eventually(lambda: len(it.server.seen("WATCH")) == 2)
            await eventually(lambda: not it.informer.is_fresh(time.monotonic()))
            await eventually(lambda: it.informer.is_fresh(time.monotonic()))

    denied = [it.server.seen("WATCH")[1], *it.server.seen("LIST")[1:]]
    pauses = [after.at - before.at for before, after in pairwise(denied)]
    for pause, least in zip(pauses, [0.1, 0.2, 0.4], strict=True):
        assert pause >= least
    assert pauses[0] < limits.backoff_cap / 2
    assert [entry["log_level"] for entry in logs if entry["event"] == "watch denied"] == [
        "error"
    ] * 3
    assert it.version("a") == "2"
