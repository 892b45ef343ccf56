"""A chart installed by a real Helm, and the service run from what was installed.

What a Deployment controller and a kubelet would do is done here: the service reads the variables
that its installed Deployment names, and talks to the API server as its installed ServiceAccount.
`Release` is for the sandbox; the functions serve a real cluster too (test_chart_cluster).
"""

import asyncio
import base64
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from chart_tools import CHART, NAMESPACE, Manifest, Source, helm_program, merged, scenario
from patience import PATIENCE
from stage import FAST, Stage, service_on

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

TOKEN_REQUEST = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": 3600},
}
# What a plain cluster has no kinds for.
PLAIN: dict[str, Any] = {
    "priorityClassName": "",
    "metrics": {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}},
    "httpRoute": {"enabled": False},
}
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


def values_for(variables: dict[str, str], name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Give the values of chart/ci/NAME with these variables of the service, and some changes."""
    groups: dict[str, dict[str, Any]] = {"config": {}, "secrets": {}}
    for variable in variables.keys() - OF_THE_POD:
        is_secret = "SecretStr" in str(Settings.model_fields[variable.lower()].annotation)
        key = re.sub(r"_(.)", lambda match: match[1].upper(), variable.lower())
        text = variables[variable]
        is_number = re.fullmatch(r"[0-9]+([.][0-9]+)?", text) and not is_secret
        groups["secrets" if is_secret else "config"][key] = float(text) if is_number else text
    return merged(merged(scenario(name), groups), changes)


async def run_helm(
    source: Source, kubeconfig: Path, *arguments: str, namespace: str = NAMESPACE, code: int = 0
) -> str:
    """Run Helm, give what it printed, insist on its exit code."""
    process = await asyncio.create_subprocess_exec(
        helm_program(source),
        *arguments,
        "--namespace",
        namespace,
        env=os.environ  # a kubeconfig may name a program that gives credentials
        | {f"HELM_{kind}_HOME": str(kubeconfig.parent) for kind in ("CACHE", "CONFIG", "DATA")}
        | {"KUBECONFIG": str(kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode == code, out.decode()
    return out.decode()


def variables_of(
    deployment: Manifest, configmap: Callable[[str], Manifest], secret: Callable[[str], Manifest]
) -> dict[str, str]:
    """Put together what the kubelet would give the container; the callables find by name."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given: dict[str, str] = {}
    for source in container["envFrom"]:
        given |= configmap(source["configMapRef"]["name"])["data"]
    for entry in container["env"]:
        reference = entry["valueFrom"]["secretKeyRef"]
        stored = secret(reference["name"])["data"][reference["key"]]
        given[entry["name"]] = base64.b64decode(stored).decode()
    return given


@asynccontextmanager
async def serving(variables: dict[str, str], world: World) -> AsyncIterator[Stage]:
    """Run one pod's service until it is ready: settings read, permissions there, cluster heard."""
    settings = Settings.model_validate({key.lower(): text for key, text in variables.items()})
    async with service_on(world, settings) as on:
        await on.until_ready()
        yield on


class Release:
    """What Helm and an operator do with releases in one sandbox cluster with RBAC."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.runtime = PythonRuntime()
        self.world = World(speed=20.0, rate_limit=False, other=self.runtime)
        self.world.kube = KubeStandIn(enforce_rbac=True, speed=20.0)
        self.folder, self._source = folder, source

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[None]:
        """Start the world; its namespace enforces the standard `restricted`."""
        async with self.world:
            self.world.kube.store.mutate(NAMESPACES, "", NAMESPACE, _restrict)
            (self.folder / "admin").write_text(self.world.kube.kubeconfig())
            yield

    def values(self, name: str, **changes: Any) -> str:
        """Write the values of chart/ci/NAME, pointed at the world; give the file's path."""
        given = self.world.environment(self.folder) | FAST | {"BUCKET_INTERVAL": "0.1"}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values_for(given, name, changes)))
        return str(file)

    async def helm(self, *arguments: str, code: int = 0) -> str:
        """Run Helm as the cluster's administrator."""
        return await run_helm(self._source, self.folder / "admin", *arguments, code=code)

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

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[Stage]:
        """Run one pod of the installed service, with a token of its service account."""
        kube = self.world.kube
        kubeconfig = self.folder / f"{name}.kubeconfig"
        kubeconfig.write_text(kube.kubeconfig(await self._token(name)))
        given = variables_of(
            kube.store.get(DEPLOYMENTS, NAMESPACE, name),
            lambda which: kube.store.get(CONFIGMAPS, NAMESPACE, which),
            lambda which: kube.store.get(SECRETS, NAMESPACE, which),
        )
        async with serving(given | {"KUBECONFIG": str(kubeconfig)}, self.world) as on:
            self.runtime.addresses[f"http://{name}:80"] = on.url
            yield on

    async def _token(self, account: str) -> str:
        kube = self.world.kube
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        async with httpx.AsyncClient(base_url=kube.url, verify=kube.ssl_context()) as client:
            headers = {"Authorization": f"Bearer {kube.token}"}
            answer = await client.post(path, json=TOKEN_REQUEST, headers=headers)
        token: str = answer.json()["status"]["token"]
        return token

    def refusals(self) -> list[str]:
        """Name what a service account asked for and was not allowed."""
        return [
            f"{item.user} {item.verb} {item.resource}"
            for item in self.world.kube.requests
            if item.status in (401, 403)
        ]


def _restrict(body: dict[str, Any]) -> None:
    body["metadata"].setdefault("labels", {})["pod-security.kubernetes.io/enforce"] = "restricted"
