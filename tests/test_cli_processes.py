"""The command line as processes: beginning, stopping, asking a running service."""

import asyncio
import json
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from api_calls import GATED, PATIENCE, TOKENS
from cli_calls import invoke, run, running
from stage import FAST, JOB, launch_body, stage

from pyvatti import __version__
from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.world import World

BASE = JOB.lower()
LASTING = Plan(transfer_seconds=4, run_seconds=2400)


CONTEXTS = "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"KUBECONFIG": "/nowhere"}, "KUBECONFIG", id="no such kubeconfig"),
        pytest.param({"KUBECONFIG": "{folder}/kubeconfig"}, "KUBECONFIG", id="no cluster in it"),
        pytest.param({"KUBECONFIG": ""}, "KUBECONFIG", id="neither kubeconfig nor pod"),
        pytest.param(
            {"NOTIFY_SIGNING_SECRET": "whsec_dG9vIHNob3J0"},
            "NOTIFY_SIGNING_SECRET: must be whsec_ and the base64 of 24 to 64 random bytes",
            id="a signing secret that is too short",
        ),
        pytest.param({"COMPUTE_ENVIRONMENT": "moon"}, "moon", id="no such compute environment"),
        pytest.param({"PORT": "{taken}"}, "HOST, PORT: cannot listen on", id="the port is taken"),
        pytest.param({"HOST": "192.0.2.1"}, "HOST, PORT: cannot listen on", id="no such address"),
    ],
)
async def test_serve_that_cannot_begin_ends_with_2_and_one_message(tmp_path: Path, change, said):
    (tmp_path / "kubeconfig").write_text(CONTEXTS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = str(listener.getsockname()[1])
        given = {key: value.format(folder=tmp_path, taken=taken) for key, value in change.items()}
        async with World() as world:
            environment = world.environment(tmp_path / "..") | given

            code, printed, complained = await run("serve", **environment)

    messages = [line for line in complained.splitlines() if not line.startswith("{")]
    assert (code, printed) == (2, "")
    assert len(messages) == 1
    assert messages[0].startswith("pyvatti: ")
    assert said in messages[0]
    assert "Traceback" not in complained


async def test_serve_runs_until_it_is_told_to_stop(tmp_path: Path):
    async with World() as world:
        environment = world.environment(tmp_path) | FAST | {"PORT": "0"}
        async with running("serve", **environment) as process, asyncio.timeout(PATIENCE):
            assert process.stderr is not None
            port = 0
            while not port:
                line: dict[str, Any] = json.loads(await process.stderr.readline())
                port = line["port"] if line["event"] == "listening" else 0
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.get("/version")).json() == {"version": __version__}

            process.send_signal(signal.SIGTERM)
            _, rest = await process.communicate()

        events = [json.loads(line)["event"] for line in rest.decode().splitlines()]
        assert "lease released" in events
        assert process.returncode in (0, -signal.SIGTERM)


async def test_the_commands_about_jobs_ask_a_running_service():
    async with stage(LASTING, **GATED) as on:
        token = TOKENS.partition(",")[0]
        on.client.headers["Authorization"] = f"Bearer {token}"
        at = {"PYVATTI_URL": f"{on.url}/", "PYVATTI_TOKEN": f"{token}\n"}
        await on.client.post("/launch", json=launch_body())
        await on.until_state("Deployed")

        listed = await run("jobs", "list", **at)
        as_json = await run("jobs", "list", "--state", "deployed", "--output", "json", **at)
        shown = await run("jobs", "show", BASE, **at)
        log = await run("jobs", "log", JOB, "--container", "transfer", **at)
        cancelled = await run("jobs", "cancel", JOB, "--output", "json", **at)
        refused = await _aside("jobs", "list", "--token", "wrong", **at)
        unknown = await _aside("jobs", "show", "INTP1", **at)
        crooked = await _aside("jobs", "show", "../metrics", **at)

        assert listed[:2] == (0, _line(await on.show()))
        assert [job["id"] for job in json.loads(as_json[1])] == [JOB]
        assert yaml.safe_load(shown[1])["run_name"].startswith(f"intervene-dev-{BASE}-")
        assert "transferred and decrypted" in log[1]
        assert (cancelled[0], json.loads(cancelled[1])) == (0, {"id": JOB})
        assert (refused[0], refused[2]) == (1, "pyvatti: 401: token not accepted\n")
        assert (unknown[0], unknown[2]) == (1, "pyvatti: 404: INTP1 is not known\n")
        assert (crooked[0], crooked[2]) == (1, "pyvatti: 404: Not Found\n")


async def test_what_the_backend_never_took_is_told_again_by_a_command():
    async with stage("transfer_fails") as on:
        on.world.backend.known = set()
        await on.launch()
        await on.until_finished()
        refused = await _aside("jobs", "redeliver", JOB, PYVATTI_URL=on.url)
        on.world.backend.known = None

        told = await run("jobs", "redeliver", JOB, PYVATTI_URL=on.url)

        assert refused[0] == 1
        assert "503: the backend did not take failed: 404" in refused[2]
        assert told[:2] == (0, "failed     delivered    200\n")


async def _aside(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command in this process, beside the service; its output may hold the service's log."""
    return await asyncio.to_thread(invoke, *words, **environment)


def _line(job: dict[str, Any]) -> str:
    return f"{JOB:<16} {'Deployed':<10} {'live':<9} {job['accepted_at']}\n"


async def test_a_list_longer_than_a_page_is_read_to_its_end():
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            asked.append(head.split()[1])
            first = len(asked) == 1
            count = 500 if first else 100
            job = {"id": "INTP1", "state": "Failed", "live": False, "accepted_at": "today"}
            page = {"jobs": [job] * count, "continue": "next" if first else None}
            body = json.dumps(page).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        code, said, _ = await run("jobs", "list", "--limit", "1000", PYVATTI_URL=url)

    assert code == 0
    assert said.count("INTP1") == 600
    assert asked == ["/jobs?limit=500", "/jobs?continue=next&limit=500"]


async def test_the_demonstration_ends_with_0_and_proves_that_nothing_is_left():
    code, said, complained = await run("demo", "--scenario", "transfer-fails")

    assert code == 0, complained
    assert "left behind  nothing" in said
    assert said.endswith("as it must be\n")


async def test_the_sandbox_runs_until_it_is_interrupted(tmp_path: Path):
    kubeconfig = tmp_path / "kubeconfig"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        taken = await run("sandbox", "--port", port, "--kubeconfig", str(kubeconfig))
    words = ("sandbox", "--port", "0", "--kubeconfig", str(kubeconfig))
    async with running(*words) as process, asyncio.timeout(PATIENCE):
        assert process.stdout is not None
        line = b""
        while b"Ctrl-C" not in line:
            line = await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complained = await process.communicate()

    assert taken[0] == 2
    assert f"cannot listen on 127.0.0.1:{port}" in taken[2]
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert process.returncode == 0, complained
    assert b"Traceback" not in complained
