"""Annotations, records and rows are input: what is out of bounds costs one job a visible fault."""

import json
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from builders import settings
from hypothesis import given
from hypothesis import strategies as st

from pyvatti import labels
from pyvatti.jobs import read_job, read_time
from pyvatti.lifecycle import records
from pyvatti.models import State
from pyvatti.rest import retry_after
from pyvatti.seqera import Seqera

AT = "2026-11-23T12:00:00Z"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOTICE = {"sequence": 1, "event": "deployed", "at": AT}
VERDICT = {"state": "Failed", "reason": "TransferFailed", "message": "no"}


def notices(**changes):
    return json.dumps([NOTICE | changes])


def verdict(**changes):
    return json.dumps(VERDICT | changes)


BROKEN = {
    "no JSON": ("outbox", "{broken"),
    "another type": ("outbox", '"deployed"'),
    "a time without a zone": ("outbox", notices(at="2026-01-01T00:00:00")),
    "year 1": ("outbox", notices(at="0001-01-01T00:00:00+01:00")),
    "year 9999": ("outbox", notices(at="9999-12-31T23:59:59-23:00")),
    "a time that is a number": ("outbox", notices(at=5)),
    "another time without a zone": ("outbox", notices(tried_at="2026-01-01T00:00:00")),
    "an event of another version": ("outbox", notices(event="paused")),
    "a delivery of another version": ("outbox", notices(delivery="folded")),
    "number 0": ("outbox", notices(sequence=0)),
    "number 2 first": ("outbox", notices(sequence=2)),
    "a number twice": ("outbox", json.dumps([NOTICE, NOTICE])),
    "numbers that fall": ("outbox", json.dumps([NOTICE | {"sequence": 2}, NOTICE])),
    "a number like ²": ("outbox", notices(sequence="²")),
    "65 events": ("outbox", json.dumps([NOTICE | {"sequence": n + 1} for n in range(65)])),
    "trace_exit 128": ("outbox", notices(trace_exit=128)),
    "trace_exit -1": ("outbox", notices(trace_exit=-1)),
    "attempts -1": ("outbox", notices(attempts=-1)),
    "attempts without end": ("outbox", notices(attempts=10**30)),
    "attempts that are inf": ("outbox", notices(attempts=float("inf"))),
    "a long text": ("outbox", notices(answer="x" * 20_000)),
    "a naive transition": ("transitions", '{"Created":"2026-01-01T00:00:00"}'),
    "a state of another version": ("transitions", json.dumps({"Paused": AT})),
    "a naive and a zoned one": (
        "transitions",
        json.dumps({"Requested": AT, "Created": "2026-01-01T00:00:00"}),
    ),
    "a verdict of another version": ("verdict", verdict(state="Paused")),
    "a verdict's trace_exit": ("verdict", verdict(trace_exit=255)),
    "evidence without a zone": (
        "verdict",
        verdict(evidence=[{"witness": "clock", "said": "x", "at": "2026-01-01"}]),
    ),
    "a witness of year 1": (
        "witness",
        json.dumps(
            {"name": "p", "uid": "u", "job_uid": "j", "phase": "x", "created_at": "0001-01-01"}
        ),
    ),
    "deep JSON": ("verdict", "[" * 100_000),
}


def job_with(**annotations):
    marks = {f"{labels.PREFIX}/{key}": value for key, value in annotations.items()}
    metadata = {
        "name": "intp00000000513",
        "namespace": "intervene-dev",
        "uid": "5a8f1f6e-0000-4000-8000-000000000513",
        "resourceVersion": "10",
        "creationTimestamp": AT,
        "annotations": marks,
        "labels": {labels.STATE: "Created"},
    }
    return read_job({"metadata": metadata})


@pytest.mark.parametrize(("key", "text"), BROKEN.values(), ids=BROKEN)
def test_an_annotation_out_of_bounds_counts_as_absent_and_is_named(key, text):
    read = job_with(**{key: text})

    assert read.broken == (key,)
    assert (read.outbox, read.verdict, read.transitions, read.witness) == ((), None, {}, None)
    assert read.state is State.CREATED


def test_sound_annotations_are_read_whole_and_those_beside_a_broken_one_too():
    sound = {"outbox": notices(), "verdict": verdict(), "transitions": json.dumps({"Created": AT})}

    assert job_with(**sound).broken == ()
    read = job_with(**sound, witness="{}")
    assert read.broken == ("witness",)
    assert (read.state, len(read.outbox), read.transitions) == (
        State.FAILED,
        1,
        {State.CREATED: NOW},
    )


@given(st.dictionaries(st.sampled_from(["outbox", "transitions", "verdict", "witness"]), st.text()))
def test_no_text_in_an_annotation_is_an_error(annotations):
    assert set(job_with(**annotations).broken) <= set(annotations)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AT, NOW),
        ("2026-11-23T13:00:00+01:00", NOW),
        ("2026-11-23T12:00:00", NOW),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("1999-12-31T23:59:59Z", None),
        ("2201-01-01T00:00:00Z", None),
        ("²026-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_times_are_read_as_utc_within_two_centuries(text, expected):
    assert read_time(text) == expected


@given(st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=-23)))))
def test_every_time_that_is_read_can_be_compared_and_added_to(moment):
    read = read_time(moment.isoformat())

    assert read is None or ((read <= NOW or read > NOW) and read + timedelta(days=36500))


RECORD = {
    "job_id": "INTP1",
    "uid": "u",
    "state": "Failed",
    "accepted_at": AT,
    "finished_at": AT,
    "removed_at": AT,
    "run_name": "r",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "Paused"},
        {"removed_at": "2026-11-23T12:00:00"},
        {"accepted_at": "0001-01-01T00:00:00+01:00"},
        {"outbox": [NOTICE | {"sequence": 3}]},
        {"removals": [{"resource": "x"}] * 65},
    ],
)
def test_a_record_out_of_bounds_is_unreadable(changes):
    assert records._parse(json.dumps(RECORD)).state is State.FAILED
    with pytest.raises(ValueError, match=r"."):
        records._parse(json.dumps(RECORD | changes))


ODD_ROWS = {
    "year 1": {"submit": "0001-01-01T00:00:00+01:00"},
    "year 9999": {"submit": "9999-12-31T23:59:59-23:00"},
    "a number": {"submit": 5},
    "a large exit status": {"submit": AT, "exitStatus": 10**40},
    "an exit status that is true": {"submit": AT, "exitStatus": True},
    "a long text": {"submit": AT, "errorReport": "x" * 3_000_000},
    "a long status": {"submit": AT, "status": ["RUNNING"] * 100_000},
    "a long id": {"submit": AT, "id": "x" * 100_000},
}


@pytest.mark.parametrize("row", ODD_ROWS.values(), ids=ODD_ROWS)
@pytest.mark.parametrize("name", ["mine", "somebody-elses-run"])
async def test_an_odd_row_of_anybody_costs_at_most_its_own_run(row, name):
    sound = {"runName": "sound", "status": "RUNNING", "submit": AT}
    rows = [{"workflow": {"runName": name, "status": "FAILED"} | row}, {"workflow": sound}]
    page = {"workflows": rows, "hasMore": False}
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=page))
    door = Seqera(settings(), transport=transport, clock=lambda: NOW, interval=0)

    found = await door.runs({"mine": NOW, "sound": NOW})

    assert "sound" in found
    if "mine" in found:
        run = found["mine"]
        assert run.exit_status is None
        assert max(len(run.error_report), len(run.raw_status), len(run.workflow_id or "")) < 20_000
    await door.close()


@pytest.mark.parametrize(
    "value", ["²", "٣", "1e9", "inf", "-1", f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"]
)
def test_a_retry_after_that_is_none_is_none(value):
    assert retry_after({"retry-after": value}) is None
