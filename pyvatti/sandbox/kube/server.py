"""The API server of the stand-in: routes a request, checks the caller, answers as Kubernetes does.

What objects do is in the modules beside this one.
"""

from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pyvatti.sandbox.faults import FaultRules, fault_middleware
from pyvatti.sandbox.kube import calls, discovery, openapi, reading, removing, writing
from pyvatti.sandbox.kube.access import Access, access_review, rules_review, token_request
from pyvatti.sandbox.kube.calls import Call, Target
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.podlog import serve_log
from pyvatti.sandbox.kube.resources import Resource
from pyvatti.sandbox.kube.store import Store
from pyvatti.sandbox.kube.watching import WatchStream

Body = dict[str, Any]

BODY_LIMIT_BYTES = 3 * 1024 * 1024
LOG_SIZE = 50_000
HEALTH = ("healthz", "livez", "readyz")
AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(slots=True)
class RequestRecord:
    """One request as it came in; `status` is 0 until it is answered."""

    time: datetime
    method: str
    path: str
    user_agent: str
    user: str = ""
    verb: str = ""
    resource: str = ""
    name: str = ""
    status: int = 0


_RECORD: ContextVar[RequestRecord] = ContextVar("record")


class ApiServer:
    """Answers requests for one store. `requests` keeps the last 50,000."""

    def __init__(
        self, store: Store, access: Access, logs: PodLogs, *, bookmark_seconds: float
    ) -> None:
        self.store = store
        self.access = access
        self.logs = logs
        self.bookmark_seconds = bookmark_seconds
        self.faults = FaultRules()
        self.requests: deque[RequestRecord] = deque(maxlen=LOG_SIZE)
        self.streams: set[WatchStream] = set()

    def application(self) -> web.Application:
        """Make the aiohttp application."""
        application = web.Application(
            client_max_size=BODY_LIMIT_BYTES,
            middlewares=[self._record(), fault_middleware(self.faults)],
        )
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    def _record(self) -> Middleware:
        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            entry = RequestRecord(
                self.store.now(),
                request.method,
                request.raw_path,
                request.headers.get("User-Agent", ""),
            )
            self.requests.append(entry)
            _RECORD.set(entry)
            answer = await handler(request)
            entry.status = answer.status
            return answer

        return record

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as exc:
            headers = {}
            retry = exc.details.get("retryAfterSeconds")
            if retry:
                headers["Retry-After"] = str(retry)
            return _json(exc.status(), exc.code, headers=headers)
        except web.HTTPRequestEntityTooLarge:
            error = ApiError(413, f"Request entity too large: limit is {BODY_LIMIT_BYTES}")
            return _json(error.status(), 413)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        record = _RECORD.get()
        user = record.user = self.access.identify(request.headers.get("Authorization", ""))
        path = request.raw_path.partition("?")[0]
        target = calls.parse_target(path)
        if target is None:
            self.access.check_path(user, path)
            return self._about(request, path)
        query = dict(request.query)
        verb = calls.verb_of(request.method, target, query)
        attributes = calls.attributes_of(target, verb)
        record.verb, record.resource, record.name = verb, attributes.qualified, target.name
        self.access.check(user, attributes)
        data = await request.read()
        resource = calls.resource_of(target)
        if resource is None:
            return self._review(target, verb, user, data, request)
        _check_served(resource, target, verb)
        call = Call(
            resource=resource,
            target=target,
            verb=verb,
            query=query,
            user=user,
            agent=record.user_agent,
            accept=request.headers.get("Accept", ""),
            media=request.headers.get("Content-Type", ""),
            data=data,
        )
        if target.subresource == "token":
            return _json(
                token_request(
                    self.access, target.namespace, target.name, calls.decode(data, call.media)
                ),
                201,
            )
        if target.subresource in ("log", "eviction"):
            return await self._pod_action(request, call)
        if verb == "watch":
            return await self._watch(request, call)
        return await self._object(call)

    async def _object(self, call: Call) -> web.Response:
        store = self.store
        if call.verb == "get":
            return _raw(reading.get(store, call))
        if call.verb == "list":
            return _raw(await reading.list_page(store, call))
        view = reading.view_of(store, call)
        if call.verb == "delete":
            removed = removing.delete(store, call)
            if removed.object is None:
                return _json(removed.status, warnings=call.warnings)
            return _raw(view.one(removed.object), warnings=call.warnings)
        if call.verb == "deletecollection":
            found = removing.delete_collection(store, call)
            return _raw(view.many(found, {"resourceVersion": str(store.resource_version)}))
        act = {"create": writing.create, "update": writing.replace, "patch": writing.patch}
        written = act[call.verb](store, call)
        status = 201 if written.created else 200
        return _raw(view.one(written.body), status, warnings=call.warnings)

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        stream = WatchStream(self.store, call, self.bookmark_seconds)
        _RECORD.get().status = 200
        self.streams.add(stream)
        try:
            return await stream.serve(request)
        finally:
            self.streams.discard(stream)

    async def _pod_action(self, request: web.Request, call: Call) -> web.StreamResponse:
        if call.target.subresource == "log":
            return await serve_log(self.store, self.logs, request, call)
        return _json(removing.evict(self.store, call), 201)

    def _review(
        self, target: Target, verb: str, user: str, data: bytes, request: web.Request
    ) -> web.Response:
        kinds = discovery.REVIEWS.get((target.group, target.version), {})
        if target.plural not in kinds or verb != "create":
            raise _no_such_path(target)
        body = {
            **calls.decode(data, request.headers.get("Content-Type", "")),
            "kind": kinds[target.plural],
            "apiVersion": f"{target.group}/{target.version}",
        }
        if target.plural == "selfsubjectaccessreviews":
            return _json(access_review(self.access, user, body), 201)
        if target.plural == "selfsubjectrulesreviews":
            return _json(rules_review(self.access, user, body), 201)
        info = {"username": user, "groups": ["system:authenticated"]}
        return _json({**body, "metadata": {}, "status": {"userInfo": info}}, 201)

    def _about(self, request: web.Request, path: str) -> web.Response:
        parts = path.strip("/").split("/")
        if parts[0] in HEALTH:
            return web.Response(text="ok")
        if parts == ["version"]:
            return _json(discovery.VERSION)
        if parts[:2] == ["openapi", "v3"]:
            found = openapi.document("/".join(parts[2:])) if parts[2:] else openapi.index()
            return _json(found) if found else _missing()
        if parts[0] in ("api", "apis"):
            return _discover(request, parts)
        return _missing()


def _discover(request: web.Request, parts: list[str]) -> web.Response:
    core = parts[0] == "api"
    if len(parts) == 1:
        if f"g={discovery.AGGREGATED}" in request.headers.get("Accept", ""):
            return web.Response(
                body=orjson.dumps(discovery.aggregated(core=core)),
                headers={"Content-Type": AGGREGATED_TYPE},
            )
        return _json(discovery.core_versions() if core else discovery.groups())
    group = "" if core else parts[1]
    known = dict(discovery.group_versions())
    if group not in known:
        return _missing()
    versions = parts[1:] if core else parts[2:]
    if not versions:
        return _json(discovery.group(group))
    return (
        _json(discovery.resource_list(group, versions[0]))
        if known[group] == versions[0]
        else (_missing())
    )


def _check_served(resource: Resource, target: Target, verb: str) -> None:
    if target.subresource and target.subresource not in resource.subresources:
        raise _no_such_path(target)
    if verb == "create" and resource.namespaced and not target.namespace:
        raise ApiError(405, "the server does not allow this method on the requested resource")


def _no_such_path(target: Target) -> ApiError:
    if target.plural and calls.is_known_group(target):
        return ApiError(404, "the server could not find the requested resource")
    return ApiError(404, "the server could not find the requested resource", details={})


def _missing() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def _json(
    body: Body | None,
    status: int = 200,
    *,
    headers: dict[str, str] | None = None,
    warnings: list[str] | None = None,
) -> web.Response:
    return _raw(orjson.dumps(body), status, headers=headers, warnings=warnings)


def _raw(
    body: bytes,
    status: int = 200,
    *,
    headers: dict[str, str] | None = None,
    warnings: list[str] | None = None,
) -> web.Response:
    answer = web.Response(body=body, status=status, headers=headers)
    answer.content_type = "application/json"
    for text in dict.fromkeys(warnings or []):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer
