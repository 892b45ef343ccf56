"""The only door to Seqera Platform: one list pass for all runs, single runs, a check at start-up.

What a status means for a job is the policy's; how often to ask is the lifecycle's.
Source: seqeralabs/terraform-provider-seqera `specs/seqera-api-cloud.yaml` (API 1.187.0).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import structlog

from pyvatti import foreign
from pyvatti.errors import Unavailable, trim
from pyvatti.guard import Guard
from pyvatti.jobs import read_time
from pyvatti.models import Run, RunStatus
from pyvatti.rest import Response, Rest, Timeouts
from pyvatti.settings import Settings
from pyvatti.telemetry import counted

log = structlog.get_logger(__name__)

PAGE = 50
OVERLAP = 2  # rows asked for twice: so many may vanish between two pages and none is missed
MAX_PAGES = 200
SKEW = timedelta(minutes=5)  # our clock and Seqera's may differ by so much
CALL_INTERVAL = 1 / 15  # seconds; the limit is 20 calls per second and token
PAGE_LIMIT = 32 * 2**20  # bytes
LONGEST = 2**20  # characters of one text that are looked at
REPORT_LIMIT = 8192  # characters kept of each end of an error report
NOTED_LIMIT = 100  # oddities remembered, so that each is logged once


Clean = Callable[[str, str], str]
"""Gives a text of the run of a name without what must not be told; its ends may be cut off."""


def _clean(_name: str, text: str) -> str:
    return foreign.clean(text, is_cut=True)


def utc_now() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)


class Seqera:
    """Follows runs of one workspace by their names. Workspace 0 is the token's personal one."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], datetime] = utc_now,
        interval: float = CALL_INTERVAL,
    ) -> None:
        self._rest = Rest(
            settings.tower_api_url,
            scheme="Bearer",
            token=settings.tower_token.get_secret_value().strip(),
            timeouts=timeouts or Timeouts(),
            body_limit=PAGE_LIMIT,
            authorities=settings.extra_ca_file,
            transport=transport,
        )
        workspace = settings.tower_workspace
        self._query: dict[str, str | int] = {"workspaceId": workspace} if workspace else {}
        self._clock = clock
        self._interval = interval
        self._next_call = 0.0
        self._noted: set[str] = set()
        self._guard = Guard("seqera")

    async def runs(self, names: Mapping[str, datetime], clean: Clean = _clean) -> dict[str, Run]:
        """Give the newest run of each name submitted since its launch (UTC), less 5 minutes.

        `clean` takes out of a text what the run of a name must not tell.

        One pass over the list: names are compared exactly, a name without a row is left out.
        Ends at the end of the list, or earlier if rows come newest first, as they usually do:
        once every name is found or no later row can be young enough. One row out of order, and
        the whole list is read, for nothing is known of the rows that follow.
        Raises Denied or Unavailable if any page fails, or if 200 pages were not enough.
        """
        search = _Search(names, self._clock(), clean)
        offset, before = 0, None
        for _ in range(MAX_PAGES if names else 0):
            rows, more = await self._page(offset)
            search.note_order([self._read_guarded(row, search) for row in rows])
            # A server that ignores `offset` repeats itself.
            if not more or rows == before or search.is_settled:
                return search.found
            offset, before = offset + max(len(rows) - OVERLAP, 1), rows
        if len(search.found) < len(names):
            raise Unavailable(f"the list of runs did not end within {MAX_PAGES} pages")
        return search.found

    async def find(self, name: str, launched: datetime, clean: Clean = _clean) -> Run | None:
        """Look up one run by one call; None proves nothing, for not all servers know the keyword.

        Raises Denied or Unavailable.
        """
        search = _Search({name: launched}, self._clock(), clean)
        rows, more = await self._page(0, search=f"runName:{name}")
        for row in rows:
            self._read_guarded(row, search)
        return None if more else search.found.get(name)

    async def check(self) -> None:
        """Ask for one row, as each pass will: token, workspace and address are wrong or right.

        Raises Denied or Unavailable.
        """
        await self._page(0, most=1)

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the turn of one call and count it, and whether its answer was of use."""
        loop = asyncio.get_running_loop()
        turn = max(self._next_call, loop.time())
        self._next_call = turn + self._interval
        await asyncio.sleep(turn - loop.time())
        with counted("seqera"):
            yield

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
    ) -> Response:
        return await self._rest.call(
            method, path, query={**self._query, **(query or {})}, body=body
        )

    async def _page(
        self, offset: int, *, most: int = PAGE, **search: str
    ) -> tuple[list[Any], bool]:
        """Read {"workflows": [..], "hasMore"?}; give its rows and whether there may be more.

        `totalSize` is null unless asked for and says nothing. A server may give more rows than
        asked for; fewer are the last ones unless it says that it has more.
        """
        async with self._turn():
            query: dict[str, str | int] = {"max": most, "offset": offset, **search}
            response = await self._call("GET", "/workflow", query)
            answer = _object(response, "GET /workflow")
            rows, more = answer.get("workflows"), answer.get("hasMore")
            if not isinstance(rows, list):
                raise Unavailable("GET /workflow answered no list of workflows")
        return rows, bool(rows) and (more if isinstance(more, bool) else len(rows) >= most)

    def _read_guarded(self, element: Any, search: "_Search") -> datetime | None:
        """Read a row; one that breaks the reading, whosever it is, counts as one without a time."""
        try:
            return self._read(element, search)
        except Exception as error:  # noqa: BLE001 - rows are written by everybody
            self._guard.note("row", error)
            return None

    def _read(self, element: Any, search: "_Search") -> datetime | None:
        """Take what matters from {"workflow": {..}} and give the time of submission."""
        row = element.get("workflow") if isinstance(element, dict) else None
        name = row.get("runName") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(name, str):
            self._note_once("seqera row skipped", "row without a run name")
            return None
        submitted = _time_of(row)
        if name not in search.wanted:
            return submitted
        if submitted is None:
            self._note_once("seqera row skipped", f"run {name} without a time")
            return None
        run = _run(row, name, submitted, search)
        if run.status is RunStatus.OTHER:
            self._note_once("seqera status not known", run.raw_status or "null")
        search.note(run, submitted)
        return submitted

    def _note_once(self, event: str, what: str) -> None:
        if what not in self._noted and len(self._noted) < NOTED_LIMIT:
            self._noted.add(what)
            log.warning(event, what=what)


@dataclass(slots=True)
class _Search:
    """What one pass looks for and has seen so far."""

    wanted: Mapping[str, datetime]
    now: datetime
    clean: Clean
    found: dict[str, Run] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    disordered: bool = False

    def note_order(self, page: list[datetime | None]) -> None:
        """Note whether the rows of a page come newest first; where undated, nobody knows.

        A page may begin with rows of the one before: by overlap, or when new ones moved them.
        """
        times = [time for time in page if time is not None]
        self.disordered |= len(times) < len(page) or times != sorted(times, reverse=True)
        if times:
            self.first = self.first or times[0]
            self.disordered |= times[-1] > (self.last or times[-1])
            self.last = times[-1]

    def note(self, run: Run, submitted: datetime) -> None:
        """Keep a run if it is of our launch and the newest of its name."""
        before = self.found.get(run.name)
        newest = before is None or before.submitted_at is None or submitted > before.submitted_at
        if newest and submitted >= self.wanted[run.name] - SKEW:
            self.found[run.name] = run

    @property
    def is_settled(self) -> bool:
        """Whether no later row can matter."""
        if self.disordered or self.last is None or self.last == self.first:
            return False
        too_old = min(self.wanted.values()) - SKEW
        return self.last < too_old or len(self.found) == len(self.wanted)


def _object(response: Response, target: str) -> dict[str, Any]:
    """Read a 200 with a JSON object. Raises Denied or Unavailable for anything else."""
    if response.status != 200:
        raise response.error(target)
    try:
        # Not orjson: one lone surrogate in one error report would make it refuse the whole page.
        answer = json.loads(response.body.decode(errors="replace"))
    except (ValueError, RecursionError) as exc:
        raise Unavailable(f"{target} answered no JSON: {response.text}") from exc
    if not isinstance(answer, dict):
        raise Unavailable(f"{target} answered no JSON object: {response.text}")
    return answer


def _run(row: Mapping[str, Any], name: str, submitted: datetime, search: _Search) -> Run:
    """Read a row; the specification marks no field nullable, yet any of them arrives as null."""
    raw = row.get("status")
    status = RunStatus.__members__.get(raw) if isinstance(raw, str) else None
    exit_status = row.get("exitStatus")
    is_code = type(exit_status) is int and abs(exit_status) < 2**31
    return Run(
        name=name,
        status=status or RunStatus.OTHER,
        submitted_at=submitted,
        seen_at=search.now,
        workflow_id=trim(search.clean(name, _text(row.get("id"))[:LONGEST])) or None,
        exit_status=exit_status if is_code else None,
        error_message=_ends(search.clean(name, _text(row.get("errorMessage"))[:LONGEST])),
        error_report=_ends(search.clean(name, _text(row.get("errorReport"))[:LONGEST])),
        raw_status="" if raw is None else trim(search.clean(name, _text(str(raw))[:LONGEST])),
    )


def _time_of(row: Mapping[str, Any]) -> datetime | None:
    """Give the time of submission, or where it is missing the next best one."""
    times = (_time(row.get(key)) for key in ("submit", "start", "dateCreated"))
    return next((time for time in times if time is not None), None)


def _time(value: Any) -> datetime | None:
    return read_time(value) if isinstance(value, str) else None


def _text(value: Any) -> str:
    """Give a text that can be written as UTF-8, which one with lone surrogates cannot."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _ends(report: str) -> str:
    """Keep both ends of a long report: its first line names the process, its last the error."""
    if len(report) <= 2 * REPORT_LIMIT:
        return report
    return f"{report[:REPORT_LIMIT]}\n[...]\n{report[-REPORT_LIMIT:]}"
