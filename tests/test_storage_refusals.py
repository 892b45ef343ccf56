"""What each status makes of each call, in one table: the job waits, it fails, or a person is told.

An error that may pass makes the step wait. One that cannot fails the job before it runs, and calls
a person afterwards (test_actor's): so `no` stands for both.
"""

import functools
from collections.abc import Awaitable, Callable

import pytest
from storage_builders import (
    GET,
    LIST,
    OBJECTS,
    OWNER,
    WORK,
    create_work,
    empty_list,
    filled,
    forge,
    joined,
    keeps,
    refusal,
)

from pyvatti.errors import NotOurs, PermanentError, TransientError
from pyvatti.sandbox.storage import StorageStandIn
from pyvatti.storage import Patience, Storage

AT_ONCE = Patience(pauses=(), settle=0)
WAIT, NO, DONE, NOT_OURS = "wait", "no", "done", "not ours"
# insert, list of buckets, get, patch, list of objects, part of a batch, delete of a bucket
COLUMNS = ("insert", "list", "get", "patch", "objects", "part", "delete")
TABLE = {
    400: (NO, NO, NO, NO, NO, NO, NO),
    401: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    403: (WAIT, WAIT, NOT_OURS, NO, WAIT, NO, NO),
    404: (NO, NO, DONE, WAIT, WAIT, WAIT, WAIT),  # what is not there, and then is
    405: (NO, NO, NO, NO, NO, NO, NO),
    407: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    408: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    409: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    410: (NO, NO, NO, NO, NO, NO, NO),
    411: (NO, NO, NO, NO, NO, NO, NO),
    412: (NO, WAIT, WAIT, NO, WAIT, NO, NO),
    413: (NO, NO, NO, NO, NO, NO, NO),
    416: (NO, NO, NO, NO, NO, NO, NO),
    421: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    425: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    429: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    451: (NO, NO, NO, NO, NO, NO, NO),
    500: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
    503: (WAIT, WAIT, WAIT, WAIT, WAIT, WAIT, WAIT),
}
PATHS = {
    "insert": ("POST", LIST),
    "list": ("GET", LIST),
    "get": ("GET", GET),
    "patch": ("PATCH", GET),
    "objects": ("GET", OBJECTS),
    "delete": ("DELETE", GET),
}


def refuse(service: StorageStandIn, call: str, status: int) -> None:
    body = refusal(status, "notFound" if status == 404 else "injected")
    if call == "part":
        service.fail_parts(status, count=9)
        return
    method, path = PATHS[call]
    forge(service, path, status, body, method=method)
    if call == "get":
        forge(service, LIST, 200, empty_list())  # only then is asked whose the name is


async def outcome(action: Callable[[], Awaitable[object]]) -> tuple[str, str]:
    try:
        await action()
    except NotOurs as error:
        return NOT_OURS, str(error)
    except PermanentError as error:
        return NO, str(error)
    except TransientError as error:
        return WAIT, str(error)
    return DONE, ""


async def met(door: Storage, service: StorageStandIn, call: str, status: int) -> tuple[str, str]:
    service.faults.clear()
    service.clear_part_faults()
    service.buckets.clear()
    service.soft_deleted.clear()
    if call == "insert":
        refuse(service, call, status)
        return await outcome(functools.partial(create_work, door))
    await filled(door, service)
    if call == "patch":
        keeps(service)
    refuse(service, call, status)
    return await outcome(functools.partial(door.delete_bucket, WORK, owner=OWNER))


@pytest.mark.parametrize("call", COLUMNS)
async def test_a_refusal_makes_the_step_wait_or_end(call: str):
    expected = {status: row[COLUMNS.index(call)] for status, row in TABLE.items()}
    async with joined(patience=AT_ONCE) as (door, service):
        found = {status: await met(door, service, call, status) for status in TABLE}

    assert {status: kind for status, (kind, _) in found.items()} == expected


@pytest.mark.parametrize("call", ["insert", "patch", "delete"])
async def test_an_organisations_policy_is_told_in_googles_words(call: str):
    async with joined(patience=AT_ONCE) as (door, service):
        _, said = await met(door, service, call, 412)

    assert "412 injected: injected 412" in said


async def test_a_409_for_a_patch_and_what_goes_meanwhile_are_read_again():
    async with joined(patience=AT_ONCE) as (door, service):
        for status in (404, 409):
            assert (await met(door, service, "patch", status))[0] == WAIT
            service.faults.clear()
            await door.delete_bucket(WORK, owner=OWNER)

        assert WORK not in service.buckets
