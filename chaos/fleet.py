"""Several replicas on one world, each by cables of its own, so that it is known who wrote what.

No scenario; the log and the rule that one acts at a time are `ledger`'s.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from chaos.cables import Cable, Lines, port_of, rewired
from chaos.calls import Calls
from chaos.ground import CREDENTIALS, HURRY, SPEED, request_of
from chaos.ledger import LEASE_SECONDS, Ledger
from chaos.process import Service, Zygote, free_port
from chaos.witness import SPOILT_SECONDS, Witness
from pyvatti.sandbox.driver_plans import Plans
from pyvatti.sandbox.kube.resources import LEASES
from pyvatti.sandbox.world import World

LEASE = {"LEASE_DURATION": str(LEASE_SECONDS), "RENEW_DEADLINE": "2", "RETRY_PERIOD": "0.4"}
TAKE_OVER_SECONDS = LEASE_SECONDS + 5.0


@dataclass(slots=True, kw_only=True)
class Replica:
    """One process and its cables, by neighbour."""

    name: str
    service: Service
    cables: Mapping[str, Cable]


class Fleet:
    """`async with Fleet(...) as fleet`, then `start` replicas by name.

    `slack`: seconds more for each step, where the machine is busy with other things.
    """

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        *,
        plans: Plans,
        changes: Mapping[str, str] | None = None,
        slack: float = 0.0,
    ) -> None:
        self.world = World(plans=plans, speed=SPEED, rate_limit=False)
        self.calls = Calls(self.world)
        self.replicas: dict[str, Replica] = {}
        self.starts = self.kills = 0
        self.slack = slack
        self._changes = {**HURRY, **LEASE, **(changes or {})}
        self._zygote, self._folder = zygote, folder
        self._lines: Lines = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.world)
        environment = self._environment()
        secrets = [environment[name] for name in CREDENTIALS]
        deadline = float(environment["RENEW_DEADLINE"])
        self.witness = Witness(self.world, self.calls, secrets, deadline)
        self.witness.patience = SPOILT_SECONDS + self.slack
        self.ledger = Ledger(self._lines, self.witness)
        self.calls.answered.append(self.ledger.answered)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for replica in self.replicas.values():
            await replica.service.kill()
        await self._stack.aclose()

    @property
    def leader(self) -> Replica | None:
        """The living replica that wrote the Lease last, if it holds it."""
        lease = self.world.kube.store.find(LEASES, self.world.namespace, "pyvatti")
        holder = (lease or {"spec": {}})["spec"].get("holderIdentity", "")
        return self.replicas.get(self.ledger.names.get(holder, ""))

    @property
    def log(self) -> Path:
        """Everything the replicas wrote."""
        return self._folder / "service.log"

    def others(self, replica: Replica) -> list[Replica]:
        """Give the replicas beside one."""
        return [other for other in self.replicas.values() if other is not replica]

    async def start(self, name: str) -> Replica:
        """Start a replica and wait until it is ready."""
        self.starts += 1
        cables = {}
        for neighbour, url in self._neighbours().items():
            cable = Cable(name, port_of(url), self._lines)
            cables[neighbour] = await self._stack.enter_async_context(cable)
        environment = self._wire(name, cables)
        service = await self._zygote.start(environment, self.log)
        replica = self.replicas[name] = Replica(name=name, service=service, cables=cables)
        if not await service.ready():
            raise RuntimeError(f"replica {name} ended with {service.ended.result()}")
        return replica

    async def kill(self, replica: Replica) -> None:
        """End a replica by SIGKILL."""
        self.kills += 1
        del self.replicas[replica.name]
        await replica.service.kill()
        self.witness.service_ended()

    async def post(self, replica: Replica, job_id: str) -> int:
        """Post a launch to one replica; its status, 0 without an answer."""
        async with httpx.AsyncClient(base_url=replica.service.url, timeout=15) as client:
            try:
                return (await client.post("/launch", json=request_of(job_id))).status_code
            except httpx.TransportError:
                return 0

    async def cancel(self, replica: Replica, job_id: str) -> int:
        """Cancel a job by one replica; the status, 0 without an answer."""
        self.ledger.cancelled(replica.name, job_id.lower())
        async with httpx.AsyncClient(base_url=replica.service.url, timeout=15) as client:
            try:
                return (await client.delete(f"/jobs/{job_id}")).status_code
            except httpx.TransportError:
                return 0

    def _neighbours(self) -> dict[str, str]:
        world = self.world
        return {
            "kubernetes": world.kube.url,
            "storage": world.storage.url,
            "seqera": world.seqera.url,
            "backend": world.backend.url,
        }

    def _environment(self) -> dict[str, str]:
        return {**self.world.environment(self._folder), **self._changes}

    def _wire(self, name: str, cables: Mapping[str, Cable]) -> dict[str, str]:
        """Point a replica at its own cables."""
        world = self.world
        config: Any = yaml.safe_load(world.kube.kubeconfig())
        server = config["clusters"][0]["cluster"]
        server["server"] = rewired(world.kube.url, cables["kubernetes"])
        kubeconfig = self._folder / f"kubeconfig-{name}"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(config))
        return {
            **self._environment(),
            "KUBECONFIG": str(kubeconfig),
            "STORAGE_EMULATOR_HOST": rewired(world.storage.url, cables["storage"]),
            "TOWER_API_URL": rewired(world.seqera.url, cables["seqera"]),
            "NOTIFY_URL": rewired(world.backend.url, cables["backend"]),
            "PORT": str(free_port()),
        }
