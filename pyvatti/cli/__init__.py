"""The command line; the only room that prints or chooses an exit code.

Exit codes: 0 done, 1 refused or failed, 2 used or configured wrongly, 3 the service is unreachable.
"""

import asyncio
import contextlib
import gc
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
import uvicorn
import yaml

from pyvatti import __version__
from pyvatti.api.connections import limits_for, listen, make_config
from pyvatti.app import check, create_app
from pyvatti.cli.answers import REFUSED, Output, OutputOption, configured, say
from pyvatti.cli.jobs import jobs
from pyvatti.demo import Scenario, run_demo, run_sandbox
from pyvatti.errors import InvalidRequest
from pyvatti.launch import LaunchRequest, parse_launch
from pyvatti.lifecycle.supervision import Supervisor
from pyvatti.manifests import Renderer, redact
from pyvatti.settings import describe_settings, load_settings
from pyvatti.telemetry import configure_logging

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run polygenic score jobs on Kubernetes, follow them and leave nothing behind.",
)
app.add_typer(jobs, name="jobs")

RequestFile = Annotated[Path, typer.Argument(help="A launch request (JSON); - is standard input.")]


def main() -> None:
    """Run the command line."""
    app()


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
    with configured():
        settings = load_settings()
        configure_logging(settings)
        asyncio.run(check(settings))
        listener = listen(settings.host, settings.port)
    log = structlog.get_logger(__name__)
    log.info("listening", host=settings.host, port=listener.getsockname()[1])
    supervisor = Supervisor()
    service = create_app(settings, supervisor=supervisor)
    server = uvicorn.Server(make_config(service, limits_for(settings)))
    supervisor.on_failure(lambda: setattr(server, "should_exit", True))
    gc.collect()
    gc.freeze()  # imports stay for good: a full collection that looks at them stalls the loop
    gc.set_threshold(10_000, 20, 20)  # most garbage of a request has no cycles
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    raise typer.Exit(0 if server.started and not supervisor.failure else REFUSED)


@app.command()
def demo(
    scenario: Annotated[Scenario, typer.Option(help="What happens to the job.")] = Scenario.SUCCESS,
) -> None:
    """Run one job on the embedded sandbox and prove nothing is left."""
    raise typer.Exit(asyncio.run(run_demo(scenario, say)))


@app.command()
def sandbox(
    kubeconfig: Annotated[
        Path, typer.Option(help="Where to write the kubeconfig of the sandbox.")
    ] = Path("sandbox.kubeconfig"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service.")] = 8080,
) -> None:
    """Keep the sandbox and a service on it until interrupted.

    For curl, kubectl or a backend under development; all addresses are printed.
    """
    with configured(), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_sandbox(kubeconfig, port, say))


@app.command("settings")
def show_settings(output: OutputOption = Output.TEXT) -> None:
    """List the settings of the service, as a Markdown table."""
    rows = describe_settings()
    if output is Output.JSON:
        print(json.dumps(rows, indent=2))
        return
    print("| variable | default | meaning |\n|---|---|---|")
    for row in rows:
        print(f"| `{row['name']}` | {row['default']} | {row['meaning']} |")


def _read_request(path: Path, output: Output) -> LaunchRequest:
    """Read a request; print its problems and exit if it breaks a rule."""
    with configured():
        body = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return parse_launch(body)
    except InvalidRequest as error:
        if output is Output.JSON:
            problems = [{"field": field, "rule": rule} for field, rule in error.problems]
            print(json.dumps(problems, indent=2))
        else:
            print("\n".join(f"{field}: {rule}" for field, rule in error.problems), file=sys.stderr)
        raise typer.Exit(REFUSED) from None


@app.command()
def validate(request: RequestFile, output: OutputOption = Output.TEXT) -> None:
    """Check a launch request against every rule."""
    parsed = _read_request(request, output)
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
    with configured():
        settings = load_settings()
        parsed = _read_request(request, output)
        renderer = Renderer(settings)
        made = renderer.everything(parsed, renderer.nowhere())
    manifests = made if show_secrets else [redact(manifest) for manifest in made]
    if directory is None:
        print(_dump(manifests, output))
        return
    with configured():
        directory.mkdir(parents=True, exist_ok=True)
        for manifest in manifests:
            _write(directory, manifest, output)


def _write(directory: Path, manifest: dict[str, Any], output: Output) -> None:
    name = f"{manifest['kind'].lower()}-{manifest['metadata']['name']}"
    path = directory / f"{name}.{'json' if output is Output.JSON else 'yaml'}"
    path.touch(mode=0o600)
    path.write_text(_dump([manifest], output))
    print(path)


def _dump(manifests: list[dict[str, Any]], output: Output) -> str:
    if output is Output.JSON:
        return json.dumps(manifests[0] if len(manifests) == 1 else manifests, indent=2)
    return yaml.safe_dump_all(manifests, sort_keys=False)
