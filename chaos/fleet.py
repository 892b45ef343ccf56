"""Several replicas on one world, each by cables of its own, and a log of who wrote what and when.

No scenario; the rule that one acts at a time is checked here, for it is about that log alone.
"""

import json
import re
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from chaos.cables import Cable, port_of, rewired
from chaos.calls import Answer, Call, Calls
from chaos.ground import CREDENTIALS, HURRY, SPEED, request_of
from chaos.process import Service, Zygote, free_port
from chaos.rules import REFUSED
from chaos.witness import Witness
from pyvatti.sandbox.driver_plans import Plans
from pyvatti.sandbox.kube.resources import LEASES
from pyvatti.sandbox.world import World

LEASE = {"LEASE_DURATION": "2", "RENEW_DEADLINE": "1.5", "RETRY_PERIOD": "0.4"}
LEASE_SECONDS = 2.0
TAKE_OVER_SECONDS = LEASE_SECONDS + 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One write of one replica, in order of arrival. `at` is monotonic."""

    at: float
    who: str
    what: str
    status: int


@dataclass(slots=True, kw_only=True)
class Replica:
    """One process and its cables, by neighbour."""

    name: str
    service: Service
    cables: Mapping[str, Cable]


class Fleet:
    """`async with Fleet(...) as fleet`, then `start` replicas by name."""

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        *,
        plans: Plans,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.world = World(plans=plans, speed=SPEED, rate_limit=False)
        self.calls = Calls(self.world)
        self.replicas: dict[str, Replica] = {}
        self.acts: list[Act] = []
        self.holders: list[tuple[float, str]] = []
        self.starts = self.kills = 0
        self._changes = {**HURRY, **LEASE, **(changes or {})}
        self._zygote, self._folder = zygote, folder
        self._owners: dict[int, str] = {}
        self._names: dict[str, str] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.world)
        self.witness = Witness(
            self.world,
            self.calls,
            [value for key, value in self._environment().items() if key in CREDENTIALS],
        )
        self.calls.answered.append(self._answered)
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
        return self.replicas.get(self._names.get(holder, ""))

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
            cable = Cable(name, port_of(url), self._owners)
            cables[neighbour] = await self._stack.enter_async_context(cable)
        environment = self._wire(name, cables)
        service = await self._zygote.start(environment, self.log)
        replica = self.replicas[name] = Replica(name=name, service=service, cables=cables)
        if not await service.ready():
            raise RuntimeError(f"replica {name} ended with {service.ended.result()}")
        self.witness.service_ready()
        return replica

    async def kill(self, replica: Replica) -> None:
        """End a replica by SIGKILL."""
        self.kills += 1
        del self.replicas[replica.name]
        await replica.service.kill()
        self.witness.epoch += 1

    async def post(self, replica: Replica, job_id: str) -> int:
        """Post a launch to one replica; its status, 0 without an answer."""
        async with httpx.AsyncClient(base_url=replica.service.url, timeout=15) as client:
            try:
                return (await client.post("/launch", json=request_of(job_id))).status_code
            except httpx.TransportError:
                return 0

    def double_acts(self) -> list[str]:
        """Name every write that was done while another replica held the Lease."""
        return [
            f"{act.who}: {act.what} was done while {holder} held the Lease"
            for act in self.acts
            if act.status < REFUSED and (holder := self._holder_at(act.at)) not in (act.who, "")
        ]

    def _holder_at(self, at: float) -> str:
        held = [who for since, who in self.holders if since <= at]
        return held[-1] if held else ""

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

    def _answered(self, call: Call, answer: Answer) -> None:
        status, body = answer.status, answer.request
        who, now = self._owners.get(call.port, "?"), time.monotonic()
        if "/leases" in call.path:
            if call.method != "GET" and status < REFUSED:
                self._lease_written(who, json.loads(body), now)
        elif call.method != "GET" and not call.is_background and _is_acting(call, body):
            self.acts.append(Act(at=now, who=who, what=f"{call.method} {call.path}", status=status))

    def _lease_written(self, who: str, lease: dict[str, Any], now: float) -> None:
        holder = lease["spec"].get("holderIdentity", "")
        if holder:
            self._names[holder] = who
        if not self.holders or self.holders[-1][1] != (who if holder else ""):
            self.holders.append((now, who if holder else ""))
            self.witness.epoch += 1


def _is_acting(call: Call, body: bytes) -> bool:
    """Tell whether a write is the leader's alone: every replica accepts, cancels and tells Events.

    Accepting makes the Job and its first Secret.
    """
    if re.search(r"/(events|jobs)\?", call.path) and call.method == "POST":
        return False
    if call.method == "POST" and "/secrets" in call.path:
        return str(json.loads(body)["metadata"]["name"]).endswith("-transfer")
    return True
