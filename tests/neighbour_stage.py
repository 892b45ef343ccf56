"""The service among its neighbours: a line to each, a clock that can leap, names that can fail.

No fault and no cell here: those are in `neighbours`.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from neighbour_lines import Line, Wall
from patience import PATIENCE, patient_client, stopwatch
from stage import FAST, JOB, LOOK, Stage, launch_body

from pyvatti.api.connections import listen, make_config
from pyvatti.api.service import Service
from pyvatti.app import create_app
from pyvatti.demo import Running
from pyvatti.kube import Limits as KubeLimits
from pyvatti.kube import WatchLimits
from pyvatti.lifecycle.clock import SteadyClock
from pyvatti.lifecycle.doors import Limits
from pyvatti.rest import Timeouts
from pyvatti.sandbox.driver_plans import Plan, everyone
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.storage import Patience

BYSTANDER = "INTP00000000514"
NOBODY = "INTP00000000999"
SLOWEST = 2.5  # seconds of waiting: the 2 s that are promised, and a little for the way
# Neighbours are waited for as in operation, but asked again soon.
CALM = Limits(
    kube=KubeLimits(backoff=0.05, backoff_cap=0.5),
    watch=WatchLimits(backoff=0.05, backoff_cap=0.4, backoff_calm=5.0),
    storage=Patience(pauses=(0.05, 0.1)),
    denied_pause=0.3,
)
# For neighbours that fall silent. The calls of the Kubernetes API take longer than the API may.
HASTY = Limits(
    kube=KubeLimits(connect=3.0, total=5.0, backoff=0.05, backoff_cap=0.5),
    watch=WatchLimits(
        idle=2.0, fresh=4.0, patience=1.0, backoff=0.05, backoff_cap=0.4, backoff_calm=5.0
    ),
    storage=Patience(read=2.0, call=3.0, pauses=(0.05, 0.1)),
    seqera=Timeouts(connect=2.0, read=2.0, total=3.0),
    # a call that is given up because this machine stood still is told again, and rightly so
    backend=Timeouts(connect=5.0, read=5.0, total=6.0),
    denied_pause=0.3,
)
# a kept connection may be closed by the server in the instant of its next use
NOT_KEPT = httpx.Limits(max_keepalive_connections=0)
BOOKMARK_SECONDS = 0.3
SPEED = 20.0
RUNS = Plan(run_seconds=40.0)  # seconds, divided by the speed: long enough to be seen running


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How the API answered one request while a neighbour misbehaved."""

    request: str
    status: int
    seconds: float


class Neighbourhood(Stage):
    """The running service, its world, the lines between them, the clock of the service's host."""

    def __init__(
        self,
        running: Running,
        service: Service,
        lines: dict[str, Line],
        *,
        client: httpx.AsyncClient,
        folder: Path,
        wall: Wall,
    ) -> None:
        super().__init__(running, client)
        self.service, self.lines, self.wall = service, lines, wall
        self.namespace = running.world.namespace
        self.kubeconfig = folder / "kubeconfig"

    # Moments of a job's life

    def at(self, moment: str, strike: Callable[[], None], job_id: str = JOB) -> asyncio.Event:
        """Call `strike` in the very instant a job reaches a moment; the event tells of it."""
        reached, base = asyncio.Event(), job_id.lower()

        def look(change: str, resource: Any, new: dict[str, Any], _old: Any) -> None:
            if not reached.is_set() and MOMENTS[moment](base, change, resource.kind, new):
                reached.set()
                strike()

        self.world.kube.store.subscribe(look)
        return reached

    async def happens(self, event: asyncio.Event, what: str) -> None:
        """Wait for an event of the world."""
        try:
            async with asyncio.timeout(PATIENCE):
                await event.wait()
        except TimeoutError:
            raise AssertionError(f"never happened: {what}") from None

    # The API

    async def ask(
        self, passed: Callable[[], float], method: str, path: str, body: Any = None
    ) -> Answer:
        """Make one request and take its time."""
        began = passed()
        answer = await self.hasty.request(method, path, json=body)
        seconds = passed() - began
        return Answer(request=f"{method} {path}", status=answer.status_code, seconds=seconds)

    async def probe(self, *, bystander: str = BYSTANDER) -> list[Answer]:
        """Ask everything at once, a launch among it; all of it is answered or refused in time."""
        requests = [
            ("POST", "/launch", launch_body(bystander)),
            ("POST", "/launch?dry_run=true", launch_body(NOBODY)),
            ("GET", "/jobs", None),
            ("GET", f"/jobs/{JOB}", None),
            ("GET", f"/jobs/{NOBODY}", None),
            ("DELETE", f"/jobs/{NOBODY}", None),
            ("GET", "/healthz", None),
            ("GET", "/readyz", None),
            ("GET", "/metrics", None),
        ]
        async with stopwatch() as passed, asyncio.TaskGroup() as group:
            asked = [group.create_task(self.ask(passed, *request)) for request in requests]
        answers = [task.result() for task in asked]
        assert [found for found in answers if found.seconds > SLOWEST] == []
        assert [found for found in answers if found.status not in EXPECTED_ANSWERS] == []
        assert answers[-3].status == 200, "a restart would not help"
        return answers

    async def launch_patiently(self, job_id: str = JOB) -> None:
        """Launch as the backend does: again until it is accepted."""
        answer: Any = None
        try:
            async with asyncio.timeout(PATIENCE):
                while answer is None or answer.status_code != 201:
                    answer = await self.client.post("/launch", json=launch_body(job_id))
                    if answer.status_code == 409:
                        return  # a refused launch whose answer was lost came to its end meanwhile
                    assert answer.status_code in (201, 503), answer.text
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise AssertionError(f"never accepted: {answer and answer.text}") from None

    # The right end

    async def ends_well(
        self, *job_ids: str, state: str = "Succeeded", repeats: bool = False
    ) -> None:
        """Wait until the jobs are finished; they were told once and nothing is left of them.

        `repeats`: answers of the backend were lost, so that `deployed` may have come again.
        """
        for job_id in job_ids:
            shown = await self.until_finished(job_id)
            assert (job_id, shown["state"]) == (job_id, state), shown
            said = self.told(job_id)
            assert said[-1] == state.lower(), said
            assert repeats or len(set(said)) == len(said), said
            assert said.count(state.lower()) == 1, said
            assert set(said) <= {"deployed", state.lower()}, said
            assert all(notice["delivery"] != "pending" for notice in shown["deliveries"])
        kept = {f"{self.namespace}-{job_id.lower()}-results" for job_id in job_ids}
        left = [name for name in self.leftovers() if not any(part in name for part in kept)]
        assert left == []
        if state != "Succeeded":
            assert self.leftovers() == []
        await self.forgets_everything()

    async def forgets_everything(self) -> None:
        """Wait until memory holds nothing of jobs that are gone."""
        await self.until(lambda: not held(self.service), f"forgotten: {held(self.service)}")


EXPECTED_ANSWERS = frozenset({200, 201, 404, 409, 503})


def _is_job(base: str, kind: str, new: dict[str, Any]) -> bool:
    return kind == "Job" and new["metadata"]["name"] == base


def _state_is(state: str) -> Callable[[str, str, str, dict[str, Any]], bool]:
    def reached(base: str, _change: str, kind: str, new: dict[str, Any]) -> bool:
        labels = new["metadata"].get("labels") or {}
        return (
            _is_job(base, kind, new) and labels.get("hattivatti.geneticscores.org/state") == state
        )

    return reached


MOMENTS: dict[str, Callable[[str, str, str, dict[str, Any]], bool]] = {
    # between the Job and its Secret: the launch is not answered yet
    "accepting": lambda base, change, kind, new: change == "ADDED" and _is_job(base, kind, new),
    # buckets are made, the release comes next
    "preparing": lambda base, change, kind, new: (
        change == "ADDED" and kind == "Secret" and new["metadata"]["name"] == f"{base}-transfer"
    ),
    "created": _state_is("Created"),
    "running": _state_is("Deployed"),
    # its pods are being stopped; buckets, record and finalizer come next
    "cleaning": lambda base, _change, kind, new: (
        _is_job(base, kind, new) and bool(new["metadata"].get("deletionTimestamp"))
    ),
}


def held(service: Service) -> dict[str, int]:
    """Count what grows with live jobs; all of it must be empty once no job is live.

    Queues with a bound of their own: they must be below it.
    """
    doors, controller = service.doors, service._controller
    cache = doors.cache
    sizes = {
        "jobs": len(cache.jobs()),
        "uids": len(cache._base_of),
        "pods": len(cache._pods),
        "vanished": len(cache._vanished),
        "lost": len(cache._lost),
        "removals": len(cache._removals),
        "actors": len(controller._actors),
        "couriers": len(controller._couriers),
        "turns": doors.limiter.waiting,
        "tallies": len(doors.storage._tallies),
        "events over their bound": max(0, doors.events._queue.qsize() - 1000),
    }
    return {what: size for what, size in sizes.items() if size}


@asynccontextmanager
async def neighbourhood(
    plan: Plan | None = None,
    *,
    hosts: dict[str, str] | None = None,
    limits: Limits = CALM,
    **changes: str,
) -> AsyncIterator[Neighbourhood]:
    """Run the service on a world, with a line to each neighbour; `hosts` names some of them."""
    async with (
        town(plan) as there,
        service_in(there, hosts=hosts or {}, limits=limits, **changes) as on,
    ):
        await is_ready(on)
        yield on


@dataclass(frozen=True, slots=True)
class Town:
    """A world and the lines to it."""

    world: World
    lines: dict[str, Line]
    folder: Path


@asynccontextmanager
async def town(plan: Plan | None = None) -> AsyncIterator[Town]:
    """Start a world and the lines to its stand-ins."""
    world = World(plans=everyone(plan or RUNS), speed=SPEED, rate_limit=False)
    world.kube._server.bookmark_seconds = BOOKMARK_SECONDS
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await stack.enter_async_context(world)
        lines = {
            name: await stack.enter_async_context(Line(urlsplit(url).port or 0))
            for name, url in urls(world).items()
        }
        yield Town(world, lines, folder)


@asynccontextmanager
async def service_in(
    there: Town, *, hosts: dict[str, str], limits: Limits = CALM, **changes: str
) -> AsyncIterator[Neighbourhood]:
    """Run the service in a town; it need not be ready."""
    wall = Wall()
    environment = _environment(there, hosts) | changes
    settings = Settings.model_validate({key.lower(): value for key, value in environment.items()})
    app = create_app(settings, limits=limits, clock=SteadyClock(wall))
    async with (
        _serve(app) as url,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=NOT_KEPT) as hasty,
        patient_client(url, NOT_KEPT) as client,
    ):
        running = Running(there.world, url, hasty)
        service: Service = app.state.service
        yield Neighbourhood(
            running, service, there.lines, client=client, folder=there.folder, wall=wall
        )


async def is_ready(on: Neighbourhood) -> None:
    """Wait until the service is ready."""
    async with asyncio.timeout(PATIENCE):
        while (await on.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(LOOK)


def urls(world: World) -> dict[str, str]:
    """Give the address of each stand-in."""
    return {
        "kubernetes": world.kube.url,
        "seqera": world.seqera.url,
        "storage": world.storage.url,
        "backend": world.backend.url,
    }


def _environment(there: Town, hosts: dict[str, str]) -> dict[str, str]:
    """Point the service at the lines instead of the stand-ins."""
    world = there.world
    places = {
        name: f"{urlsplit(url).scheme}://{hosts.get(name, '127.0.0.1')}:{there.lines[name].port}"
        for name, url in urls(world).items()
    }
    environment = world.environment(there.folder)
    kubeconfig = Path(environment["KUBECONFIG"])
    kubeconfig.write_text(kubeconfig.read_text().replace(world.kube.url, places["kubernetes"]))
    return (
        environment
        | FAST
        | {
            "TOWER_API_URL": places["seqera"],
            "ALLOW_HTTP": "true",  # to a host name, where a lookup is to fail
            "STORAGE_EMULATOR_HOST": places["storage"],
            "NOTIFY_URL": places["backend"],
            "MAX_CONCURRENT_JOBS": "100",
            "POLL_INTERVAL": "0.1",
        }
    )


@asynccontextmanager
async def _serve(app: Any) -> AsyncIterator[str]:
    """Run the application in this event loop, as `pyvatti serve` does; give its address."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(make_config(app))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(LOOK)
        failure: BaseException | None = None
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        except BaseException as error:  # noqa: BLE001 - raised again once the service has stopped
            failure = error
        server.should_exit = True
    if failure is not None:
        raise failure
