"""A stand-in Seqera Platform: the REST API a follower reads and the trace API a driver speaks.

How runs change is known in `seqera_runs`; here are routes, access, paging and shapes.
"""

import base64
import hmac
import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pyvatti.sandbox.loopback import Loopback
from pyvatti.sandbox.seqera_runs import HIDDEN, SHOWN, Refused, RunRow, Runs, matching, stamp

DEFAULT_PAGE = 50
LARGEST_PAGE = 100
_COUNTS = ("pending", "submitted", "running", "succeeded", "failed", "cached", "aborted")


class SeqeraStandIn(Loopback):
    """A server with one workspace (None: any) and one token.

    `page_size` and `order` make it answer in ways a follower must bear; `strange` elements are
    put before the rows of each list.
    """

    def __init__(
        self,
        *,
        token: str = "sandbox-seqera-token",
        workspace: int | None = None,
        clock: Callable[[], datetime] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.token = token
        self.workspace = workspace
        self.runs = Runs(clock)
        self.page_size: int | None = None
        self.order: Literal["newest", "oldest", "random"] = "newest"
        self.tells_more = True
        self.strange: list[Any] = []

    # For tests and the demonstration

    def advance(self, seconds: float) -> None:
        """Let the server's time pass."""
        self.runs.advance(seconds)

    def put_run(
        self,
        name: str,
        status: str = "RUNNING",
        *,
        submit: datetime | None = None,
        nulls: Iterable[str] = (),
        **fields: Any,
    ) -> str:
        """Add a row as real lists hold them and give the id for the single routes.

        `submit` is now unless given. `fields` are fields of the row, in snake case or as on the
        wire (`exit_status=14`, `id="x"`); without `id` the list shows null there. `nulls` names
        fields that are null.
        """
        fields = {_camel(key): value for key, value in fields.items()}
        at = stamp(submit or self.runs.now)
        final = status in ("SUCCEEDED", "FAILED", "CANCELLED")
        workflow = dict.fromkeys((*SHOWN, *HIDDEN)) | {
            "submit": at,
            "start": None if status == "SUBMITTED" else at,
            "complete": stamp(self.runs.now) if final else None,
            "dateCreated": at,
            "lastUpdated": at,
            "runName": name,
            "sessionId": str(uuid4()),
            "projectName": "gdp-public/pgsc_calc",
            "status": status,
            "exitStatus": 0 if status == "SUCCEEDED" else None,
            "resume": False,
            "success": status == "SUCCEEDED" if final else None,
        }
        key = str(fields.get("id") or uuid4().hex[:14])
        self.runs.put(RunRow(key, workflow | fields | dict.fromkeys(nulls)))
        return key

    def status_of(self, name: str) -> str | None:
        """Give the status of the newest run of a name."""
        rows = (row.workflow for row in self.runs.all() if row.workflow["runName"] == name)
        return next((row["status"] for row in rows), None)

    # The server

    def middlewares(self) -> list[Middleware]:
        """Check the token and the workspace, and word refusals."""
        return [self._guard]

    def routes(self) -> Iterable[web.RouteDef]:
        """Give the routes of REST and of the trace protocol."""
        return (
            web.get("/service-info", self._service_info),
            web.get("/user-info", self._user_info),
            web.get("/user/{id}/workspaces", self._workspaces),
            web.get("/workflow", self._list),
            web.get("/workflow/validate", self._validate),
            web.get("/workflow/{id}", self._describe),
            web.get("/workflow/{id}/progress", self._progress),
            web.post("/workflow/{id}/cancel", self._cancel),
            web.delete("/workflow/{id}", self._delete),
            web.post("/trace/create", self._trace_create),
            web.put("/trace/{id}/begin", self._trace_begin),
            web.put("/trace/{id}/progress", self._trace_progress),
            web.put("/trace/{id}/heartbeat", self._trace_heartbeat),
            web.put("/trace/{id}/complete", self._trace_complete),
        )

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/service-info" and not self._knows(request):
            return web.Response(status=401)
        asked = request.query.get("workspaceId")
        if self.workspace is not None and asked not in (None, str(self.workspace)):
            return web.Response(status=403)
        try:
            return await handler(request)
        except Refused as refusal:
            message = f"{refusal} - Error ID: {uuid4().hex[:22]}"
            return web.json_response({"message": message}, status=refusal.status)

    def _knows(self, request: web.Request) -> bool:
        basic = base64.b64encode(f"@token:{self.token}".encode()).decode()
        said = request.headers.get("Authorization", "").encode()
        accepted = (f"Bearer {self.token}", f"Basic {basic}")
        return any(hmac.compare_digest(said, value.encode()) for value in accepted)

    # REST

    async def _service_info(self, _request: web.Request) -> web.Response:
        info = {"version": "sandbox", "apiVersion": "1.187.0", "heartbeatInterval": 60}
        return web.json_response({"serviceInfo": info | {"seqeraCloud": False, "authTypes": []}})

    async def _user_info(self, _request: web.Request) -> web.Response:
        user = {"id": 1, "userName": "sandbox", "email": "sandbox@example.org"}
        return web.json_response({"user": user, "needConsent": False, "defaultWorkspaceId": None})

    async def _workspaces(self, _request: web.Request) -> web.Response:
        one = {"orgId": 1, "orgName": "sandbox", "workspaceName": "sandbox", "roles": ["owner"]}
        one |= {"workspaceId": self.workspace or 1, "workspaceFullName": "[sandbox/sandbox]"}
        return web.json_response({"orgsAndWorkspaces": [one]})

    async def _list(self, request: web.Request) -> web.Response:
        size = _number(request, "max", DEFAULT_PAGE)
        offset = _number(request, "offset", 0)
        if size > LARGEST_PAGE:
            raise Refused(400, f"Parameter max cannot be greater than {LARGEST_PAGE}")
        rows = matching(self.runs.all(), request.query.get("search", ""))
        if self.order == "oldest":
            rows.reverse()
        elif self.order == "random":
            random.Random(len(rows)).shuffle(rows)  # noqa: S311 - the same order for each page
        elements = [*self.strange, *(self._element(row) for row in rows)]
        page = elements[offset : offset + (self.page_size or size)]
        wants_total = request.query.get("includeTotalSize") == "true"
        answer: dict[str, Any] = {
            "workflows": page,
            "totalSize": len(elements) if wants_total else None,
        }
        if self.tells_more:
            answer["hasMore"] = offset + len(page) < len(elements)
        return web.json_response(answer)

    def _element(self, row: RunRow) -> dict[str, Any]:
        place = {"orgId": 1, "orgName": "sandbox", "workspaceId": self.workspace or 1}
        return {
            "workflow": row.listed(),
            "progress": None,
            "labels": None,
            "starred": False,
        } | place

    async def _validate(self, request: web.Request) -> web.Response:
        pair = (request.query.get("sessionId"), request.query.get("runName"))
        if None in pair:
            raise Refused(400, "Missing sessionId or runName")
        taken = ((row.workflow["sessionId"], row.workflow["runName"]) for row in self.runs.all())
        if pair in taken:
            raise Refused(409, f"Workflow run already exists: {pair[1]}")
        return web.Response(status=204)

    async def _describe(self, request: web.Request) -> web.Response:
        row = self.runs.get(request.match_info["id"])
        job = {"status": None, "message": None, "exitCode": None}
        shown = {"workflow": row.workflow | {"id": row.key}, "progress": _progress(row)}
        return web.json_response({**shown, "jobInfo": job, "orgId": 1, "labels": []})

    async def _progress(self, request: web.Request) -> web.Response:
        row = self.runs.get(request.match_info["id"])
        return web.json_response({"progress": _progress(row)})

    async def _cancel(self, request: web.Request) -> web.Response:
        self.runs.cancel(request.match_info["id"], force=_is_forced(request))
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self.runs.delete(request.match_info["id"], force=_is_forced(request))
        return web.Response(status=204)

    # Trace protocol

    async def _trace_create(self, request: web.Request) -> web.Response:
        said = await _json(request)
        session, name = said.get("sessionId"), said.get("runName")
        if not (isinstance(session, str) and isinstance(name, str) and name):
            raise Refused(400, "Missing sessionId or runName")
        key = self.runs.reserve(session, name)
        return web.json_response({"workflowId": key, "message": None, "watchUrl": self._watch(key)})

    async def _trace_begin(self, request: web.Request) -> web.Response:
        said, key = await _json(request), request.match_info["id"]
        self.runs.begin(key, _workflow(said))
        answer = {"workflowId": key, "status": "OK", "watchUrl": self._watch(key)}
        return web.json_response(answer)

    async def _trace_progress(self, request: web.Request) -> web.Response:
        said, key = await _json(request), request.match_info["id"]
        self.runs.hear(key, said.get("progress"))
        return web.json_response({"workflowId": key, "status": "OK"})

    async def _trace_heartbeat(self, request: web.Request) -> web.Response:
        said = await _json(request)
        self.runs.hear(request.match_info["id"], said.get("progress"))
        return web.json_response({"message": "OK"})

    async def _trace_complete(self, request: web.Request) -> web.Response:
        said, key = await _json(request), request.match_info["id"]
        self.runs.complete(key, _workflow(said))
        return web.json_response({"workflowId": key, "status": "OK"})

    def _watch(self, key: str) -> str:
        return f"{self.url}/watch/{key}"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, f"Parameter {name} must be a number of at least 0")
    return int(text)


def _is_forced(request: web.Request) -> bool:
    return request.query.get("force") == "true"


def _progress(row: RunRow) -> dict[str, Any]:
    counts = {name: row.progress.get(name, 0) for name in _COUNTS}
    return {"workflowProgress": counts, "processesProgress": row.progress.get("processes") or []}


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        said = json.loads(await request.read())
    except ValueError as exc:
        raise Refused(400, "Request body is no JSON") from exc
    if not isinstance(said, dict):
        raise Refused(400, "Request body is no JSON object")
    return said


def _workflow(said: dict[str, Any]) -> dict[str, Any]:
    workflow = said.get("workflow")
    if not isinstance(workflow, dict):
        raise Refused(400, "Missing workflow")
    return workflow
