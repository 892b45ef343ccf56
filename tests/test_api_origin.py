"""What a browser may be made to send to a service without tokens, and how guesses are braked."""

from typing import Any

import httpx
import pytest
from api_calls import problem_of
from neighbour_settings import settings_for

from pyvatti.api.access import FAILURE_SECONDS, FREE_FAILURES, MOST_ADDRESSES, Brake
from pyvatti.api.origin import Addressee, own_hosts

OPEN = settings_for(api_auth="none", namespace="dev", instance="own", allowed_hosts="a.b,C")
GATED = settings_for(api_auth="token", api_tokens="a-token-long-enough", namespace="dev")
OWN = "http://hattivatti"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything with 204."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(settings: Any, path: str = "/jobs", url: str = OWN, **headers: str) -> httpx.Response:
    """Send a POST with these headers through the check."""
    transport = httpx.ASGITransport(Addressee(inner, settings))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        return await client.post(path, headers=named)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("hattivatti", 204),
        ("own", 204),
        ("own.dev.svc", 204),
        ("hattivatti:80", 204),
        ("HattiVatti", 204),
        ("hattivatti.", 204),
        ("hattivatti.dev", 204),
        ("hattivatti.dev.svc", 204),
        ("hattivatti.dev.svc.cluster.local:80", 204),
        ("localhost:8080", 204),
        ("127.0.0.1:8080", 204),
        ("10.8.0.7:8080", 204),
        ("[::1]:8080", 204),
        ("[fd00::7]", 204),
        ("a.b", 204),
        ("c", 204),
        ("c.dev.svc", 204),
        ("attacker.example", 421),
        ("attacker.example:8080", 421),
        ("hattivatti.other", 421),
        ("hattivatti.dev.svc.attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("x.a.b", 421),
        ("a.b.dev", 421),
        ("[::1", 400),
        ("[attacker.example]", 400),
        ("a/b", 400),
        ("hattivatti@attacker.example", 400),
    ],
)
async def test_without_tokens_only_names_of_its_own_are_served(host: str, status: int):
    answer = await ask(OPEN, host=host)

    assert answer.status_code == status
    if status != 204:
        problem_of(answer, status)
        assert host not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_are_answered_under_any_name(path: str):
    assert (await ask(OPEN, path, host="attacker.example")).status_code == 204
    assert (await ask(OPEN, path, host="a b")).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"origin": "http://hattivatti"}, 204),
        ({"origin": "HTTPS://Hattivatti"}, 204),
        ({"sec_fetch_site": "same-origin", "origin": "http://hattivatti"}, 204),
        ({"sec_fetch_site": "none"}, 204),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://hattivatti:8080"}, 403),
        ({"origin": "http://hattivatti.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site", "origin": "http://hattivatti"}, 403),
    ],
)
async def test_without_tokens_no_page_of_another_site_may_call(headers, status: int):
    assert (await ask(OPEN, **headers)).status_code == status


async def test_with_tokens_a_page_has_none_and_a_name_proves_nothing():
    answer = await ask(GATED, host="pipelines.example.org", origin="https://evil.example")

    assert answer.status_code == 204


def test_the_names_of_its_own_are_the_service_of_the_instance_and_what_is_allowed():
    assert own_hosts(settings_for(namespace="dev", instance="i")) == {
        "localhost",
        *("i", "i.dev", "i.dev.svc", "i.dev.svc.cluster.local"),
        *("hattivatti", "hattivatti.dev", "hattivatti.dev.svc"),
        "hattivatti.dev.svc.cluster.local",
    }


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guess(brake: Brake, address: str, times: int) -> int:
    """Try wrong tokens; give how many were looked at."""
    looked_at = 0
    for _ in range(times):
        if brake.admits(address, None):
            brake.failed(address)
            looked_at += 1
    return looked_at


def test_wrong_tokens_are_looked_at_ever_more_slowly_and_others_are_not_held_up():
    clock = Clock()
    brake = Brake(clock)

    assert guess(brake, "10.0.0.1", 1000) == FREE_FAILURES
    assert not brake.admits("10.0.0.1", 0)  # a right token tells nothing while it is braked
    assert brake.admits("10.0.0.2", 0)
    clock.now += 10 * FAILURE_SECONDS
    assert guess(brake, "10.0.0.1", 1000) == 10
    clock.now += 10_000 * FAILURE_SECONDS
    assert guess(brake, "10.0.0.1", 1000) == FREE_FAILURES


def test_a_token_that_was_right_from_an_address_stays_so():
    brake = Brake(Clock())
    assert brake.admits("10.0.0.1", 1)

    guess(brake, "10.0.0.1", 1000)

    assert brake.admits("10.0.0.1", 1)
    assert not brake.admits("10.0.0.1", 0)
    assert brake.admits("10.0.0.2", 1)


def test_a_machine_with_many_ipv6_addresses_is_one_caller():
    brake = Brake(Clock())

    assert sum(guess(brake, f"2001:db8::{number:x}", 1) for number in range(100)) == FREE_FAILURES
    assert guess(brake, "2001:db8:0:1::1", 1) == 1


def test_the_tables_of_addresses_have_an_end():
    brake = Brake(Clock())

    for number in range(MOST_ADDRESSES + 90):
        address = f"10.0.{number // 256}.{number % 256}"
        guess(brake, address, 1)
        brake.admits(address, 0)

    assert len(brake._failures) == len(brake._right) == MOST_ADDRESSES
