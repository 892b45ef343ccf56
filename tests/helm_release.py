"""A chart installed by a real Helm into the sandbox's cluster, and the service run from it.

What a Deployment controller and a kubelet would do is done here: the service reads the variables
that its installed Deployment names, and talks to the API server as its installed ServiceAccount.
"""

import asyncio
import base64
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from chart_tools import CHART, NAMESPACE, Source, helm_program, merged, scenario
from stage import FAST, Stage

from pyvatti.demo import Running, serve_in_loop
from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.kubelet_runtime import CommandNotFound, ContainerSpec
from pyvatti.sandbox.kube.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    NAMESPACES,
    RESOURCES,
    SECRETS,
)
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

HELM_SECONDS = 60
READY_SECONDS = 20
# Made by the cluster itself or by nobody's release.
ALWAYS_THERE = {
    *(("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")),
    *(("ServiceAccount", "nextflow"), ("ServiceAccount", "pyvatti")),
}
# Of the chart, but read from the cluster that the chart is in, or not for this machine.
OF_THE_POD = {"HOST", "PORT", "KUBECONFIG", "NAMESPACE", "API_AUTH"}


@dataclass(slots=True)
class PythonRuntime:
    """Runs `python -c` containers, with addresses of Services replaced by real ones."""

    addresses: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)

    async def run(
        self,
        container: ContainerSpec,
        pod: dict[str, Any],  # noqa: ARG002 - part of the runtime protocol
        log: Callable[[str], None],
        stop: asyncio.Event,  # noqa: ARG002 - part of the runtime protocol
    ) -> int:
        """Give the program's exit code."""
        if container.argv[:2] != ["python", "-c"]:
            raise CommandNotFound(container.argv[0])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *container.argv[1:],
            env={name: self.addresses.get(text, text) for name, text in container.env.items()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        for line in out.decode().splitlines():
            self.output.append(line)
            log(line)
        assert process.returncode is not None
        return process.returncode


class Release:
    """What Helm and an operator do with releases in one sandbox cluster with RBAC."""

    def __init__(self, source: Source, folder: Path, *users: str) -> None:
        self.tokens = {
            f"token-of-{user}": f"system:serviceaccount:{NAMESPACE}:{user}" for user in users
        }
        self.runtime = PythonRuntime()
        self.world = World(speed=20.0, rate_limit=False, other=self.runtime)
        self.world.kube = KubeStandIn(tokens=self.tokens, enforce_rbac=True, speed=20.0)
        self.folder = folder
        self._program = helm_program(source)

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[None]:
        """Start the world; its namespace enforces the standard `restricted`."""
        async with self.world:
            store = self.world.kube.store
            store.mutate(NAMESPACES, "", NAMESPACE, _restrict)
            (self.folder / "admin").write_text(self.world.kube.kubeconfig())
            yield

    def values(self, name: str, **changes: Any) -> str:
        """Write the values of chart/ci/NAME, pointed at the world; give the file's path."""
        given = self.world.environment(self.folder) | FAST | {"BUCKET_INTERVAL": "0.1"}
        groups: dict[str, dict[str, Any]] = {"config": {}, "secrets": {}}
        for variable in given.keys() - OF_THE_POD:
            field_ = Settings.model_fields[variable.lower()]
            group = "secrets" if "SecretStr" in str(field_.annotation) else "config"
            key = re.sub(r"_(.)", lambda match: match[1].upper(), variable.lower())
            text = given[variable]
            number = re.fullmatch(r"[0-9.]+", text) and group == "config"
            groups[group][key] = float(text) if number else text
        values = merged(merged(scenario(name), groups), changes)
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        return str(file)

    async def helm(self, *arguments: str, code: int = 0) -> str:
        """Run Helm as the cluster's administrator; give what it printed, insist on its code."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            "--namespace",
            NAMESPACE,
            env={"HOME": str(self.folder), "KUBECONFIG": str(self.folder / "admin")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(HELM_SECONDS):
            out, _ = await process.communicate()
        assert process.returncode == code, out.decode()
        return out.decode()

    async def install(self, name: str, *more: str) -> str:
        """Install or upgrade the chart as a release."""
        return await self.helm("upgrade", "--install", name, str(CHART), *more)

    def objects(self) -> set[tuple[str, str]]:
        """Give (kind, name) of everything in the namespace that somebody brought there."""
        found = {
            (resource.kind, item["metadata"]["name"])
            for resource in RESOURCES
            for item in self.world.kube.store.list(resource, NAMESPACE)
            if resource.kind != "Event"
        }
        return found - ALWAYS_THERE

    def container_environment(self, name: str) -> dict[str, str]:
        """Put together the variables that the kubelet would give the installed Deployment."""
        find = self.world.kube.store.get
        deployment = find(DEPLOYMENTS, NAMESPACE, name)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        given: dict[str, str] = {}
        for source in container["envFrom"]:
            given |= find(CONFIGMAPS, NAMESPACE, source["configMapRef"]["name"])["data"]
        for entry in container["env"]:
            reference = entry["valueFrom"]["secretKeyRef"]
            secret = find(SECRETS, NAMESPACE, reference["name"])
            given[entry["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return given

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[Stage]:
        """Run one pod of the installed service, ready, as its service account."""
        kubeconfig = self.folder / name
        kubeconfig.write_text(self.world.kube.kubeconfig(f"token-of-{name}"))
        given = self.container_environment(name) | {"KUBECONFIG": str(kubeconfig)}
        settings = Settings.model_validate({key.lower(): text for key, text in given.items()})
        async with (
            serve_in_loop(settings) as url,
            httpx.AsyncClient(base_url=url, timeout=10.0) as client,
        ):
            async with asyncio.timeout(READY_SECONDS):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            self.runtime.addresses[f"http://{name}:80"] = url
            yield Stage(Running(self.world, url, client))

    def refusals(self) -> list[str]:
        """Name what a service account asked for and was not allowed."""
        return [
            f"{item.user} {item.verb} {item.resource}"
            for item in self.world.kube.requests
            if item.status == 403
        ]


def _restrict(body: dict[str, Any]) -> None:
    body["metadata"].setdefault("labels", {})["pod-security.kubernetes.io/enforce"] = "restricted"
