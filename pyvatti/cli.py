"""The command line; the only room that prints or chooses an exit code.

Exit codes: 0 done, 1 refused or failed, 2 used or configured wrongly, 3 the service is unreachable.
"""

import asyncio
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
import uvicorn
import yaml

from pyvatti import __version__
from pyvatti.app import create_app
from pyvatti.demo import Scenario, run_demo, run_sandbox
from pyvatti.errors import ConfigurationError, InvalidRequest
from pyvatti.jobs import names_for
from pyvatti.launch import LaunchRequest, parse_launch
from pyvatti.manifests import Renderer, redact
from pyvatti.settings import Settings, load_settings
from pyvatti.telemetry import configure_logging

REFUSED, MISUSED, UNREACHABLE = 1, 2, 3
CALL_SECONDS = 30.0
STOP_SECONDS = 20  # how long open requests may take to end after SIGTERM
MOST_CONNECTIONS = 1000

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run polygenic score jobs on Kubernetes, follow them and leave nothing behind.",
)
jobs = typer.Typer(no_args_is_help=True, help="Ask a running service about its jobs.")
app.add_typer(jobs, name="jobs")


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


RequestFile = Annotated[Path, typer.Argument(help="A launch request (JSON); - is standard input.")]
OutputOption = Annotated[Output, typer.Option("--output", help="How to print the answer.")]
Url = Annotated[
    str, typer.Option(envvar="PYVATTI_URL", help="Address of the service.", show_default=True)
]
Token = Annotated[
    str, typer.Option(envvar="PYVATTI_TOKEN", help="Bearer token.", show_default="none")
]
JobId = Annotated[str, typer.Argument(help="Id of the job, as INTP00000000513.")]
LOCAL = "http://127.0.0.1:8080"


def main() -> None:
    """Run the command line."""
    app()


def _fail(code: int, text: str) -> NoReturn:
    print(f"pyvatti: {text}", file=sys.stderr)
    raise typer.Exit(code)


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as error:
        _fail(MISUSED, str(error))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002 - an option
) -> None:
    """Print the version, or go on to the command."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def serve() -> None:
    """Run the service; its settings are environment variables."""
    settings = _settings()
    configure_logging(settings)
    try:
        Renderer(settings).check()
    except ConfigurationError as error:
        _fail(MISUSED, str(error))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


@app.command()
def demo(
    scenario: Annotated[Scenario, typer.Option(help="What happens to the job.")] = Scenario.SUCCESS,
) -> None:
    """Run one job through the real service on the embedded sandbox, and prove nothing is left."""
    raise typer.Exit(asyncio.run(run_demo(scenario, print)))


@app.command()
def sandbox(
    kubeconfig: Annotated[
        Path, typer.Option(help="Where to write the kubeconfig of the sandbox.")
    ] = Path("sandbox.kubeconfig"),
    port: Annotated[int, typer.Option(help="Port of the service.")] = 8080,
) -> None:
    """Keep the sandbox and a service running, for curl, kubectl or a backend under development."""
    asyncio.run(run_sandbox(kubeconfig, port, print))


def _read_request(path: Path) -> LaunchRequest:
    try:
        body = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        _fail(MISUSED, f"{path}: {error.strerror}")
    return parse_launch(body)


def _print_problems(problems: list[tuple[str, str]], output: Output) -> None:
    if output is Output.JSON:
        print(json.dumps([{"field": field, "rule": rule} for field, rule in problems], indent=2))
        return
    for field, rule in problems:
        print(f"{field}: {rule}", file=sys.stderr)


@app.command()
def validate(request: RequestFile, output: OutputOption = Output.TEXT) -> None:
    """Check a launch request against every rule."""
    try:
        parsed = _read_request(request)
    except InvalidRequest as error:
        _print_problems(error.problems, output)
        raise typer.Exit(REFUSED) from None
    if output is Output.JSON:
        print(json.dumps(parsed.canonical(), indent=2))
    else:
        print(f"{parsed.job_id} is valid")


@app.command()
def render(
    request: RequestFile,
    directory: Annotated[
        Path | None, typer.Option("-o", "--directory", help="Write one file an object here.")
    ] = None,
    show_secrets: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--show-secrets", help="Do not redact; keep the output safe.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what would be applied for a request, secrets redacted."""
    settings = _settings()
    try:
        parsed = _read_request(request)
    except InvalidRequest as error:
        _print_problems(error.problems, output)
        raise typer.Exit(REFUSED) from None
    try:
        made = Renderer(settings).everything(parsed, names_for(parsed.job_id, settings.namespace))
    except ConfigurationError as error:
        _fail(MISUSED, str(error))
    manifests = made if show_secrets else [redact(manifest) for manifest in made]
    if directory is None:
        print(_dump(manifests, output))
        return
    directory.mkdir(parents=True, exist_ok=True)
    for manifest in manifests:
        name = f"{manifest['kind'].lower()}-{manifest['metadata']['name']}"
        path = directory / f"{name}.{'json' if output is Output.JSON else 'yaml'}"
        path.touch(mode=0o600)
        path.write_text(_dump([manifest], output))
        print(path)


def _dump(manifests: list[dict[str, Any]], output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(manifests[0] if len(manifests) == 1 else manifests, indent=2)
    return yaml.safe_dump_all(manifests, sort_keys=False)


def _call(method: str, url: str, token: str, **query: str | int | None) -> Any:
    """Ask the service; print its problem and exit on any error."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    params = {key: value for key, value in query.items() if value is not None}
    try:
        answer = httpx.request(method, url, headers=headers, params=params, timeout=CALL_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(UNREACHABLE, f"{url}: {error}")
    if answer.is_error:
        _fail(REFUSED, _problem_text(answer))
    return answer.json()


def _problem_text(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code}: {answer.json()['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}: {answer.reason_phrase}"


@jobs.command("list")
def list_jobs(
    url: Url = LOCAL,
    token: Token = "",
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="Most jobs to list.")] = 100,
    output: OutputOption = Output.TEXT,
) -> None:
    """List jobs, newest first."""
    found = _call("GET", f"{url}/jobs", token, state=state, limit=limit)
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
        return
    for job in found["jobs"]:
        where = "live" if job["live"] else "finished"
        print(f"{job['id']:<16} {job['state']:<10} {where:<9} {job['accepted_at']}")


@jobs.command("show")
def show_job(
    job_id: JobId, url: Url = LOCAL, token: Token = "", output: OutputOption = Output.TEXT
) -> None:
    """Show everything about one job."""
    found = _call("GET", f"{url}/jobs/{job_id}", token)
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
        return
    print(yaml.safe_dump(found, sort_keys=False), end="")


@jobs.command("cancel")
def cancel_job(job_id: JobId, url: Url = LOCAL, token: Token = "") -> None:
    """Cancel a job: it is stopped, cleaned up, and the backend is told."""
    _call("DELETE", f"{url}/jobs/{job_id}", token)
    print(f"{job_id.upper()} is being cancelled")


@jobs.command("log")
def read_log(
    job_id: JobId,
    url: Url = LOCAL,
    token: Token = "",
    container: Annotated[str, typer.Option(help="transfer or calculation.")] = "calculation",
) -> None:
    """Print the driver's log while it lives."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = httpx.Timeout(CALL_SECONDS, read=None)
    address = f"{url}/jobs/{job_id}/log"
    try:
        with httpx.stream(
            "GET", address, headers=headers, params={"container": container}, timeout=timeout
        ) as answer:
            if answer.is_error:
                answer.read()
                _fail(REFUSED, _problem_text(answer))
            for text in answer.iter_text():
                print(text, end="", flush=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(UNREACHABLE, f"{address}: {error}")
