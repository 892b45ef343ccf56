"""Reads what a driver container was told: its arguments, parameter file, configuration and input.

No calls of its own and no plan.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

from pyvatti.sandbox.driver_calls import Trace, Wire, split_uri
from pyvatti.sandbox.kube.kubelet_runtime import ContainerSpec

PROJECT = "gdp-public/pgsc_calc"

_SETTING = re.compile(r"\b(\w+)\s*=\s*(?:'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\"|(\d+))")
_EXIT = re.compile(r"\bexit\s+(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a container was told: parameters, configuration, run name, and its script's text."""

    params: dict[str, Any]
    config: dict[str, str]
    run_name: str
    text: str
    config_text: str

    @property
    def is_transfer(self) -> bool:
        """Whether globflow is to run."""
        return "globflow" in self.text


def read_launch(container: ContainerSpec) -> Launch:
    """Find the parameters, configuration and run name a container was given.

    Arguments count wherever they stand, also inside a script. Raises ValueError.
    """
    words = [word for item in container.argv for word in _words(item)]
    params = next(
        (
            container.files[path]
            for path in _values(words, "-params-file")
            if path in container.files
        ),
        None,
    )
    if params is None:
        raise ValueError("no parameter file was given, or it is not mounted")
    config = "\n".join(
        container.files[path].decode(errors="replace")
        for path in _values(words, "-c")
        if path in container.files
    )
    parsed = json.loads(params)
    if not isinstance(parsed, dict):
        raise ValueError("the parameter file holds no object")  # noqa: TRY004 - a bad launch
    name = next(iter(_values(words, "-name")), f"sandbox-{uuid4().hex[:8]}")
    return Launch(
        params=parsed,
        config=_settings(config),
        run_name=name,
        text="\n".join(container.argv),
        config_text=config,
    )


def _words(text: str) -> list[str]:
    if not re.search(r"\s", text):
        return [text]
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError:
        return text.split()


def _values(words: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == option]


def _settings(config: str) -> dict[str, str]:
    """Read `workDir` and the assignments of the tower scope, written as a block or with dots."""
    blocks = "\n".join(re.findall(r"\btower\s*\{([^}]*)\}", config))
    dotted = "\n".join(re.findall(r"\btower\.(\w+\s*=.*)", config))
    top = "\n".join(re.findall(r"^\s*(workDir\s*=.*)", config, re.MULTILINE))
    return {
        name: re.sub(r"\\(.)", r"\1", one or two) or number
        for name, one, two, number in _SETTING.findall(f"{blocks}\n{dotted}\n{top}")
    }


def read_input(container: ContainerSpec, launch: Launch) -> Any:
    """Read the file that parameter `input` names. Raises ValueError."""
    path = launch.params.get("input")
    if path not in container.files:
        raise ValueError(f"input file {path} is not mounted")
    return json.loads(container.files[path])


def read_samplesheet(container: ContainerSpec, launch: Launch) -> list[dict[str, Any]]:
    """Read pgsc_calc's samplesheet; empty if there is none."""
    try:
        found = read_input(container, launch)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def work_dir(launch: Launch) -> str:
    """Give the work folder: the configuration's, else beside the transferred data."""
    if work := launch.config.get("workDir"):
        return work.rstrip("/")
    return f"gs://{split_uri(str(launch.params['outdir']))[0]}/work"


def make_trace(launch: Launch, env: Mapping[str, str], wire: Wire, usual: str) -> Trace | None:
    """Give what tells Seqera, None without a token; `usual` is its address where none is given."""
    config = launch.config
    token = config.get("accessToken") or env.get("TOWER_ACCESS_TOKEN", "")
    if not token:
        return None
    endpoint = config.get("endpoint", "")
    if endpoint in ("", "-"):
        endpoint = env.get("TOWER_API_ENDPOINT") or usual
    return Trace(
        wire=wire,
        endpoint=endpoint.rstrip("/"),
        token=token,
        workspace=config.get("workspaceId") or env.get("TOWER_WORKSPACE_ID", ""),
        run_name=launch.run_name,
    )


def missing_code(text: str) -> int:
    """Give the exit code the init script itself would end with."""
    found = _EXIT.search(text)
    return int(found[1]) if found else 1


def described(container: ContainerSpec, launch: Launch) -> dict[str, Any]:
    """Give what the trace protocol's `workflow` says of a run (docs: `PUT /trace/{id}/begin`)."""
    return {
        "projectName": PROJECT,
        "repository": f"https://gitlab.ebi.ac.uk/{PROJECT}",
        "scriptName": "main.nf",
        "workDir": work_dir(launch),
        "commandLine": " ".join(container.argv)[:8096],
        "profile": "docker",
        "params": launch.params,
        "configText": launch.config_text,
        "launchDir": "/",
        "userName": "nextflow",
        "containerEngine": "docker",
        "nextflow": {"version": ".".join(map(str, nextflow_version(container.image)))},
    }


def nextflow_version(image: str) -> tuple[int, ...]:
    """Give the Nextflow version an image's tag names, the newest known without one."""
    found = re.search(r":v?(\d+)\.(\d+)(?:\.(\d+))?", image)
    return tuple(int(part) for part in found.groups("0")) if found else (26, 10, 3)
