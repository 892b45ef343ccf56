"""A storage door and its stand-in, joined by a socket, for the tests of both.

No assertions.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from builders import INSTALLATION
from patience import PATIENCE

from pyvatti.models import Owner
from pyvatti.sandbox.storage import StorageStandIn, error_form
from pyvatti.settings import Settings
from pyvatti.storage import Patience, Storage

WORK = "intervene-dev-intp00000000044-work-7c9e6679"
RESULTS = "intervene-dev-intp00000000044-results"
JOB_ID = "INTP00000000044"
UID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
CALM = Patience(settle=0)
OTHER_UID = "550e8400-e29b-41d4-a716-446655440000"


def owner(job_uid: str = UID) -> Owner:
    """Say whose a bucket is: a Job's with this uid."""
    return Owner(installation=INSTALLATION, job_id=JOB_ID.lower(), job_uid=job_uid)


OWNER, OTHER = owner(), owner(OTHER_UID)


def build_settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "namespace": "intervene-dev",
        "api_auth": "none",
        "tower_token": "tower",
        "tower_workspace": 1,
        "globus_domain": "https://globus.example",
        "globus_client_id": "client",
        "globus_client_secret": "secret",
        "globus_scopes": "scope",
        "key_handler_token": "handler",
        "key_handler_password": "password",
        "key_handler_url": "https://keys.example",
        "gcp_project": "intervene",
        "gcp_location": "europe-west2",
        "notify_url": "https://backend.example",
        "notify_token": "notify",
    }
    return Settings(**(values | changes))


@asynccontextmanager
async def open_door(
    url: str, *, patience: Patience = CALM, **changes: Any
) -> AsyncIterator[Storage]:
    door = Storage(build_settings(storage_emulator_host=url, **changes), patience=patience)
    try:
        yield door
    finally:
        await door.close()


@asynccontextmanager
async def joined(**changes: Any) -> AsyncIterator[tuple[Storage, StorageStandIn]]:
    """Give a door and the stand-in it talks to."""
    async with StorageStandIn() as service, open_door(service.url, **changes) as door:
        yield door, service


async def create_work(door: Storage, *, owner: Owner = OWNER) -> None:
    await door.create_bucket(WORK, owner=owner, purpose="work")


def refusal(status: int, reason: str = "injected") -> str:
    """Spell a refusal as Cloud Storage does."""
    return json.dumps(error_form(status, reason, f"injected {status}"))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


ODD = {  # what is not Cloud Storage's: headers and body, to be sent with any status
    "nothing": ({}, ""),
    "text": ({"Content-Type": "text/plain"}, "404 page not found\n"),
    "a gateway's JSON": ({}, '{"message":"no Route matched with those values"}'),
    "another API's error": ({}, '{"error":{"code":404,"message":"no","status":"NOT_FOUND"}}'),
    "HTML": ({"Content-Type": "text/html"}, "<html>no</html>"),
    "HTML behind a BOM": ({"Content-Type": "text/html"}, "\ufeff<html>no</html>"),
    "HTML as JSON": ({}, "<html>no</html>"),
    "the right JSON as text": ({"Content-Type": "text/plain"}, refusal(404, "notFound")),
    "the right JSON behind a BOM": ({}, "\ufeff" + refusal(404, "notFound")),
    "another reason": ({}, refusal(404, "accountDisabled")),
    "another code": ({}, refusal(410, "notFound")),
    "no reason": ({}, '{"error":{"code":404,"message":"x","errors":[]}}'),
    "a list": ({}, "[]"),
    "deep nesting": ({}, "[" * 100_000),
    "half of it": ({}, refusal(404, "notFound")[:40]),
}


def empty_list() -> str:
    """Spell the list of a project that has no such bucket."""
    return json.dumps({"kind": "storage#buckets"})


LIST, GET, OBJECTS = r"/v1/b\?", rf"/v1/b/{WORK}\?", rf"/v1/b/{WORK}/o\?"
QUICK = Patience(pauses=(), settle=0)
WEEK = {"retentionDurationSeconds": "604800"}
GENOME = "data/jane.doe@example.org.pgen"


async def filled(door: Storage, service: StorageStandIn) -> None:
    await create_work(door)
    service.put_object(WORK, GENOME, b"acgt")


def stands(service: StorageStandIn) -> bool:
    return list(service.buckets[WORK].objects) == [GENOME] and service.recoverable() == []


def keeps(service: StorageStandIn, policy: dict[str, str] | None = None) -> None:
    """Let somebody have turned soft delete on."""
    service.buckets[WORK].properties["softDeletePolicy"] = dict(policy or WEEK)


def forge(service: StorageStandIn, path: str, status: int, body: str, **more: Any) -> None:
    method = more.pop("method", "GET")
    service.faults.add(method, path, "status", status=status, body=body, **more)
