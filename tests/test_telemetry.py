"""Logs: their format, the job on every line, and no secret in the whole log of whole stories."""

import asyncio
import base64
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from api_calls import AS_JSON, BEARER, GATED, PATIENCE, TOKENS
from neighbour_settings import SIGNING_SECRET
from pydantic import SecretStr
from stage import FAST, JOB, Stage, launch_body, stage

from pyvatti.errors import trim
from pyvatti.sandbox.driver_plans import PLANS, by_job
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.telemetry import Metrics, metrics

ROOT = Path(__file__).parent.parent
OTHER, THIRD = "INTP00000000514", "INTP00000000515"
EVENT = re.compile(r"[a-z][A-Za-z0-9 ,:'()-]*")

LOGGING = """
import logging, structlog, sys
from pyvatti.settings import Settings
from pyvatti.telemetry import configure_logging

configure_logging(Settings.model_construct(log_format=sys.argv[1], log_level="info"))
log = structlog.get_logger("some.room")

def break_down():
    local = "secret-of-a-local-variable"
    raise ValueError("broken")

log.info("job released", job="intp1", seconds=2)
log.debug("too much")
logging.getLogger("uvicorn.error").warning("from %s", "uvicorn", extra={"color_message": "x"})
logging.getLogger("httpx").info("every request")
try:
    break_down()
except ValueError:
    log.exception("it broke")
"""


async def logged(format_: str, *, on_terminal: bool = False) -> str:
    """Run a program that logs; give what it wrote to standard error."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOGGING, format_), stderr=theirs, stdout=asyncio.subprocess.PIPE
    )
    os.close(theirs)
    said, _ = await process.communicate()
    assert (process.returncode, said) == (0, b"")
    try:
        return os.read(ours, 1_000_000).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


async def test_away_from_a_terminal_every_line_is_json():
    lines = [json.loads(line) for line in (await logged("auto")).splitlines()]

    released, uvicorn, broke = lines
    assert released.items() >= {"event": "job released", "job": "intp1", "seconds": 2}.items()
    assert released.items() >= {"level": "info", "logger": "some.room"}.items()
    assert list(released)[:5] == ["timestamp", "severity", "level", "event", "job"]
    assert [line["severity"] for line in lines] == ["INFO", "WARNING", "ERROR"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", released["timestamp"])
    assert (uvicorn["event"], uvicorn["level"]) == ("from uvicorn", "warning")
    assert "color_message" not in uvicorn
    assert "ValueError: broken" in broke["exception"]


async def test_on_a_terminal_lines_are_for_people():
    text = await logged("auto", on_terminal=True)

    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert re.search(r"\[info +\] job released .*job=intp1 seconds=2", plain)
    assert "from uvicorn" in plain
    assert "every request" not in plain
    assert not plain.startswith("{")


@pytest.mark.parametrize("format_", ["json", "console"])
async def test_a_traceback_shows_no_local_variables(format_: str):
    text = await logged(format_)

    assert "ValueError: broken" in text
    assert "in break_down" in text
    assert "secret-of-a-local-variable" not in text


def test_every_metric_is_explained_to_operators():
    text = (ROOT / "docs" / "operations.md").read_text()
    families = Metrics().registry.collect()
    ours = [item for item in families if item.name.startswith("pyvatti_")]

    names = {item.name + ("_total" if item.type == "counter" else "") for item in ours}

    assert len(names) > 20
    assert [name for name in sorted(names) if f"`{name}" not in text] == []


def test_what_alerts_watch_is_there_before_it_is_counted():
    text = Metrics().page()[0].decode()

    for series in (
        'pyvatti_notices_total{delivery="dead",event="failed"} 0.0',
        'pyvatti_notices_total{delivery="undelivered",event="succeeded"} 0.0',
        'pyvatti_swept_total{kind="bucket"} 0.0',
        'pyvatti_launches_total{answer="503"} 0.0',
        'pyvatti_neighbour_errors_total{error="Unavailable",neighbour="storage"} 0.0',
        'pyvatti_neighbour_call_seconds_count{neighbour="seqera"} 0.0',
    ):
        assert f"\n{series}\n" in text


async def test_calls_are_counted_by_neighbour_and_errors_by_kind():
    def counts() -> dict[str, float]:
        text = metrics.page()[0].decode()
        lines = [
            line.rpartition(" ") for line in text.splitlines() if line.startswith("pyvatti_neigh")
        ]
        return {name: float(value) for name, _, value in lines}

    before = counts()
    async with stage("match_rate_too_low") as on:
        on.world.seqera.faults.add("*", ".", "status", status=401, count=1)
        on.world.backend.faults.add("*", ".", "html", count=1)
        on.world.storage.faults.add("POST", ".", "status", status=503, count=1)
        await on.launch()
        await on.until_finished()
    grown = {name for name, value in counts().items() if value > before.get(name, 0)}

    for neighbour in ("kubernetes", "seqera", "storage", "backend"):
        assert f'pyvatti_neighbour_call_seconds_count{{neighbour="{neighbour}"}}' in grown
    for error, neighbour in (
        *(("Denied", "seqera"), ("Unavailable", "backend"), ("Unavailable", "storage")),
    ):
        name = f'pyvatti_neighbour_errors_total{{error="{error}",neighbour="{neighbour}"}}'
        assert name in grown


async def test_data_that_is_proven_gone_does_not_count_while_the_backend_is_away():
    async with stage("transfer_fails") as on:
        on.world.backend.down = True
        on.world.storage.faults.add("DELETE", ".", "status", status=503)
        await on.launch()
        await on.until_state("Failed")
        await until_value(on, "pyvatti_oldest_undeleted_seconds", lambda age: age > 0)

        on.world.storage.faults.clear()

        await until_value(on, "pyvatti_oldest_undeleted_seconds", lambda age: age == 0)
        assert (await on.show())["waiting"]["on"] == "backend"
        assert (await on.show())["live"]


async def until_value(on: Stage, name: str, fits: Callable[[float], bool]) -> None:
    """Wait until a gauge without labels has a value that fits."""
    async with asyncio.timeout(PATIENCE):
        while True:
            text = (await on.client.get("/metrics")).text
            if fits(float(text.partition(f"\n{name} ")[2].partition("\n")[0])):
                return
            await asyncio.sleep(0.2)


@dataclass
class Story:
    """A running service in a process of its own, all it logged and all it answered."""

    client: httpx.AsyncClient
    log: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call a route and keep the answer."""
        answer = await self.client.request(method, path, **({"headers": BEARER} | more))
        self.answers.append(f"{answer.headers} {answer.text}")
        return answer

    async def until_finished(self, job_id: str) -> None:
        """Wait until a job is cleaned up."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (await self.ask("GET", f"/jobs/{job_id}")).json().get("live", True):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            recent = "\n".join([*self.log[-20:], *self.answers[-1:]])
            raise AssertionError(f"{job_id} never finished:\n{recent}") from None


@asynccontextmanager
async def telling(environment: dict[str, str]) -> AsyncIterator[Story]:
    """Run `pyvatti serve` and read its log to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pyvatti", "serve"),
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    story = Story(httpx.AsyncClient(timeout=PATIENCE))
    ready = asyncio.Event()

    async def read(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            story.log.append(line.decode().rstrip())
            event = json.loads(line)
            if event["event"] == "listening":
                story.client.base_url = httpx.URL(f"http://127.0.0.1:{event['port']}")
            if event["event"] == "leadership gained":
                ready.set()

    async with story.client, asyncio.TaskGroup() as group:
        group.create_task(read(process.stderr))
        try:
            async with asyncio.timeout(PATIENCE):
                await ready.wait()
            yield story
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def secrets_of(environment: dict[str, str]) -> set[str]:
    """Give every secret the service was configured with, also as base64."""
    settings = Settings.model_validate({key.lower(): environment[key] for key in environment})
    found = {value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)}
    found |= set(TOKENS.split(","))
    found.add(SIGNING_SECRET.removeprefix("whsec_"))
    kubeconfig = yaml.safe_load(Path(environment["KUBECONFIG"]).read_text())
    found |= {user["user"]["token"] for user in kubeconfig["users"]}
    return found | {base64.b64encode(value.encode()).decode() for value in found}


def test_a_credential_that_a_gateway_repeats_is_left_out_of_every_foreign_text():
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"

    assert trim(f"502: Authorization: Bearer {token}") == "502: Authorization: Bearer (redacted)"
    assert token[:9] not in trim("x" * 220 + f" basic {token}")
    assert trim("no Basic authentication, invalid bearer token") == (
        "no Basic authentication, invalid bearer token"
    )


async def test_whole_stories_at_level_debug_tell_no_secret_and_name_the_job_on_every_line(tmp_path):
    plans = by_job(
        {OTHER.lower(): PLANS["slow"], THIRD.lower(): PLANS["success"]},
        PLANS["match_rate_too_low"],
    )
    async with World(plans=plans, speed=20, rate_limit=False) as world:
        environment = world.environment(tmp_path) | FAST | GATED
        environment |= {"PORT": "0", "LOG_LEVEL": "debug"}
        environment |= {"NOTIFY_SIGNING_SECRET": SIGNING_SECRET}
        secrets = secrets_of(environment)
        kubeconfig = yaml.safe_load(Path(environment["KUBECONFIG"]).read_text())
        for neighbour, credential in (
            (world.seqera, f"Bearer {world.seqera.token}"),
            (world.backend, f"Basic {world.backend.token}"),
            (world.kube, f"Bearer {kubeconfig['users'][0]['user']['token']}"),
        ):
            for body in (f"you sent {credential}", json.dumps({"message": credential})):
                neighbour.faults.add("*", ".*", "status", status=500, body=body, count=1)
        async with telling(environment) as story:
            await _tell(story, world)

    log = "\n".join(story.log)
    lines = [json.loads(line) for line in story.log]
    assert [text for text in secrets if text in log] == []
    assert [text for text in secrets if any(text in answer for answer in story.answers)] == []
    assert "user@example.org" not in log
    assert {"info", "warning"} <= {line["level"] for line in lines}
    ours = [line for line in lines if line["logger"].startswith("pyvatti")]
    assert [line["event"] for line in ours if not EVENT.fullmatch(line["event"])] == []
    for job_id in (JOB, OTHER, THIRD):
        about = [line for line in lines if job_id.lower() in json.dumps(line).lower()]
        assert "request answered" in {line["event"] for line in about}
        assert len(about) > 5
        assert [line for line in about if line.get("job") != job_id.lower()] == []


async def _tell(story: Story, world: World) -> None:
    """Let the service live through launches, refusals, a failure, a cancellation, an outage."""
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKENS}"}):
        assert (await story.ask("GET", "/jobs", headers=wrong)).status_code == 401
    await story.ask("POST", "/launch", content=b"{", headers=AS_JSON)
    body = launch_body()
    body["globus_details"]["files"][0]["filename"] = "$(private)"
    assert (await story.ask("POST", "/launch", json=body)).status_code == 422
    async with asyncio.timeout(PATIENCE):
        for job_id in (JOB, OTHER, THIRD):
            while (await _launch(story, job_id)).status_code != 201:
                await asyncio.sleep(0.1)
    await story.ask("POST", "/launch?dry_run=true", json=launch_body("INTP1"))
    world.storage.faults.add("*", ".*", "status", status=503, count=2)
    await story.ask("DELETE", f"/jobs/{OTHER}")
    for job_id in (JOB, OTHER, THIRD):
        await story.until_finished(job_id)
    await story.ask("POST", "/launch", json=launch_body())
    await story.ask("POST", f"/jobs/{OTHER}/redeliver")
    for path in ("/jobs", f"/jobs/{JOB}", f"/jobs/{OTHER}/log", "/metrics", "/docs", "/nope"):
        await story.ask("GET", path)


async def _launch(story: Story, job_id: str) -> httpx.Response:
    return await story.ask("POST", "/launch", json=launch_body(job_id))
