"""The commands about jobs: questions to a running service, and the way out without one.

Nothing is known here that the API does not tell.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
import yaml

from pyvatti.cli.answers import MISUSED, REFUSED, UNREACHABLE, Output, OutputOption, fail
from pyvatti.errors import ConfigurationError, PyvattiError, Unavailable
from pyvatti.lifecycle.escape import release
from pyvatti.models import State
from pyvatti.ways import proxy_for

CALL_SECONDS = 30.0
REDELIVER_SECONDS = 70.0  # the service itself waits for the backend for up to 60
LARGEST_PAGE = 500
LOCAL = "http://127.0.0.1:8080"

jobs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Ask a running service about its jobs.",
)


class Container(StrEnum):
    """Whose log to read."""

    TRANSFER = "transfer"
    CALCULATION = "calculation"


Url = Annotated[
    str, typer.Option(envvar="PYVATTI_URL", help="Address of the service.", show_default=True)
]
Token = Annotated[
    str,
    typer.Option(
        envvar="PYVATTI_TOKEN",
        help="Bearer token; the variable keeps it out of the list of processes.",
        show_default="none",
    ),
]
JobId = Annotated[str, typer.Argument(help="Id of the job, as INTP00000000513.")]


@contextlib.contextmanager
def _asking(url: str, token: str) -> Iterator[httpx.Client]:
    """Give a client of the service; exit 3 where there is no answer."""
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        fail(MISUSED, "the token holds what fits no header")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        proxy = proxy_for(url)
    except ConfigurationError as error:
        fail(MISUSED, str(error))
    try:
        with httpx.Client(
            base_url=url.rstrip("/"),
            headers=headers,
            timeout=CALL_SECONDS,
            proxy=proxy,
            verify=httpx.create_ssl_context(),
            trust_env=False,
        ) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fail(UNREACHABLE, f"{url}: {str(error) or type(error).__name__}")


def _read(answer: httpx.Response) -> Any:
    """Read an answer; print its problem and exit 1 on any error."""
    if not answer.is_success:
        fail(REFUSED, _problem_text(answer))
    try:
        return answer.json()
    except ValueError:
        fail(UNREACHABLE, f"{answer.url}: not the answer of a pyvatti service")


def _problem_text(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
        if isinstance(detail, list):
            detail = "; ".join(
                f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in detail
            )
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    return f"{answer.status_code}: {detail}"


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


@jobs.command("list")
def list_jobs(
    url: Url = LOCAL,
    token: Token = "",
    state: Annotated[
        State | None, typer.Option(case_sensitive=False, help="Only jobs in this state.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to list.")] = 100,
    output: OutputOption = Output.TEXT,
) -> None:
    """List jobs, newest first."""
    found: list[dict[str, Any]] = []
    query: dict[str, str | int] = {"state": state.value} if state else {}
    with _asking(url, token) as client:
        while len(found) < limit:
            size = min(limit - len(found), LARGEST_PAGE)
            page = _read(client.get("/jobs", params={**query, "limit": size}))
            found += page["jobs"]
            if page["continue"] is None:
                break
            query["continue"] = page["continue"]
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
        return
    for job in found:
        where = "live" if job["live"] else "finished"
        print(f"{job['id']:<16} {job['state']:<10} {where:<9} {job['accepted_at']}")


@jobs.command("show")
def show_job(
    job_id: JobId, url: Url = LOCAL, token: Token = "", output: OutputOption = Output.TEXT
) -> None:
    """Show everything about one job."""
    with _asking(url, token) as client:
        found = _read(client.get(_path(job_id)))
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
    else:
        print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end="")


@jobs.command("cancel")
def cancel_job(
    job_id: JobId, url: Url = LOCAL, token: Token = "", output: OutputOption = Output.TEXT
) -> None:
    """Cancel a job: it is stopped, cleaned up, and the backend is told."""
    with _asking(url, token) as client:
        cancelled = _read(client.delete(_path(job_id)))
    if output is Output.JSON:
        print(json.dumps(cancelled, indent=2))
    else:
        print(f"{cancelled['id']} is being cancelled")


@jobs.command("redeliver")
def redeliver_events(
    job_id: JobId, url: Url = LOCAL, token: Token = "", output: OutputOption = Output.TEXT
) -> None:
    """Tell the backend again what it never took of a job."""
    patient = httpx.Timeout(CALL_SECONDS, read=REDELIVER_SECONDS)
    with _asking(url, token) as client:
        answer = _read(client.post(f"{_path(job_id)}/redeliver", timeout=patient))
    if output is Output.JSON:
        print(json.dumps(answer, indent=2))
        return
    for event in answer["deliveries"]:
        print(f"{event['event']:<10} {event['delivery']:<12} {event['answer']}".rstrip())


@jobs.command("release")
def release_job(
    job_id: JobId,
    namespace: Annotated[str, typer.Option(envvar="NAMESPACE", help="Namespace of the Job.")],
    kubeconfig: Annotated[
        str, typer.Option(envvar="KUBECONFIG", help="Empty: the pod's own service account.")
    ] = "",
) -> None:
    """Let a Job go when no pyvatti is left to clean up.

    Works without a service, and names what remains.
    """
    try:
        remaining = asyncio.run(release(job_id, namespace=namespace, kubeconfig=kubeconfig))
    except ConfigurationError as error:
        fail(MISUSED, str(error))
    except Unavailable as error:
        fail(UNREACHABLE, str(error))
    except PyvattiError as error:
        fail(REFUSED, str(error))
    print(f"{job_id.upper()} is released; pyvatti did not clean up after it")
    for bucket in remaining:
        print(f"delete by hand, if it exists: gs://{bucket}")


@jobs.command("log")
def read_log(
    job_id: JobId,
    url: Url = LOCAL,
    token: Token = "",
    container: Annotated[Container, typer.Option(help="Which container.")] = Container.CALCULATION,
    follow: Annotated[bool, typer.Option(help="Go on while it lives.")] = True,  # noqa: FBT002 - an option
) -> None:
    """Print the driver's log while it lives."""
    query = {"container": container.value, "follow": str(follow).lower()}
    endless = httpx.Timeout(CALL_SECONDS, read=None)
    with (
        _asking(url, token) as client,
        client.stream("GET", f"{_path(job_id)}/log", params=query, timeout=endless) as answer,
    ):
        if not answer.is_success:
            answer.read()
            fail(REFUSED, _problem_text(answer))
        for text in answer.iter_text():
            print(text, end="", flush=True)
