"""The service's calls, seen at the stand-ins: counted, named, and a place to end it in mid-call.

No story and no rule; which call ends the service is the caller's choice.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pyvatti.sandbox.faults import FaultRules, cut, fault_middleware
from pyvatti.sandbox.world import World

WRITE = "any write"
DRIVERS = ("aiohttp/", "Nextflow/")  # in the user agents of the simulated drivers


class Side(StrEnum):
    """Where in a call the service dies."""

    BEFORE = "before"  # it is sent and not acted upon
    AFTER = "after"  # it is acted upon and the answer is lost


class Point(NamedTuple):
    """The n-th call (from 1) of a kind, such as `kubernetes POST jobs`."""

    what: str
    number: int

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.what} #{self.number}"

    @property
    def changes_something(self) -> bool:
        """Whether "after" differs from "before": a read that was acted upon left no trace."""
        return " GET " not in self.what and not self.what.endswith(" events")


class Kill(NamedTuple):
    """Where the service is to die."""

    point: Point
    side: Side

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.side} {self.point}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a service. `port` is its side of the connection."""

    neighbour: str
    method: str
    path: str
    port: int
    headers: dict[str, str]

    @property
    def what(self) -> str:
        """Name the kind of call: neighbour, method and kind of object."""
        return f"{self.neighbour} {self.method} {_KIND[self.neighbour](self.path)}"

    @property
    def is_background(self) -> bool:
        """Whether it is made for no job: election, watches, access reviews, Seqera passes."""
        steady = ("/leases", "watch=true", "/selfsubjectaccessreviews")
        return self.neighbour == "seqera" or any(part in self.path for part in steady)


Ender = Callable[[], Awaitable[None]]


class Answer(NamedTuple):
    """What a stand-in did with a call.

    `arrived`: no fault kept the answer from the caller. `is_late`: the caller was gone before it
    was acted upon, for it was delayed.
    """

    status: int
    request: bytes
    arrived: bool
    is_late: bool


Answered = Callable[[Call, Answer], None]


class Calls:
    """Stands around all stand-ins of a world.

    `answered` hear of each call that a stand-in acted upon, once it is answered. Counting
    begins anew with `expect`; the call named there runs `end`. `faults` spoil calls of services
    alone, by neighbour; those of the stand-ins themselves spoil the drivers' too.
    """

    def __init__(self, world: World, *, is_alone: bool = True) -> None:
        """`is_alone`: nobody else stands around the neighbours that two worlds share."""
        self.seen: list[Point] = []
        self.seen_before_kill: list[Point] = []
        self.answered: list[Answered] = []
        self.counted: Callable[[Call], bool] = lambda call: not call.is_background
        around = {
            name: rules
            for name, rules in _rules(world).items()
            if is_alone or name not in ("storage", "seqera")
        }
        self.faults = {name: FaultRules() for name in around}
        self._counts: Counter[str] = Counter()
        self._kill: Kill | None = None
        self._end: Ender | None = None
        self._is_cut_off = True
        for name, rules in around.items():
            rules.around = self._around(name)

    @property
    def is_armed(self) -> bool:
        """Whether the kill is still to come."""
        return self._kill is not None

    def expect(
        self, kill: Kill | None = None, end: Ender | None = None, *, is_cut_off: bool = True
    ) -> None:
        """Count from 1 again; run `end` at the call named, once.

        Unless `is_cut_off` that call is answered: whoever made it lives, or wakes up later.
        """
        self.seen, self.seen_before_kill = [], []
        self._is_cut_off = is_cut_off
        self._counts.clear()
        self._kill, self._end = kill, end

    def disarm(self) -> list[Point]:
        """Let nothing end any more; give the calls seen, up to the one that ended something."""
        self._kill = None
        seen, self.seen_before_kill = self.seen_before_kill or self.seen, []
        return [*seen]  # what comes later belongs to no story

    def _around(self, name: str) -> Middleware:
        spoil = fault_middleware(self.faults[name])

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            agent = request.headers.get("User-Agent", "")
            if any(driver in agent for driver in DRIVERS):
                return await handler(request)
            return await self._pass(_call(name, request), request, handler, spoil)

        return around

    async def _pass(
        self, call: Call, request: web.Request, handler: Handler, spoil: Middleware
    ) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionResetError:  # it died while it was sending
            return cut(request)
        side, end = self._side_of(call), self._end
        if side is Side.BEFORE and end is not None:
            await end()
            if self._is_cut_off:
                return cut(request)
        meant: list[web.StreamResponse] = []

        async def act(passed: web.Request) -> web.StreamResponse:
            meant.append(await handler(passed))
            return meant[-1]

        answer = await spoil(request, act)
        for heard in self.answered if meant else ():
            is_late = _has_hung_up(request)
            arrived = meant[-1] is answer and not is_late
            heard(call, Answer(meant[-1].status, body, arrived, is_late))
        if side is Side.AFTER and end is not None:
            await end()
            if self._is_cut_off:
                return cut(request)
        return answer

    def _side_of(self, call: Call) -> Side | None:
        """Count a call; give the side on which it ends the service."""
        if not self.counted(call):
            return None
        point = self._count(call.what)
        self.seen.append(point)
        reached = {point}
        if point.changes_something:
            reached.add(self._count(WRITE))
        if self._kill is None or self._kill.point not in reached:
            return None
        side, self._kill = self._kill.side, None
        self.seen_before_kill = [*self.seen]
        return side

    def _count(self, what: str) -> Point:
        self._counts[what] += 1
        return Point(what, self._counts[what])


def _rules(world: World) -> dict[str, FaultRules]:
    return {
        "kubernetes": world.kube.faults,
        "storage": world.storage.faults,
        "seqera": world.seqera.faults,
        "backend": world.backend.faults,
    }


def _call(name: str, request: web.Request) -> Call:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return Call(
        neighbour=name,
        method=request.method,
        path=request.raw_path,
        port=peer[1] if peer else 0,
        headers={key.lower(): value for key, value in request.headers.items()},
    )


def _has_hung_up(request: web.Request) -> bool:
    """Tell whether the caller is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return True
    ours = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(ours.fileno())) as same:
        try:
            return not same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:  # it waits for its answer
            return False
        except OSError:
            return True


def _kube_kind(path: str) -> str:
    found = re.search(r"/namespaces/[^/]+/([a-z]+)", path)
    return found.group(1) if found else path.partition("?")[0]


def _storage_kind(path: str) -> str:
    if path.startswith("/batch"):
        return "batch"
    return "objects" if "/o?" in path else "bucket"


_KIND: dict[str, Callable[[str], str]] = {
    "kubernetes": _kube_kind,
    "storage": _storage_kind,
    "seqera": lambda _path: "runs",
    "backend": lambda _path: "status",
}
