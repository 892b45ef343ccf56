"""The command line: its texts, exit codes and output, first without and then with a service."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from api_calls import GATED, PATIENCE, TOKENS
from stage import FAST, JOB, PAYLOADS, launch_body, stage
from typer.testing import CliRunner

from pyvatti import __version__
from pyvatti.cli import app
from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.world import World

BASE = JOB.lower()
GOOD = str(PAYLOADS / "launch-ok-trait-pfile.json")
BAD = str(PAYLOADS / "launch-bad-sampleset-injection.json")
README = Path(__file__).parent.parent / "README.md"
LASTING = Plan(transfer_seconds=4, run_seconds=2400)
SECRET = "configured-secret"
SETTINGS = {
    "NAMESPACE": "intervene-dev",
    "API_AUTH": "none",
    "TOWER_TOKEN": SECRET,
    "TOWER_WORKSPACE": "7",
    "GLOBUS_DOMAIN": "https://globus.example.org",
    "GLOBUS_CLIENT_ID": "client",
    "GLOBUS_CLIENT_SECRET": SECRET,
    "GLOBUS_SCOPES": "scope",
    "KEY_HANDLER_TOKEN": SECRET,
    "KEY_HANDLER_PASSWORD": SECRET,
    "KEY_HANDLER_URL": "https://keys.example.org",
    "GCP_PROJECT": "project",
    "GCP_LOCATION": "europe-west2",
    "NOTIFY_URL": "https://backend.example.org",
    "NOTIFY_TOKEN": SECRET,
}
COMMANDS = [
    [],
    ["serve"],
    ["demo"],
    ["sandbox"],
    ["settings"],
    ["validate"],
    ["render"],
    ["jobs"],
    *(["jobs", name] for name in ("list", "show", "cancel", "log")),
]


def invoke(*words: str, given: bytes | None = None, **environment: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    result = CliRunner(env=environment).invoke(app, list(words), input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


async def run(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command in a process of its own: exit code, standard output, standard error."""
    async with running(*words, **environment) as process, asyncio.timeout(60):
        said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


@asynccontextmanager
async def running(*words: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command in a process of its own, which is ended at the latest with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pyvatti", *words),
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "pyvatti")
def test_every_command_explains_itself_in_plain_text(words: list[str]):
    code, said, _ = invoke(*words, "--help")

    assert code == 0
    assert said.startswith("Usage: ")
    assert said.isascii()
    assert "\x1b" not in said


def test_the_list_of_commands_tells_each_in_a_whole_sentence():
    _, said, _ = invoke("--help")

    lines = said[said.index("Commands:") :].splitlines()[1:]
    assert len(lines) == 7
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("words", [[], ["jobs"]])
def test_without_a_command_the_help_is_shown_and_the_use_was_wrong(words: list[str]):
    code, said, complained = invoke(*words)

    assert code == 2
    assert "Commands:" in said + complained


@pytest.mark.parametrize(
    "words",
    [
        ["explode"],
        ["jobs", "explode"],
        ["validate"],
        ["validate", "a", "b"],
        ["validate", GOOD, "--output", "xml"],
        ["demo", "--scenario", "peace"],
        ["sandbox", "--port", "70000"],
        ["jobs", "list", "--limit", "0"],
        ["jobs", "list", "--state", "Lost"],
        ["jobs", "log", JOB, "--container", "sidecar"],
    ],
    ids=" ".join,
)
def test_a_wrong_use_ends_with_2(words: list[str]):
    code, said, complained = invoke(*words)

    assert (code, said) == (2, "")
    assert "Traceback" not in complained


def test_the_version_is_told():
    assert invoke("--version") == (0, f"{__version__}\n", "")


def test_the_table_of_settings_is_that_of_the_readme():
    _, table, _ = invoke("settings")
    _, listed, _ = invoke("settings", "--output", "json")

    text = README.read_text()
    shown = text[text.index("<!-- settings -->\n") : text.index("<!-- /settings -->")]
    assert shown == f"<!-- settings -->\n{table}"
    assert all(row["meaning"] for row in json.loads(listed))


def test_a_valid_request_ends_with_0():
    assert invoke("validate", GOOD) == (0, f"{JOB} is valid\n", "")
    assert invoke("validate", "-", given=Path(GOOD).read_bytes())[0] == 0
    code, said, _ = invoke("validate", GOOD, "--output", "json")
    assert (code, json.loads(said)["pipeline_param"]["id"]) == (0, JOB)


def test_a_request_that_breaks_a_rule_ends_with_1_and_names_field_and_rule():
    code, said, complained = invoke("validate", BAD)

    assert (code, said) == (1, "")
    assert complained.startswith("pipeline_param.target_genomes.0.sampleset: must begin with")
    code, said, complained = invoke("validate", BAD, "--output", "json")
    assert (code, complained) == (1, "")
    assert json.loads(said)[0].keys() == {"field", "rule"}
    assert invoke("validate", "-", given=b"\xff")[0] == 1
    assert invoke("validate", "-", given=b"")[0] == 1


@pytest.mark.parametrize("path", ["/nowhere/at/all.json", "/"])
def test_a_file_that_cannot_be_read_ends_with_2_and_is_named(path: str):
    code, said, complained = invoke("validate", path)

    assert (code, said) == (2, "")
    assert complained.startswith(f"pyvatti: {path}: ")
    assert complained.count("\n") == 1


def manifests_in(text: str) -> list[tuple[str, str]]:
    return [(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(text)]


EVERYTHING = [("Job", BASE), ("Secret", BASE), ("Secret", f"{BASE}-transfer")]


def test_what_is_rendered_is_redacted_unless_asked_otherwise():
    code, said, _ = invoke("render", GOOD, **SETTINGS)
    _, as_json, _ = invoke("render", GOOD, "--output", "json", **SETTINGS)
    _, open_text, _ = invoke("render", "-", "--show-secrets", given=_bytes(GOOD), **SETTINGS)

    assert code == 0
    assert manifests_in(said) == manifests_in(open_text) == EVERYTHING
    assert json.loads(as_json) == list(yaml.safe_load_all(said))
    assert "(redacted)" in said
    assert "example.org/Sample-Set" not in said
    opened = [item for item in yaml.safe_load_all(open_text) if item["kind"] == "Secret"]
    assert SECRET not in said
    assert any("(redacted)" not in str(item) for item in opened)


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("output", ["text", "json"])
def test_rendering_to_a_folder_writes_one_private_file_an_object(tmp_path: Path, output: str):
    folder = tmp_path / "new" / "folder"

    code, said, _ = invoke("render", GOOD, "-o", str(folder), "--output", output, **SETTINGS)

    ending = "json" if output == "json" else "yaml"
    names = [f"{kind.lower()}-{name}.{ending}" for kind, name in EVERYTHING]
    assert code == 0
    assert said.splitlines() == [str(folder / name) for name in names]
    for path, expected in zip((folder / name for name in names), EVERYTHING, strict=True):
        assert manifests_in(path.read_text()) == [expected]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rendering_that_cannot_be_done_says_why(tmp_path: Path):
    (tmp_path / "taken").touch()

    unset = invoke("render", GOOD)
    refused = invoke("render", BAD, **SETTINGS)
    unwritable = invoke("render", GOOD, "-o", str(tmp_path / "taken"), **SETTINGS)

    assert unset[0] == 2
    assert "NAMESPACE: Field required" in unset[2]
    assert refused[0] == 1
    assert unwritable[0] == 2
    assert "taken: File exists" in unwritable[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"API_AUTH": ""}, "API_AUTH: Field required", id="API_AUTH empty"),
        pytest.param({"API_AUTH": "off"}, "API_AUTH: Input should be", id="API_AUTH off"),
        pytest.param({"API_AUTH": "token"}, "API_TOKENS must name", id="no tokens"),
        pytest.param({"TOWER_TOKEN": ""}, "TOWER_TOKEN: Field required", id="a secret empty"),
        pytest.param({"PORT": "http"}, "PORT: Input should be a valid integer", id="a bad port"),
        pytest.param({"POLL_INTERVAL": "soon"}, "POLL_INTERVAL: ", id="a bad duration"),
        pytest.param(
            {"NAMESPACE": "", "GCP_PROJECT": ""},
            "NAMESPACE: Field required; GCP_",
            id="two missing",
        ),
    ],
)
def test_serve_without_a_good_setting_ends_with_2_and_names_it(change: dict[str, str], said: str):
    code, printed, complained = invoke("serve", **(SETTINGS | change))

    assert (code, printed) == (2, "")
    assert complained.startswith(f"pyvatti: {said}") or f" {said}" in complained
    assert complained.count("\n") == 1
    assert SECRET not in complained


CONTEXTS = "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"KUBECONFIG": "/nowhere"}, "KUBECONFIG", id="no such kubeconfig"),
        pytest.param({"KUBECONFIG": "{folder}/kubeconfig"}, "KUBECONFIG", id="no cluster in it"),
        pytest.param({"KUBECONFIG": ""}, "KUBECONFIG", id="neither kubeconfig nor pod"),
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
        assert yaml.safe_load(shown[1])["run_name"] == f"intervene-dev-{BASE}"
        assert "transferred and decrypted" in log[1]
        assert (cancelled[0], json.loads(cancelled[1])) == (0, {"id": JOB})
        assert (refused[0], refused[2]) == (1, "pyvatti: 401: token not accepted\n")
        assert (unknown[0], unknown[2]) == (1, "pyvatti: 404: INTP1 is not known\n")
        assert (crooked[0], crooked[2]) == (1, "pyvatti: 404: Not Found\n")


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


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://nowhere.invalid", "nonsense", "http://[::1", ""]
)
def test_a_service_that_cannot_be_reached_ends_with_3(url: str):
    code, said, complained = invoke("jobs", "show", JOB, "--url", url)

    assert (code, said) == (3, "")
    assert complained.startswith(f"pyvatti: {url}: ")
    assert complained.count("\n") == 1


def test_a_token_that_fits_no_header_is_not_repeated():
    for token in ("secret\ntoken", "secret\x00token", "sécret"):
        code, said, complained = invoke(
            "jobs", "list", "--token", token, "--url", "http://127.0.0.1:1"
        )

        assert (code, said) == (2, "")
        assert "cret" not in complained


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
