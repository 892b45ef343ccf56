"""The routes about jobs. Each hands over to the lifecycle and shapes its answer."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from starlette.types import Receive, Scope, Send

from pyvatti import foreign
from pyvatti.api.access import caller_of, read_body, require_json
from pyvatti.api.problems import answers, status_of
from pyvatti.api.service import Service
from pyvatti.errors import InvalidRequest, JobNotFound, PyvattiError, Rejected, Unavailable
from pyvatti.jobs import id_names
from pyvatti.launch import LaunchRequest, parse_launch
from pyvatti.launch.personal import redactor_of
from pyvatti.lifecycle.reading import DeletionReport, JobLine, JobView
from pyvatti.lifecycle.redelivery import redeliver
from pyvatti.models import Job, Manifest, Notice, State
from pyvatti.redaction import Stream
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 1.8  # the answer is to be there within 2 s: the backend waits without a limit
LIST_SECONDS = 10.0  # a long history is read page by page
REDELIVER_SECONDS = 60.0

JobId = Annotated[
    str,
    Path(
        pattern=r"^[Ii][Nn][Tt][Pp][0-9]{1,11}$",
        description="INTP and 1 to 11 digits",
        examples=["INTP00000000513"],
    ),
]
AnyCase = BeforeValidator(lambda value: value.capitalize() if isinstance(value, str) else value)
OnlyState = Annotated[State | None, AnyCase, Query(description="Only jobs in this state")]
OnlyLost = Annotated[bool, Query(description="Only jobs with an event the backend never took")]
Container = Literal["transfer", "calculation"]


class Accepted(BaseModel):
    """The answer to an accepted launch."""

    id: str


class DryRun(BaseModel):
    """What a launch would apply, every secret value redacted."""

    id: str
    manifests: list[dict[str, Any]]


class JobList(BaseModel):
    """A page of jobs, newest first; `continue` asks for the next one."""

    jobs: list[JobLine]
    continue_: str | None = Field(None, serialization_alias="continue")


class LogResponse(StreamingResponse):
    """A log that holds a place among the followers while it is sent. Raises HTTPException 429."""

    def __init__(self, log: AsyncIterator[bytes], place: AbstractContextManager[None]) -> None:
        super().__init__(log, media_type="text/plain; charset=utf-8")
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._place:
            await super().__call__(scope, receive, send)


class Deliveries(BaseModel):
    """The events of a job and how their delivery stands."""

    id: str
    deliveries: list[Notice]


async def only_known_parameters(request: Request) -> None:
    """Raise RequestValidationError for a query parameter that the route does not know, or twice.

    A misspelt filter would otherwise give everything, as if it had been obeyed.
    """
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params}
    given = [name for name, _ in request.query_params.multi_items()]
    problems = [
        {"loc": ("query", name[:100]), "msg": rule, "type": "value_error"}
        for name in sorted(set(given))
        for rule, is_broken in (
            (f"is not known; there is {', '.join(sorted(known)) or 'none'}", name not in known),
            ("is given more than once", name in known and given.count(name) > 1),
        )
        if is_broken
    ]
    if problems:
        raise RequestValidationError(problems[:10])


router = APIRouter(dependencies=[Depends(only_known_parameters)])


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@contextlib.asynccontextmanager
async def _about(request: Request, job_id: str) -> AsyncIterator[Job | None]:
    """Keep what must not be told of a job out of all foreign text met inside; give the live job."""
    doors = _service(request).doors
    job = doors.cache.job(id_names(job_id, doors.settings.namespace).base)
    if job is not None:
        await doors.cache.know(job)
    with foreign.about(lambda: doors.cache.personal.of(job.uid) if job is not None else None):
        yield job


def _document_launch() -> dict[str, Any]:
    schema = LaunchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post(
    "/launch",
    status_code=201,
    response_model=Accepted | DryRun,
    responses={
        200: {"model": DryRun, "description": "Dry run"},
        **answers(408, 409, 413, 415, 422, 503),
    },
    openapi_extra=_document_launch(),
)
async def launch(
    request: Request,
    response: Response,
    dry_run: Annotated[bool, Query(description="Validate, render and ask the API server")] = False,  # noqa: FBT002 - a query parameter
) -> Accepted | DryRun:
    """Accept a job durably; the same request again changes nothing."""
    if dry_run:
        response.status_code = 200
        return await _dry_run(request, await _read_launch(request))
    try:
        parsed = await _read_launch(request)
        async with asyncio.timeout(ANSWER_SECONDS):
            # built where an error needs it: hardly ever
            with foreign.about(functools.cache(partial(redactor_of, parsed))):
                job_id = await _service(request).intake.accept(parsed)
    except Exception as error:
        metrics.accepted.labels(str(status_of(error))).inc()
        raise
    metrics.accepted.labels("201").inc()
    return Accepted(id=job_id)


async def _read_launch(request: Request) -> LaunchRequest:
    """Read and check a launch; the log says which fields a refusal is about, never a value."""
    require_json(request)
    try:
        parsed = parse_launch(await read_body(request))
    except InvalidRequest as error:
        log.info("launch is not valid", fields=[field for field, _ in error.problems[:10]])
        raise
    structlog.contextvars.bind_contextvars(job=parsed.job_id.lower())
    return parsed


async def _dry_run(request: Request, parsed: LaunchRequest) -> DryRun:
    async with asyncio.timeout(ANSWER_SECONDS):
        try:
            with foreign.about(functools.cache(partial(redactor_of, parsed))):
                manifests: list[Manifest] = await _service(request).intake.dry_run(parsed)
        except Rejected as error:
            raise Unavailable(f"the API server refuses the rendered manifests: {error}") from error
    return DryRun(id=parsed.job_id, manifests=manifests)


@router.get("/jobs", responses=answers(422, 503))
async def list_jobs(
    request: Request,
    state: OnlyState = None,
    lost: OnlyLost = False,  # noqa: FBT002 - a query parameter
    limit: Annotated[int, Query(ge=1, le=500, description="Most jobs of a page")] = 100,
    continue_: Annotated[str | None, Query(alias="continue", max_length=200)] = None,
) -> JobList:
    """List live and finished jobs, newest first."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            page = await _service(request).reader.list_jobs(state, limit, continue_, only_lost=lost)
    except InvalidRequest as error:
        raise RequestValidationError(
            [
                {"loc": ("query", field), "msg": rule, "type": "value_error"}
                for field, rule in error.problems
            ]
        ) from error
    return JobList(jobs=page.jobs, continue_=page.continue_)


@router.get("/jobs/{job_id}", responses=answers(404, 422, 503))
async def show_job(request: Request, job_id: JobId) -> JobView:
    """Show everything about one job."""
    async with asyncio.timeout(ANSWER_SECONDS), _about(request, job_id):
        return await _service(request).reader.show(job_id)


@router.delete(
    "/jobs/{job_id}",
    status_code=202,
    responses=answers(404, 409, 422, 503),
)
async def cancel_job(request: Request, job_id: JobId) -> Accepted:
    """Cancel a job: it is stopped, cleaned up, and the backend is told `failed`."""
    async with asyncio.timeout(ANSWER_SECONDS), _about(request, job_id):
        await _service(request).intake.cancel(job_id)
    return Accepted(id=job_id.upper())


@router.get("/jobs/{job_id}/deletion", responses=answers(404, 422, 503))
async def show_deletion(request: Request, job_id: JobId) -> DeletionReport:
    """Show what a job made, when it was removed and how its absence was proven."""
    async with asyncio.timeout(ANSWER_SECONDS), _about(request, job_id):
        return await _service(request).reader.deletion(job_id)


@router.post("/jobs/{job_id}/redeliver", responses=answers(404, 422, 503))
async def redeliver_events(request: Request, job_id: JobId) -> Deliveries:
    """Tell the backend again what it never took; of a live job soon, of a finished one now."""
    async with asyncio.timeout(REDELIVER_SECONDS), _about(request, job_id):
        outbox = await redeliver(_service(request).doors, job_id)
    return Deliveries(id=job_id.upper(), deliveries=list(outbox))


@router.get(
    "/jobs/{job_id}/log",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The log"},
        **answers(404, 422, 429, 503),
    },
)
async def read_log(
    request: Request,
    job_id: JobId,
    container: Annotated[Container, Query(description="Which container")] = "calculation",
    follow: Annotated[bool, Query(description="Stream while it lives")] = True,  # noqa: FBT002 - a query parameter
) -> StreamingResponse:
    """Stream a container's log while it lives."""
    service = _service(request)
    service.doors.cache.require_synced()
    cache, kube = service.doors.cache, service.doors.kube
    async with asyncio.timeout(ANSWER_SECONDS), _about(request, job_id) as job:
        pods = cache.pods(job.uid) if job is not None else ()
        if job is None or not pods:
            raise JobNotFound(f"{job_id.upper()} has no pod now")
        pod = pods[-1].name
        try:
            async for _ in kube.pod_log(pod, container, follow=False, tail_lines=0):
                pass  # only asks: an error is told before the answer begins
        except Rejected as error:
            raise JobNotFound(f"container {container} has no log now") from error
    cleaner = foreign.stream(cache.personal.of(job.uid))
    log = _clean_log(kube.pod_log(pod, container, follow=follow), cleaner)
    return LogResponse(log, service.followers.place(caller_of(request), follow=follow))


async def _clean_log(
    chunks: AsyncGenerator[bytes, None], cleaner: Stream
) -> AsyncGenerator[bytes, None]:
    """Pass a log on line by line without what must not be told.

    A pod or a caller that goes away ends it.
    """
    with contextlib.suppress(PyvattiError):
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                if clean := cleaner.feed(chunk):
                    yield clean
    if rest := cleaner.finish():
        yield rest
