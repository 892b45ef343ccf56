"""Hostile bodies: whatever arrives is accepted as harmless or refused as a problem."""

import asyncio
import json
import re
import time
from typing import Any

import pytest
from api_calls import AS_JSON, problem_of
from hostile_bodies import bodies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stage import launch_body, stage

from pyvatti.errors import InvalidRequest
from pyvatti.launch import LaunchRequest, parse_launch

MIB = 1024 * 1024
HARMLESS = re.compile(r"[A-Za-z0-9._@+/,:' -]*")  # nothing that a shell reads as more than text
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def judged(body: bytes) -> LaunchRequest | None:
    """Parse a body; anything but a request or a named problem is a failure of the test."""
    try:
        request = parse_launch(body)
    except InvalidRequest as error:
        problems = error.problems
    else:
        again = parse_launch(request.model_dump_json())
        assert again.fingerprint() == request.fingerprint()
        return request
    assert problems
    assert all(field and 0 < len(rule) < 200 for field, rule in problems)
    return None


def texts(value: Any) -> list[str]:
    """Give all strings inside."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in texts(item)]


def test_of_10_000_random_and_mutated_bodies_only_harmless_ones_are_accepted():
    accepted = [request for body in bodies(10_000, seed=20261123) if (request := judged(body))]

    assert 500 < len(accepted) < 9_000
    for request in accepted:
        assert [text for text in texts(request.model_dump()) if not HARMLESS.fullmatch(text)] == []
        places = texts(request.globus_details.model_dump()) + texts(
            request.pipeline_param.model_dump()
        )
        assert not any(".." in text.split("/") for text in places)


async def test_of_random_bodies_over_http_none_breaks_the_service():
    async with stage("slow", MAX_CONCURRENT_JOBS="1") as on:
        answers = [
            await on.client.post("/launch", content=body, headers=AS_JSON)
            for body in bodies(250, seed=513)
        ]

        for answer in answers:
            if answer.status_code != 201:
                problem_of(answer, answer.status_code)
        assert [answer.text for answer in answers if answer.status_code >= 500] == []
        assert {answer.status_code for answer in answers} == {201, 409, 422}
        assert (await on.client.get("/healthz")).status_code == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_no_json_at_all_breaks_the_reading(value: Any):
    judged(json.dumps(value).encode())


FIELDS = [
    ("pipeline_param", "id"),
    ("pipeline_param", "target_genomes", 0, "sampleset"),
    ("pipeline_param", "target_genomes", 0, "chrom"),
    ("pipeline_param", "target_genomes", 0, "geno"),
    ("pipeline_param", "nxf_params_file", "trait_efo"),
    ("globus_details", "dir_path_on_guest_collection"),
    ("globus_details", "files", 0, "filename"),
    ("globus_details", "files", 0, "size"),
    ("secret_key_details", "secret_id"),
    ("secret_key_details", "secret_id_version"),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), st.text() | st.integers() | JSON)
def test_any_value_in_any_field_is_harmless_or_refused(path, value):
    body = launch_body()
    holder: Any = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value

    request = judged(json.dumps(body).encode())

    if request is not None:
        assert all(HARMLESS.fullmatch(text) for text in texts(request.model_dump()))


def padded(path: tuple[Any, ...], value: str) -> bytes:
    """Put raw JSON in place of a field and fill up to about 1 MiB."""
    body: Any = launch_body()
    holder = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = "@@@"
    return json.dumps(body).replace('"@@@"', value).encode()


LARGE = [
    pytest.param(b"[" * MIB, id="1 MiB of opening brackets"),
    pytest.param(b'{"a":' * (MIB // 5), id="objects nested 200,000 deep"),
    pytest.param(b"[" + b"{}," * (MIB // 3 - 2) + b"{}]", id="350,000 objects"),
    pytest.param(b'{"a":' + b"9" * (MIB - 10) + b"}", id="a number of 1 MiB"),
    pytest.param(b'{"a":0.' + b"1" * (MIB - 20) + b"}", id="a fraction of 1 MiB"),
    pytest.param(b'{"a":1e' + b"9" * 1000 + b"}", id="an exponent of 1,000 digits"),
    pytest.param(
        b"{" + b",".join(b'"%d":0' % number for number in range(90_000)) + b"}", id="90,000 keys"
    ),
    pytest.param(padded(FIELDS[6][:2], f"[{'1,' * 500_000}1]"), id="500,000 files"),
    pytest.param(padded(FIELDS[1][:2], f"[{'{},' * 330_000}{{}}]"), id="330,000 sets of genomes"),
    pytest.param(padded(FIELDS[1], f'"{"a" * 1_000_000}"'), id="a sampleset of 1 MB"),
    pytest.param(padded(FIELDS[4], f'"{"EFO_1," * 150_000}EFO_1"'), id="150,000 times one trait"),
    pytest.param(padded(FIELDS[4], f'"{"a_" * 500_000}"'), id="nearly a trait of 1 MB"),
    pytest.param(padded(FIELDS[5], f'"{"a/" * 500_000}"'), id="a folder of 500,000 levels"),
]


@pytest.mark.parametrize("body", LARGE)
def test_a_large_body_is_refused_without_holding_the_others_up(body: bytes):
    began = time.process_time()

    with pytest.raises(InvalidRequest):
        parse_launch(body)

    assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", ["pgs_id", "pgp_id"])
def test_a_list_of_scores_that_repeats_itself_is_bounded(kind: str):
    body = launch_body()
    scores = {kind: ",".join([f"{kind[:3].upper()}000001"] * 100_000)}
    body["pipeline_param"]["nxf_params_file"] = {
        "format": "json",
        "target_build": "GRCh38",
        **scores,
    }
    with pytest.raises(InvalidRequest, match="at most 8192 characters"):
        parse_launch(json.dumps(body))


async def test_large_bodies_from_many_callers_leave_room_for_a_launch():
    async with stage("slow") as on:
        async with asyncio.TaskGroup() as group:
            large = [
                group.create_task(
                    on.client.post("/launch", content=LARGE[2].values[0], headers=AS_JSON)
                )
                for _ in range(10)
            ]
            await on.launch()

        assert {call.result().status_code for call in large} == {422}
