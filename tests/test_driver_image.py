"""The driver image: its wrapper with a fake launcher, its build on a base of one shell."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copy, which
from typing import Any

import pytest
from patience import PATIENCE

from pyvatti.manifests.nextflow import PLUGINS

DRIVER = Path(__file__).parent.parent / "driver"
RUN = ("run", "gdp-public/globflow", "-hub", "ebi", "-r", "2.0.0", "-params-file", "/a b.json")
NOT_FOUND = "Remote resource not found: https://gitlab.ebi.ac.uk/api/v4/projects/x"
# Writes down how it was called; a pull does what $PULL says
LAUNCHER = """#!/bin/sh
{ printf '%s|' "$$" "${NXF_OFFLINE:-}" "$@"; echo; } >>"$SEEN"
if [ "$1" = pull ]; then eval "${PULL:-}"; else ls "$NXF_PLUGINS_DIR"; fi
"""
SHELLS = [
    pytest.param(
        words,
        id=words[0],
        marks=pytest.mark.skipif(not which(words[0]), reason=f"{words[0]} is not installed here"),
    )
    for words in (("dash",), ("busybox", "sh"), ("bash", "--posix"))
]
WAITS = 'trap \'echo stopped >>"$SEEN"; exit 143\' TERM; sleep 600 & echo pulling >>"$SEEN"; wait'


class Wrapper:
    """driver/nextflow in a folder of its own, with a launcher that is none."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, folder / "seen"
        self.plugins = folder / "volume" / "plugins"
        baked = folder / "baked"
        for name in ("nf-google-1", "nf-tower-1"):
            (baked / "plugins" / name).mkdir(parents=True)
        launcher = baked / "nextflow"
        launcher.write_text(LAUNCHER)
        launcher.chmod(0o755)
        self.seen.touch()
        self.environment = {
            "PATH": os.environ["PATH"], "BAKED": str(baked), "HOME": str(folder),
            "SEEN": str(self.seen), "NXF_PLUGINS_DIR": str(self.plugins),
        }  # fmt: skip

    def start(self, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> Any:
        return subprocess.Popen(
            [*before, DRIVER / "nextflow", *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def run(self, *arguments: str, **options: Any) -> tuple[int, str, int]:
        """Give its exit code, what it said, and its process."""
        process = self.start(*arguments, **options)
        out, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, out, process.pid

    def calls(self) -> list[tuple[str, str, list[str]]]:
        """Give (process, NXF_OFFLINE, arguments) of each call of the launcher."""
        lines = [line.split("|")[:-1] for line in self.seen.read_text().splitlines() if "|" in line]
        return [(line[0], line[1], line[2:]) for line in lines]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def wrapper(tmp_path: Path) -> Wrapper:
    return Wrapper(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_project_is_pulled_first_and_then_run_offline_in_the_same_process(
    wrapper: Wrapper, shell: tuple[str, ...]
) -> None:
    code, _, process = wrapper.run(*RUN, before=shell)

    (_, _, pulled), (runner, offline, ran) = wrapper.calls()
    assert code == 0
    assert pulled == ["pull", "gdp-public/globflow", "-hub", "ebi", "-r", "2.0.0"]
    assert ran == list(RUN)
    assert (runner, offline) == (str(process), "true")


def test_a_pull_asks_for_no_more_than_was_given(wrapper: Wrapper) -> None:
    wrapper.run("run", "nextflow-io/hello", "-revision", "v1")

    assert wrapper.calls()[0][1:] == ("", ["pull", "nextflow-io/hello", "-r", "v1"])


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param(("info",), {}, id="another command"),
        pytest.param((), {}, id="no command"),
        pytest.param(("-q", "run", "x/y"), {}, id="options come first"),
        pytest.param(("run", "-r", "1", "x/y"), {}, id="options before the project"),
        pytest.param(("run", "/dev/stdin"), {}, id="a script of its own"),
        pytest.param(RUN, {"NXF_OFFLINE": "true"}, id="it is offline anyhow"),
        pytest.param(RUN, {"NXF_OFFLINE": "false"}, id="it is told not to be"),
    ],
)
def test_all_else_goes_to_nextflow_as_it_is(
    wrapper: Wrapper, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    code, _, process = wrapper.run(*arguments, **environment)

    assert code == 0
    assert wrapper.calls() == [(str(process), environment.get("NXF_OFFLINE", ""), list(arguments))]


def test_a_pull_that_fails_ends_with_its_code_and_its_words(wrapper: Wrapper) -> None:
    code, out, _ = wrapper.run(*RUN, PULL=f"echo '{NOT_FOUND}'; exit 1")

    assert (code, out.strip()) == (1, NOT_FOUND)
    assert [call[2][0] for call in wrapper.calls()] == ["pull"]


@pytest.mark.parametrize("shell", SHELLS)
def test_term_while_pulling_stops_the_pull_and_nothing_is_run(
    wrapper: Wrapper, shell: tuple[str, ...]
) -> None:
    # Process 1 of its own world: there a signal without a trap has no effect at all
    own = ("unshare", "--pid", "--fork")
    is_first = subprocess.run([*own, "true"], check=False, capture_output=True).returncode == 0
    process = wrapper.start(*RUN, before=(*(own if is_first else ()), *shell), PULL=WAITS)
    try:
        wait_until(lambda: wrapper.seen.read_text().endswith("pulling\n"))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]) if is_first else process.pid, signal.SIGTERM)
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.communicate()

    assert code == 143
    assert [call[2][0] for call in wrapper.calls()] == ["pull"]
    assert wrapper.seen.read_text().endswith("stopped\n")


def test_baked_plugins_are_linked_and_one_that_is_there_stays(wrapper: Wrapper) -> None:
    (wrapper.plugins / "nf-google-1").mkdir(parents=True)

    _, out, _ = wrapper.run(*RUN)

    assert out.split() == ["nf-google-1", "nf-tower-1"]
    assert not (wrapper.plugins / "nf-google-1").is_symlink()
    assert (wrapper.plugins / "nf-tower-1").is_symlink()


def test_image_bakes_the_plugins_that_the_pods_ask_for() -> None:
    text = (DRIVER / "Dockerfile").read_text()
    version = re.search(r"^ARG BASE=\S+:([0-9.]+)$", text, re.MULTILINE)
    baked = re.search(r"^ARG CORE_PLUGINS=(\S+)$", text, re.MULTILINE)
    assert version
    assert baked
    pins = PLUGINS[tuple(int(part) for part in version[1].split("."))]

    assert set(baked[1].split(",")) == {
        f"{name}@{pins[name]}" for name in ("nf-google", "nf-tower")
    }
    for place in ("README.md", "Dockerfile"):
        assert f"{baked[1]}" in (DRIVER / place).read_text()
    assert f"nf-wave@{pins['nf-wave']}" in (DRIVER / "README.md").read_text()


BASE = """FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY nextflow /usr/local/bin/
RUN mkdir -p /.nextflow/framework /tmp /root && chmod 1777 /tmp
ENV PATH=/usr/local/bin:/bin
"""
# Stands for the official launcher: it writes the plugins it is to install, and says what it runs
OFFICIAL = """#!/bin/sh
if [ "$1 $2" = "plugin install" ]; then
  for name in $(echo "$3" | tr , " "); do mkdir -p "$NXF_PLUGINS_DIR/$(echo "$name" | tr @ -)"; done
else
  echo "offline=${NXF_OFFLINE:-} uid=$(id -u) dist=$NXF_DIST:" "$@"
  [ "$1" = pull ] || ls "${NXF_PLUGINS_DIR:-$NXF_HOME/plugins}"
fi
"""


@pytest.mark.skipif(
    not (which("buildah") and which("busybox")) or os.getuid() != 0,
    reason="buildah as root and busybox are needed",
)
def test_image_is_built_and_runs_a_project_offline_as_no_root(tmp_path: Path) -> None:
    # A store of its own without mounts: nothing is left behind
    store = ["--root", f"{tmp_path}/store", "--runroot", f"{tmp_path}/run"]

    def buildah(*words: str | Path) -> str:
        done = subprocess.run(
            ["buildah", *store, "--storage-driver", "vfs", *words],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "Dockerfile").write_text(BASE)
    (folder / "nextflow").write_text(OFFICIAL)
    (folder / "nextflow").chmod(0o755)
    copy(which("busybox") or "", folder)
    build = ("bud", "--isolation=chroot", "--network=host", "--pull-never", "-q")
    buildah(*build, "-t", "localhost/official:25.10.4", folder)
    buildah(*build, "--build-arg", "BASE=localhost/official:25.10.4", "-t", "driver", DRIVER)
    made = buildah("from", "--pull-never", "localhost/driver").strip()

    said = buildah("run", "--isolation=chroot", made, "--", "nextflow", *RUN).splitlines()

    assert said[0].endswith("pull gdp-public/globflow -hub ebi -r 2.0.0")
    assert said[1] == f"offline=true uid=65532 dist=/.nextflow/framework: {' '.join(RUN)}"
    assert said[2:] == ["nf-google-1.23.5", "nf-prov-1.2.2", "nf-schema-2.0.0", "nf-tower-1.17.5"]
