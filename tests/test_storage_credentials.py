"""Tokens for Cloud Storage: fetched once for all callers, whose wait has one bound."""

import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from patience import PATIENCE
from storage_builders import WORK, create_work, forge, open_door, refusal, until

from pyvatti.errors import Denied, Unavailable
from pyvatti.sandbox.loopback import Loopback
from pyvatti.sandbox.storage import StorageStandIn
from pyvatti.storage import Patience, Storage

POST_BUCKET = r"/v1/b\?"
INVALID = json.dumps({"error": "invalid_grant", "error_description": "Account not found"})


class TokenEndpoint(Loopback):
    """Gives tokens as Google's does; `count` says how many it was asked for."""

    count = 0
    is_endless = False

    def routes(self):
        return (web.post("/token", self._give),)

    async def _give(self, request: web.Request) -> web.StreamResponse:
        self.count += 1
        if self.is_endless:
            answer = web.StreamResponse()
            await answer.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await answer.write(b" ")
                    await asyncio.sleep(0.05)
        token = {"access_token": f"t{self.count}", "expires_in": 3600, "token_type": "Bearer"}
        return web.json_response(token)


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


@asynccontextmanager
async def signed_in(
    private_key: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    call: float = 30.0,
) -> AsyncIterator[tuple[Storage, StorageStandIn, TokenEndpoint]]:
    """Give a door that signs in with a key file, at most `seconds` at a time."""
    async with StorageStandIn() as service, TokenEndpoint() as endpoint:
        key = {
            "type": "service_account",
            "client_email": "pyvatti@intervene.iam.gserviceaccount.com",
            "private_key": private_key,
            "token_uri": f"{endpoint.url}/token",
        }
        file = folder / "key.json"
        file.write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", service.url)
        patience = Patience(token=seconds, call=call, pauses=(), settle=0)
        async with open_door("", patience=patience) as door:
            yield door, service, endpoint


async def test_all_callers_share_one_token(private_key, tmp_path, monkeypatch):
    async with signed_in(private_key, tmp_path, monkeypatch, 60) as (door, service, endpoint):
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(door.list_buckets(f"bucket-{number}"))

        assert endpoint.count == 1
        assert service.counters == {"buckets.list": 20}


async def test_endpoint_that_hangs_is_unavailable_for_all_callers_at_once(
    private_key, tmp_path, monkeypatch
):
    async with signed_in(private_key, tmp_path, monkeypatch, 0.3) as (door, service, endpoint):
        rule = endpoint.faults.add("POST", "/token", "hang")

        async def attempt() -> str:
            with pytest.raises(Unavailable) as caught:
                await door.list_buckets("x")
            assert not isinstance(caught.value, Denied)
            return str(caught.value)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt()) for _ in range(40)]
        await until(lambda: rule.hits == 1)
        late = await attempt()  # while the thread still waits: no new wait, no new request

        assert {late, *(task.result() for task in tasks)} == {
            "no credentials in time: the token endpoint does not answer"
        }
        assert (rule.hits, endpoint.count, len(service.requests)) == (1, 0, 0)


async def test_endpoint_whose_answer_never_ends_is_asked_again(private_key, tmp_path, monkeypatch):
    async with signed_in(private_key, tmp_path, monkeypatch, 0.2, 0.2) as (door, _, endpoint):
        endpoint.is_endless = True
        with pytest.raises(Unavailable, match="no credentials in time"):
            await door.list_buckets("x")
        endpoint.is_endless = False

        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(Unavailable):
                    assert await door.list_buckets("x") == []
                    break
                await asyncio.sleep(0.05)


async def test_closing_does_not_wait_for_an_endpoint_whose_answer_never_ends(
    private_key, tmp_path, monkeypatch
):
    async with signed_in(private_key, tmp_path, monkeypatch, 0.2) as (door, _, endpoint):
        endpoint.is_endless = True
        with pytest.raises(Unavailable, match="no credentials in time"):
            await door.list_buckets("x")
        await door.close()

        # the interpreter waits for these threads before it ends
        await until(lambda: not _fetching())


def _fetching() -> bool:
    frames = sys._current_frames()
    return any(
        frame.f_code.co_name == "_fetch"
        for thread in frames
        for frame, _ in traceback.walk_stack(frames[thread])
    )


async def test_endpoint_that_is_back_is_used_at_once(private_key, tmp_path, monkeypatch):
    async with signed_in(private_key, tmp_path, monkeypatch, 60) as (door, service, endpoint):
        endpoint.faults.add("POST", "/token", "reset", count=1)

        with pytest.raises(Unavailable) as caught:
            await create_work(door)
        await create_work(door)

        assert not isinstance(caught.value, Denied)
        assert WORK in service.buckets


async def test_endpoint_that_refuses_the_key_is_denied(private_key, tmp_path, monkeypatch):
    async with signed_in(private_key, tmp_path, monkeypatch, 60) as (door, _, endpoint):
        endpoint.faults.add("POST", "/token", "status", status=400, body=INVALID)

        with pytest.raises(Denied, match="invalid_grant"):
            await create_work(door)


async def test_token_that_is_refused_is_renewed_before_the_next_call(
    private_key, tmp_path, monkeypatch
):
    async with signed_in(private_key, tmp_path, monkeypatch, 60) as (door, service, endpoint):
        body = refusal(401, "authError")
        forge(service, POST_BUCKET, 401, body, method="POST", count=1)

        with pytest.raises(Denied, match="401 authError"):
            await create_work(door)
        await create_work(door)

        assert endpoint.count == 2
        assert WORK in service.buckets


async def test_metadata_server_that_is_away_at_the_start_is_unavailable(tmp_path, monkeypatch):
    """The library takes it for no credentials at all."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr("google.auth.compute_engine._metadata.is_on_gce", lambda **_more: False)
    async with open_door("", patience=Patience(pauses=(), settle=0)) as door:
        with pytest.raises(Unavailable, match="no metadata server answers") as caught:
            await create_work(door)

    assert not isinstance(caught.value, Denied)


async def test_client_that_gives_up_waiting_leaves_the_fetching_to_others(
    private_key, tmp_path, monkeypatch
):
    async with signed_in(private_key, tmp_path, monkeypatch, 60) as (door, service, endpoint):
        rule = endpoint.faults.add("POST", "/token", "slow", seconds=0.3)

        async with asyncio.TaskGroup() as group:
            first = group.create_task(door.list_buckets("first"))
            await until(lambda: rule.hits == 1)
            second = group.create_task(door.list_buckets("second"))
            first.cancel()

        assert (second.result(), endpoint.count) == ([], 1)
        assert service.counters == {"buckets.list": 1}
