"""One world with one service in it that is started again whenever it ends, and a user.

No story and no rule.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx

from chaos.calls import Calls
from chaos.process import ROOT, Service, Zygote, free_port
from chaos.rules import is_at_rest
from chaos.witness import Seen, Witness
from pyvatti.sandbox.driver_plans import Plans
from pyvatti.sandbox.kube.resources import LEASES
from pyvatti.sandbox.kube.store import ApiError
from pyvatti.sandbox.world import World

LOOK = 0.01  # seconds between two looks at a condition
PATIENCE = 60.0  # seconds for anything that must happen
SPEED = 20.0
GRACE_SECONDS = 30.0
"""The pod's termination grace, as Kubernetes gives it by default."""
LAUNCH = ROOT / "tests" / "data" / "payloads" / "launch-ok-trait-pfile.json"
HURRY = {
    "POLL_INTERVAL": "0.2",
    "BUCKET_INTERVAL": "0.02",
    "FAILED_GRACE": "0.4",
    "COMPLETE_GRACE": "0.4",
    "TELEMETRY_GRACE": "0.4",
    "HANG_GRACE": "0.4",
    "IMAGE_GRACE": "0.3",
    "ACCEPT_GRACE": "1",
    "RENEW_DEADLINE": "20",  # one service: it is killed, never deposed by a busy machine
    "RETRY_PERIOD": "0.5",
    "LEASE_DURATION": "30",
}
CREDENTIALS = (
    "GLOBUS_CLIENT_SECRET",
    "KEY_HANDLER_TOKEN",
    "KEY_HANDLER_PASSWORD",
    "TOWER_TOKEN",
    "NOTIFY_TOKEN",
)


class Ground:
    """`async with Ground(...) as ground`: `world`, `witness`, `calls` and a service that returns.

    `environment` may be changed at any time: it counts from the next start. With `keep_lease` a
    dead service's Lease has to run out, else the next one need not wait for it. `beside` is the
    world of another installation, which shares its Cloud Storage and Seqera with this one.
    `slack`: seconds more for each step, where the machine is busy with other things.
    """

    def __init__(  # noqa: PLR0913 - one keyword per choice
        self,
        zygote: Zygote,
        folder: Path,
        *,
        plans: Plans,
        changes: Mapping[str, str] | None = None,
        keep_lease: bool = False,
        namespace: str = "intervene-dev",
        beside: World | None = None,
        slack: float = 0.0,
    ) -> None:
        self.world = World(
            namespace=namespace, plans=plans, speed=SPEED, rate_limit=False, beside=beside
        )
        self.calls = Calls(self.world, is_alone=beside is None)
        self.environment: dict[str, str] = dict(changes or {})
        self.keep_lease, self._slack = keep_lease, slack
        self.kills = self.starts = 0
        self.folder = folder
        self.on_start: Callable[[], None] = lambda: None
        self._zygote = zygote
        self._stack = AsyncExitStack()
        self._is_up = asyncio.Event()
        self._meant = False
        self._asked_at: float | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.world)
            fixed = {**self.world.environment(self.folder), **HURRY, "PORT": str(free_port())}
            self.environment = fixed | self.environment
            secrets = [self.environment[name] for name in CREDENTIALS]
            deadline = float(self.environment["RENEW_DEADLINE"])
            self.witness = Witness(self.world, self.calls, secrets, deadline)
            self.witness.patience = self._slack
            self.client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{fixed['PORT']}", timeout=15)
            )
            self.service = await self._start()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(group.create_task(self._keep_alive()).cancel)
            await self.up()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        await self.service.kill()

    def use(self, zygote: Zygote) -> None:
        """Start later services from another zygote."""
        self._zygote = zygote

    @property
    def log(self) -> Path:
        """Everything the services wrote."""
        return self.folder / "service.log"

    async def up(self) -> None:
        """Wait until a service runs and is ready."""
        await self._is_up.wait()

    async def kill(self) -> None:
        """End the service by SIGKILL and wait until it is gone."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals) -> int:
        """End the service by a signal and wait until it is gone; give its exit code."""
        service, self._meant = self.service, True
        self.kills += number is signal.SIGKILL
        self._is_up.clear()
        service.send(number)
        await asyncio.wait(
            [service.ended]
        )  # the rest is the supervisor's: a dead caller is cut off
        return service.ended.result()

    def ask_to_end(self) -> None:
        """Send SIGTERM to the service; that it ends as it must is checked when it has."""
        self._meant, self._asked_at = True, time.monotonic()
        self.kills += 1
        self._is_up.clear()
        self.service.send(signal.SIGTERM)

    def read_log(self) -> None:
        """Tell the witness when services said that they had lost the Lease."""
        offset = time.monotonic() - time.time()
        self.witness.deposed_at = [
            datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() + offset
            for line in self.log.read_text().splitlines()
            if "leadership lost" in line
        ]

    def job(self, job_id: str) -> Seen:
        """Give what was seen of a job."""
        return self.witness.jobs[job_id.lower()]

    async def launch(self, job_id: str, *, again: bool = True) -> bool:
        """Launch as the backend does, until 201; not `again`: once. Tell whether it was 201."""
        unsure, deadline = False, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = await self._post(job_id)
            if status == 201:
                return True
            if status == 409 and unsure:
                return True  # it was accepted, and has ended meanwhile
            if status not in (0, 503):
                self.witness.accuse(f"{job_id}: POST /launch answered {status}")
            unsure = unsure or status in (0, 503)
            if not again:
                return False
            await asyncio.sleep(0.05)
        self.witness.accuse(f"{job_id}: no launch is answered 201")
        return False

    async def cancel(self, job_id: str) -> None:
        """Cancel as a user does, until it is answered."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(httpx.TransportError):
                    answer = await self.client.delete(f"/jobs/{job_id}")
                    if answer.status_code in (202, 404, 409):
                        return
                await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for a condition of the world; False if it does not come true in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not condition():  # noqa: ASYNC110 - of a world without events
                    await asyncio.sleep(LOOK)
                return True
        return False

    async def report(self, job_id: str) -> dict[str, Any]:
        """Ask for the deletion report of a job until it is answered; empty for an unknown job."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(httpx.TransportError):
                    answer = await self.client.get(f"/jobs/{job_id}/deletion")
                    if answer.status_code == 404:
                        return {}
                    if answer.status_code == 200:
                        report: dict[str, Any] = answer.json()
                        return report
                await asyncio.sleep(0.05)

    async def until_rest(self, job_id: str, *, accepted: bool, patience: float = PATIENCE) -> bool:
        """Wait until nothing more happens to a job; False if that takes too long."""
        base = job_id.lower()
        return await self.until(lambda: is_at_rest(self.world, base, accepted=accepted), patience)

    async def _post(self, job_id: str) -> int:
        """Post a launch; 0 without an answer."""
        try:
            return (await self.client.post("/launch", json=request_of(job_id))).status_code
        except httpx.TransportError:
            return 0

    async def _start(self) -> Service:
        self.starts += 1
        self.on_start()
        return await self._zygote.start(self.environment, self.log)

    async def _keep_alive(self) -> None:
        """Start the service again whenever it ends."""
        while True:
            if await self.service.ready():
                self._is_up.set()
            await asyncio.wait([self.service.ended])
            self._is_up.clear()
            self.witness.service_ended()
            if not self._meant:
                code = self.service.ended.result()
                self.witness.accuse(f"the service ended by itself with exit code {code}")
            self._meant = False
            self._judge_gentle_end()
            if not self.keep_lease:
                self._drop_lease()
            self.service = await self._start()

    def _judge_gentle_end(self) -> None:
        """Check that a service which was asked to end did so in time and gave the Lease back."""
        if self._asked_at is None:
            return
        seconds, self._asked_at = time.monotonic() - self._asked_at, None
        if seconds > GRACE_SECONDS:
            self.witness.accuse(f"after SIGTERM the service took {seconds:.1f} s to end")
        if (code := self.service.ended.result()) not in (0, -signal.SIGTERM):
            self.witness.accuse(f"after SIGTERM the exit code is {code}")
        lease = self.world.kube.store.find(LEASES, self.world.namespace, "pyvatti")
        if lease is not None and lease["spec"].get("holderIdentity"):
            self.witness.accuse("after SIGTERM the Lease is still held")

    def _drop_lease(self) -> None:
        with suppress(ApiError):
            store = self.world.kube.store
            store.delete(LEASES, self.world.namespace, "pyvatti", propagation="Background")


def request_of(job_id: str) -> dict[str, Any]:
    """Give a valid launch request for a job."""
    body: dict[str, Any] = json.loads(LAUNCH.read_text())
    body["pipeline_param"]["id"] = job_id
    return body
