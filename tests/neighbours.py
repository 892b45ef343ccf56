"""The service among misbehaving neighbours: faults that strike at a moment, and what must hold.

One cell is one fault of one neighbour. Whatever it is: the API answers or refuses in time, the
job and one launched meanwhile come to their right end by themselves, are told once and leave
nothing behind, in the world or in memory.
"""

import asyncio
import json
import re
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from neighbour_lines import Line
from stage import FAST, JOB, LOOK, PATIENCE, Stage, launch_body

from pyvatti.api.connections import listen, make_config
from pyvatti.api.service import Service
from pyvatti.app import create_app
from pyvatti.demo import Running
from pyvatti.kube import Limits as KubeLimits
from pyvatti.kube import WatchLimits
from pyvatti.lifecycle.clock import SteadyClock, utc_now
from pyvatti.lifecycle.doors import Limits
from pyvatti.rest import Timeouts
from pyvatti.sandbox.driver_plans import Plan, everyone
from pyvatti.sandbox.faults import FaultRules
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings
from pyvatti.storage import Patience

BYSTANDER = "INTP00000000514"
NOBODY = "INTP00000000999"
T = TypeVar("T")
AT_ONCE = 6  # cells side by side
SLOWEST = 3.0  # seconds: the 2 s that are promised, and one for a loaded machine
# Ratios as in operation; the calls of the Kubernetes API take longer than the API may.
QUICK = Limits(
    kube=KubeLimits(connect=1.0, total=5.0, backoff=0.05, backoff_cap=0.5),
    watch=WatchLimits(
        idle=1.0, fresh=2.0, patience=0.5, backoff=0.05, backoff_cap=0.4, backoff_calm=5.0
    ),
    storage=Patience(read=0.5, call=0.8, pauses=(0.05, 0.1)),
    seqera=Timeouts(connect=0.5, read=0.5, total=0.8),
    backend=Timeouts(connect=0.5, read=0.5, total=0.8),
    denied_pause=0.3,
)
BOOKMARK_SECONDS = 0.3
SPEED = 20.0
RUNS = Plan(run_seconds=10.0)  # seconds, divided by the speed: long enough to be seen running
DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How the API answered one request while a neighbour misbehaved."""

    request: str
    status: int
    seconds: float


class Wall:
    """A wall clock that can leap."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        """Give the time, in UTC."""
        return utc_now() + self.offset


class NamesLoop(asyncio.SelectorEventLoop):
    """An event loop that knows the names under `.test`, as long as they are not `unknown`."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()
        self.failed = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a name."""
        host = host.decode() if isinstance(host, bytes) else host
        if host in self.unknown:
            self.failed += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        place = "127.0.0.1" if str(host).endswith(".test") else host
        return await super().getaddrinfo(place, port, **options)


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a story in a loop whose name service can fail."""
    with asyncio.Runner(loop_factory=NamesLoop) as runner:
        return runner.run(story)


class Neighbourhood(Stage):
    """The running service, its world, the lines between them, the clock of the service's host."""

    def __init__(
        self,
        running: Running,
        service: Service,
        lines: dict[str, Line],
        *,
        folder: Path,
        wall: Wall,
    ) -> None:
        super().__init__(running)
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

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Make one request and take its time."""
        began = time.monotonic()
        answer = await self.client.request(method, path, json=body)
        seconds = time.monotonic() - began
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
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self.ask(*request)) for request in requests]
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

    async def ends_well(self, *job_ids: str, state: str = "Succeeded") -> None:
        """Wait until the jobs are finished; they were told once and nothing is left of them."""
        for job_id in job_ids:
            shown = await self.until_finished(job_id)
            assert (job_id, shown["state"]) == (job_id, state), shown
            said = self.told(job_id)
            assert said[-1] == state.lower(), said
            assert len(set(said)) == len(said), said
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
        "actors": len(controller._actors),
        "couriers": len(controller._couriers),
        "turns": doors.limiter.waiting,
        "tallies": len(doors.storage._tallies),
        "events over their bound": max(0, doors.events._queue.qsize() - 1000),
    }
    return {what: size for what, size in sizes.items() if size}


# Faults


@dataclass(frozen=True, slots=True)
class Harm:
    """A fault that is on: `hits` counts what it spoilt, `end` ends it."""

    hits: Callable[[], int]
    end: Callable[[], Awaitable[None]]


Fault = Callable[[Neighbourhood], Harm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fault, the moments of the job at which it strikes, and how long (seconds, hits)."""

    fault: Fault
    moments: tuple[str, ...] = ("running",)
    lasts: float = 0.3
    hits: int = 1
    plan: Plan = RUNS
    state: str = "Succeeded"
    hosts: dict[str, str] = field(default_factory=dict)


def rules_of(on: Neighbourhood, neighbour: str) -> FaultRules:
    """Give the fault rules of a neighbour."""
    rules: FaultRules = getattr(on.world, {"kubernetes": "kube"}.get(neighbour, neighbour)).faults
    return rules


def answers(
    neighbour: str, kind: Any, *, method: str = "*", path: str = ".*", **options: Any
) -> Fault:
    """Make the fault by which a neighbour spoils its answers; options as of `FaultRules.add`."""

    def begin(on: Neighbourhood) -> Harm:
        rules = rules_of(on, neighbour)
        rule = rules.add(method, path, kind, **options)

        async def end() -> None:
            rules.remove(rule)

        return Harm(lambda: rule.hits, end)

    return begin


def line_is(neighbour: str, how: Literal["refuse", "silence", "slow"], *pause: float) -> Fault:
    """Make the fault of a line."""

    def begin(on: Neighbourhood) -> Harm:
        line = on.lines[neighbour]
        getattr(line, how)(*pause)
        return Harm(lambda: line.harmed, line.mend)

    return begin


def name_is_unknown(neighbour: str, host: str) -> Fault:
    """Make the fault of a name service that does not know a neighbour's host; its line is cut."""

    def begin(on: Neighbourhood) -> Harm:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NamesLoop)
        before = loop.failed
        loop.unknown.add(host)
        on.lines[neighbour].cut()

        async def end() -> None:
            loop.unknown.discard(host)

        return Harm(lambda: loop.failed - before, end)

    return begin


def at_once(change: Callable[[Neighbourhood], object]) -> Fault:
    """Make a fault of one change that stays."""

    def begin(on: Neighbourhood) -> Harm:
        change(on)
        return Harm(lambda: 1, _nothing)

    return begin


async def _nothing() -> None:
    """End what ends by itself."""


def common(neighbour: str, *, method: str = "*", path: str = ".*", **cell: Any) -> dict[str, Cell]:
    """Give the cells that every neighbour has: what its answers may be, whatever they are about."""

    def spoilt(kind: Any, **options: Any) -> Cell:
        fault = answers(neighbour, kind, method=method, path=path, **options)
        return Cell(fault=fault, **cell)

    def status(code: int, reason: str, **headers: str) -> Cell:
        body = {"kind": "Status", "code": code, "reason": reason, "message": "injected"}
        return spoilt("status", status=code, body=json.dumps(body), headers=headers)

    return {
        "refused connection": Cell(fault=line_is(neighbour, "refuse"), **(cell | {"hits": 0})),
        "hang": Cell(fault=line_is(neighbour, "silence"), **cell),
        "reset in mid-body": spoilt("reset_body"),
        "truncated JSON": spoilt("truncate"),
        "HTML 502": spoilt("html"),
        "401 for a while": status(401, "Unauthorized"),
        "403 for a while": status(403, "Forbidden"),
        "409": status(409, "Conflict"),
        "410": status(410, "Expired"),
        "429 with Retry-After": status(429, "TooManyRequests", **{"Retry-After": "1"}),
        "429 without Retry-After": status(429, "TooManyRequests"),
        "500": status(500, "InternalError"),
        "an object that does not parse": spoilt("status", status=200, body='{"kind": [null]}'),
    }


async def others_go_on(fault: Fault, moment: str) -> None:
    """Let a fault strike one job for long; another one is launched and finished meanwhile."""
    async with neighbourhood() as on:
        harms: list[Harm] = []
        reached = on.at(moment, lambda: harms.append(fault(on)))
        await on.launch()
        await on.happens(reached, f"the job is {moment}")
        await on.until(lambda: harms[0].hits() > 0, "the fault is met")
        await on.launch(BYSTANDER)
        assert (await on.until_finished(BYSTANDER))["state"] == "Succeeded"
        assert on.told(BYSTANDER)[-1] == "succeeded"
        assert (await on.show())["live"]

        await harms[0].end()

        await on.ends_well(JOB, BYSTANDER)


Outcomes: TypeAlias = dict[str, Exception]
"""What went wrong, by cell."""


async def outlive(cell: Cell) -> None:
    """Let one fault strike a running service, end it, and see everything come right by itself."""
    async with neighbourhood(cell.plan, hosts=cell.hosts) as on:
        strikes = [_Strike(on, cell, moment) for moment in cell.moments]
        first = await on.client.post("/launch", json=launch_body())
        assert first.status_code in (201, 503), first.text
        is_launched = False
        for strike in strikes:
            is_launched |= await strike.lasts()
            if first.status_code != 201:
                await on.launch_patiently()
        if not is_launched:
            await on.launch_patiently(BYSTANDER)
        await on.ends_well(JOB, BYSTANDER, state=cell.state)


async def outlive_all(request: pytest.FixtureRequest, cells: Mapping[str, Cell]) -> Outcomes:
    """Run the selected cells, some at a time: most of their time is waiting."""
    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
    }
    outcomes: Outcomes = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def run(name: str) -> None:
        async with gate:
            try:
                await outlive(cells[name])
            except Exception as error:  # noqa: BLE001 - told by the test of this cell
                outcomes[name] = error

    async with asyncio.TaskGroup() as group:
        for name in cells:
            if name in chosen:
                group.create_task(run(name))
    return outcomes


def tell(outcomes: Outcomes, name: str) -> None:
    """Raise what went wrong in a cell."""
    if name in outcomes:
        raise outcomes[name]


class _Strike:
    """A fault waiting for its moment."""

    def __init__(self, on: Neighbourhood, cell: Cell, moment: str) -> None:
        self._on, self._cell, self._moment = on, cell, moment
        self._harm: Harm | None = None
        if moment == "before":
            self._strike()
            self._reached = asyncio.Event()
            self._reached.set()
        else:
            self._reached = on.at(moment, self._strike)

    def _strike(self) -> None:
        self._harm = self._cell.fault(self._on)

    async def lasts(self) -> bool:
        """Wait for the moment, look at the API while the fault lasts, end it.

        Tell whether the bystander was accepted.
        """
        on, cell = self._on, self._cell
        await on.happens(self._reached, f"the job is {self._moment}")
        harm = self._harm
        assert harm is not None
        try:
            answers = await on.probe()
            await on.until(lambda: harm.hits() >= cell.hits, "the fault is met")
            await asyncio.sleep(cell.lasts)
        finally:
            await harm.end()
        return answers[0].status == 201


# The service and its world


@asynccontextmanager
async def neighbourhood(
    plan: Plan | None = None, *, hosts: dict[str, str] | None = None, **changes: str
) -> AsyncIterator[Neighbourhood]:
    """Run the service on a world, with a line to each neighbour; `hosts` names some of them."""
    async with town(plan) as there, service_in(there, hosts=hosts or {}, **changes) as on:
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
    there: Town, *, hosts: dict[str, str], **changes: str
) -> AsyncIterator[Neighbourhood]:
    """Run the service in a town; it need not be ready."""
    wall = Wall()
    environment = _environment(there, hosts) | changes
    settings = Settings.model_validate({key.lower(): value for key, value in environment.items()})
    app = create_app(settings, limits=QUICK, clock=SteadyClock(wall))
    async with (
        _serve(app) as url,
        httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(10.0)) as client,
    ):
        running = Running(there.world, url, client)
        service: Service = app.state.service
        yield Neighbourhood(running, service, there.lines, folder=there.folder, wall=wall)


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


# The document


def documented(neighbour: str) -> set[str]:
    """Name the tests in the table of one neighbour in docs/reliability.md."""
    section = DOCUMENT.read_text().partition(f"\n## {neighbour}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(test_[a-z0-9_]+(?:\[[^`\]]+\])?)` *\|\n", section))


def names_of(module: dict[str, Any]) -> set[str]:
    """Name the tests of a module, those of its cells by cell, but for the one that asks this."""
    names = {name for name in module if name.startswith("test_")}
    by_cell = next(name for name in names if name.startswith("test_a_job_outlives"))
    single = names - {by_cell, "test_every_cell_of_the_document_is_tested"}
    return single | {f"{by_cell}[{cell}]" for cell in module["CELLS"]}
