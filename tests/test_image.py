"""The images: what their build files promise, and what a built image really does.

Tests of the built image run once `make image` has left one; they say so when they do not.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import PATIENCE

from pyvatti import __version__
from pyvatti.demo import HURRY, JOB_ID, REQUEST
from pyvatti.sandbox.world import World

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
DRIVER = ROOT / "driver"
TOOL = ROOT / ".ci" / "image"
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-build.lock"]
RUN_SECONDS = 120


def instructions(file: Path) -> list[str]:
    """Give each instruction on one line, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines() if line]


def last_stage(file: Path) -> list[str]:
    lines = instructions(file)
    start = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return lines[start:]


@pytest.mark.parametrize("file", [DOCKERFILE, DRIVER / "Dockerfile"], ids=["service", "driver"])
def test_linter_finds_nothing(file: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")

    done = subprocess.run(
        [program, file], capture_output=True, text=True, check=False, timeout=PATIENCE
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("file", [DOCKERFILE, DRIVER / "Dockerfile"], ids=["service", "driver"])
def test_image_runs_as_a_numeric_user_that_is_not_root_on_a_replaceable_base(file: Path) -> None:
    stage = last_stage(file)
    users = [line.split()[1] for line in stage if line.startswith("USER ")]

    assert users[-1] == "65532:65532"
    assert stage[0] == "FROM ${BASE}"
    assert not [line for line in stage if line.startswith("HEALTHCHECK")]
    assert instructions(file)[0].startswith("ARG BASE=docker.io/")


def test_image_carries_the_version_and_the_labels_of_the_standard() -> None:
    stage = "\n".join(last_stage(DOCKERFILE))

    assert f"ARG VERSION={__version__}" in stage
    for key in ("title", "description", "source", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{key}=" in stage


def test_every_dependency_of_the_image_is_pinned_by_hash_and_names_no_index() -> None:
    for lock in LOCKS:
        text = lock.read_text()
        pins = re.findall(
            r"^([a-z0-9.-]+)==\S+(?: ; [^\\]+)? \\\n((?:    --hash=sha256:.*\n?)+)",
            text,
            re.MULTILINE,
        )
        names = re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE)
        assert sorted(name for name, _ in pins) == sorted(names), lock.name
        assert "://" not in text
        assert "--index" not in text


def test_installation_checks_every_hash() -> None:
    installs = [line for line in instructions(DOCKERFILE) if "install" in line]

    assert [line for line in installs if line.count("--require-hashes") == 2]
    assert [line for line in installs if "--no-index /wheel" in line]


def test_build_context_holds_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        word
        for line in instructions(DOCKERFILE)
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }

    assert lines[1] == "*"
    assert {line[1:].rstrip("/") for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_wheel_holds_every_template(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("pyvatti/templates/")}
    templates = ROOT / "templates"
    assert inside == {
        f"pyvatti/templates/{path.relative_to(templates)}"
        for path in templates.rglob("*")
        if path.is_file()
    }


def image(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TOOL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
        **options,
    )


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    """Give the configuration of the built image."""
    done = image("inspect")
    if done.returncode:
        pytest.skip("no image is built here: make image")
    (configuration,) = json.loads(done.stdout)
    found: dict[str, Any] = configuration
    return found


def test_built_image_is_of_this_version_and_not_root(built: dict[str, Any]) -> None:
    config = built["Config"]

    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert (config["Entrypoint"], config["Cmd"]) == (["pyvatti"], ["serve"])


@pytest.mark.usefixtures("built")
def test_built_image_has_no_build_tools_and_no_caches() -> None:
    script = (
        "import importlib.util, os, sys, pathlib, pyvatti;"
        "print([n for n in ('pip', 'setuptools', 'wheel', 'hatchling', 'ensurepip')"
        " if importlib.util.find_spec(n)], os.getuid(),"
        " (pathlib.Path(pyvatti.__file__).parent / 'templates' / 'job.yaml.j2').is_file(),"
        " [str(p) for p in pathlib.Path('/').glob('root/.cache/*')])"
    )

    done = image("run", "-c", script, env={**os.environ, "RUN_OPTIONS": "--entrypoint python"})

    assert done.stdout.strip() == "[] 65532 True []", done.stderr


@pytest.mark.usefixtures("built")
def test_built_image_without_settings_names_them_and_ends_with_2() -> None:
    done = image("run", "serve")

    assert done.returncode == 2
    assert "NAMESPACE" in done.stderr
    assert "TOWER_TOKEN" in done.stderr


@pytest.mark.usefixtures("built")
def test_built_image_does_the_job_of_the_demo_with_a_read_only_root() -> None:
    done = image("run", "demo")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left behind  nothing" in done.stdout


@pytest.mark.usefixtures("built")
def test_bill_of_materials_names_every_locked_package_that_is_inside(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"

    assert image("sbom", str(first)).returncode == 0
    assert image("sbom", str(second)).returncode == 0

    assert first.read_bytes() == second.read_bytes()
    bill = json.loads(first.read_text())
    names = {part["name"] for part in bill["components"]}
    assert {"pyvatti", "fastapi", "kubernetes-asyncio", "python"} <= names
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(references) == len(set(references))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def until_answer(client: httpx.AsyncClient, path: str, word: str) -> None:
    """Ask until the answer is 200 and holds the word."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(path)
                if answer.status_code == 200 and word in answer.text:
                    return
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("built")
async def test_built_image_serves_and_runs_a_job_in_the_sandbox_world(tmp_path: Path) -> None:
    port = free_port()
    async with World(speed=10, rate_limit=False) as world:
        given = {**world.environment(tmp_path), **HURRY, "PORT": port, "BUCKET_INTERVAL": "0.1"}
        (tmp_path / "env").write_text("".join(f"{key}={value}\n" for key, value in given.items()))
        tmp_path.chmod(0o755)
        Path(given["KUBECONFIG"]).chmod(0o644)  # the container's user is another one
        options = f"--env-file {tmp_path}/env --volume {tmp_path}:{tmp_path}:ro"
        process = await asyncio.create_subprocess_exec(
            *(TOOL, "run", "serve"),
            env={**os.environ, "RUN_OPTIONS": options},
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await until_answer(client, "/readyz", "ok")
                launched = await client.post("/launch", json=REQUEST)
                await until_answer(client, f"/jobs/{JOB_ID}", "Succeeded")
                await until_answer(client, "/version", __version__)
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                code = await process.wait()

    assert launched.status_code == 201
    assert code == 0


def test_shell_of_the_tool_is_sound() -> None:
    bash = shutil.which("bash")
    assert bash

    assert subprocess.run([bash, "-n", TOOL], check=False, timeout=PATIENCE).returncode == 0
    assert image("unknown").returncode in (2, 3)
