"""`pyvatti demo` and `pyvatti sandbox`: the real service on the stand-in world, to be watched.

Tells what happens as the world sees it; the service is not touched.
"""

import asyncio
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from pyvatti.api.connections import limits_for, listen, make_config
from pyvatti.app import create_app
from pyvatti.lifecycle.supervision import Supervisor
from pyvatti.settings import Settings
from pyvatti.telemetry import configure_logging

if TYPE_CHECKING:
    from pyvatti.sandbox.world import World

Say = Callable[[str], None]

DEMO_SECONDS = 60.0
POLL = 0.1
REQUEST: dict[str, Any] = {
    "pipeline_param": {
        "id": "INTP00000000513",
        "target_genomes": [
            {
                "sampleset": "test",
                "chrom": None,
                "vcf_import_dosage": False,
                "format": "pfile",
                "geno": "hapnest.pgen",
                "variants": "hapnest.pvar",
                "pheno": "hapnest.psam",
            }
        ],
        "nxf_params_file": {"trait_efo": "EFO_1000068", "format": "json", "target_build": "GRCh38"},
    },
    "globus_details": {
        "dir_path_on_guest_collection": "user@example.org/Sample-Set-Wednesday-18-Sep-15-17",
        "files": [
            {"filename": "hapnest.pgen.c4gh", "size": 278705850},
            {"filename": "hapnest.pvar.c4gh", "size": 215004174},
            {"filename": "hapnest.psam.c4gh", "size": 8517},
        ],
    },
    "secret_key_details": {
        "secret_id": "81D5C400-21B4-4E88-8208-8D64C9920283",
        "secret_id_version": "1",
    },
}
JOB_ID = REQUEST["pipeline_param"]["id"]
BASE = JOB_ID.lower()

# The demonstration does not wait for hours: the service's own patience, shortened by its settings.
HURRY = {
    "POLL_INTERVAL": "1",
    "FAILED_GRACE": "3",
    "COMPLETE_GRACE": "4",
    "TELEMETRY_GRACE": "20",
    "HANG_GRACE": "3",
    "IMAGE_GRACE": "3",
    "RETRY_PERIOD": "1",
}


class Scenario(StrEnum):
    """What happens to the job."""

    SUCCESS = "success"
    TRANSFER_FAILS = "transfer-fails"
    MATCH_RATE_TOO_LOW = "match-rate-too-low"
    IMAGE_CANNOT_BE_PULLED = "image-cannot-be-pulled"
    DRIVER_KILLED = "driver-killed"
    BACKEND_DOWN = "backend-down"
    SEQERA_SILENT = "seqera-silent"
    CANCELLED = "cancelled"


PLAN_OF = {
    Scenario.TRANSFER_FAILS: "transfer_fails",
    Scenario.MATCH_RATE_TOO_LOW: "match_rate_too_low",
    Scenario.IMAGE_CANNOT_BE_PULLED: "image_cannot_be_pulled",
    Scenario.DRIVER_KILLED: "driver_killed",
    Scenario.SEQERA_SILENT: "seqera_silent",
    Scenario.CANCELLED: "long_run",
}
SUCCEEDING = (Scenario.SUCCESS, Scenario.BACKEND_DOWN, Scenario.SEQERA_SILENT)


def _is_right(scenario: Scenario, told: list[str]) -> bool:
    """Tell whether the backend took what it must: a fast job is never seen Deployed."""
    end = "succeeded" if scenario in SUCCEEDING else "failed"
    overtaken = scenario is Scenario.BACKEND_DOWN  # its `deployed` is dropped
    return told == [end] or (told == ["deployed", end] and not overtaken)


class Timeline:
    """Prints what changes in the world, with the seconds since the start."""

    def __init__(self, say: Say, world: "World") -> None:
        self._say = say
        self._world = world
        self._began = time.monotonic()
        self._states: dict[tuple[str, str], str] = {}
        self._buckets: set[str] = set()
        self._told = 0

    def tell(self, who: str, what: str) -> None:
        """Print one line."""
        self._say(f"{time.monotonic() - self._began:6.2f} s  {who:<11} {what}")

    def object_changed(self, change: str, resource: Any, new: dict[str, Any]) -> None:
        """Print what a write to the cluster means; the store calls this after each."""
        name, kind = new["metadata"]["name"], resource.kind
        if kind not in ("Job", "Secret", "Pod", "ConfigMap"):
            return
        self.look()
        if change == "DELETED":
            self._states.pop((kind, name), None)
            self.tell("kubernetes", f"{kind} {name} is gone")
            return
        state = _state_of(kind, new)
        if self._states.get((kind, name)) != state:
            self._states[kind, name] = state
            self.tell("kubernetes", f"{kind} {name}: {state}")

    def look(self) -> None:
        """Print buckets that appeared or went and notifications that arrived."""
        world = self._world
        now = set(world.storage.buckets)
        for name in sorted(now - self._buckets):
            self.tell("storage", f"bucket {name} is made")
        for name in sorted(self._buckets - now):
            self.tell("storage", f"bucket {name} is gone")
        self._buckets = now
        received = world.backend.received
        for item in received[self._told :]:
            detail = item.body.get("trace_name")
            exit_code = f": {detail} (exit {item.body.get('trace_exit')})" if detail else ""
            self.tell("backend", f"told {item.body['event']}{exit_code}, answers {item.answer}")
        self._told = len(received)


def _state_of(kind: str, new: dict[str, Any]) -> str:
    metadata, status = new["metadata"], new.get("status") or {}
    if kind == "Job":
        labels = metadata.get("labels") or {}
        state = next((value for key, value in labels.items() if key.endswith("/state")), "?")
        return f"{state}, being deleted" if metadata.get("deletionTimestamp") else state
    if kind == "Pod":
        return status.get("phase") or "Pending"
    return "is made"


@dataclass(frozen=True, slots=True)
class Running:
    """A running service on its world."""

    world: "World"
    url: str
    client: httpx.AsyncClient


@asynccontextmanager
async def run_stack(
    changes: dict[str, str], world: "World", *, port: int = 0
) -> AsyncIterator[Running]:
    """Start the world and the service; `changes` are environment variables of the service."""
    with tempfile.TemporaryDirectory() as folder:
        async with world:
            environment = world.environment(Path(folder)) | changes
            settings = Settings.model_validate(
                {key.lower(): value for key, value in environment.items()}
            )
            async with serve_in_loop(settings, port) as url:
                timeout = httpx.Timeout(10.0)
                async with httpx.AsyncClient(
                    base_url=url, timeout=timeout, trust_env=False
                ) as client:
                    await _wait_ready(client)
                    yield Running(world, url, client)


@asynccontextmanager
async def serve_in_loop(settings: Settings, port: int = 0) -> AsyncIterator[str]:
    """Run the service by uvicorn in this event loop; gives its address.

    Raises ConfigurationError when it cannot listen on the port.
    """
    listener = listen("127.0.0.1", port)
    supervisor = Supervisor()
    app = create_app(settings, supervisor=supervisor)
    server = uvicorn.Server(make_config(app, limits_for(settings)))
    supervisor.on_failure(lambda: setattr(server, "should_exit", True))
    async with asyncio.TaskGroup() as group:
        group.create_task(_serve(server, listener, supervisor))
        while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        failure: BaseException | None = None
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        except BaseException as error:  # noqa: BLE001 - raised again once the service has stopped
            failure = error
        server.should_exit = True
    if failure is not None:
        raise failure


async def _serve(server: uvicorn.Server, listener: socket.socket, supervisor: Supervisor) -> None:
    """Serve until told to stop; raise RuntimeError where a part of the service ended by itself."""
    await server.serve(sockets=[listener])
    if supervisor.failure:
        raise RuntimeError(f"a part of the service ended: {supervisor.failure}")


async def _wait_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(DEMO_SECONDS):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def run_demo(scenario: Scenario, say: Say) -> int:
    """Run one job to its end; give the exit code: 0 only if everything is as it must be."""
    say(f"pyvatti demo, scenario {scenario}: one job on the embedded sandbox\n")
    configure_logging(Settings.model_construct(log_format="console", log_level="error"))
    # `pyvatti serve` imports this module too, and must not carry the sandbox in its memory
    from pyvatti.sandbox.driver_plans import PLANS  # noqa: PLC0415
    from pyvatti.sandbox.world import World  # noqa: PLC0415

    plan = PLANS[PLAN_OF.get(scenario, "success")]
    async with run_stack(HURRY, World(plans=lambda _pod: plan)) as stack:
        timeline = Timeline(say, stack.world)
        stop = stack.world.kube.store.subscribe(
            lambda change, resource, new, _old: timeline.object_changed(change, resource, new)
        )
        stack.world.backend.down = scenario is Scenario.BACKEND_DOWN
        answer = await stack.client.post("/launch", json=REQUEST)
        timeline.tell("service", f"POST /launch answers {answer.status_code} {answer.text}")
        if answer.status_code != 201:
            return 1
        finished = await _follow(scenario, stack, timeline)
        stop()
        return await _sum_up(scenario, stack, say, finished=finished)


async def _follow(scenario: Scenario, stack: Running, timeline: Timeline) -> bool:
    """Print the timeline until the job is finished; False when it takes too long."""
    cancelled = False
    try:
        async with asyncio.timeout(DEMO_SECONDS):
            while True:
                timeline.look()
                view = (await stack.client.get(f"/jobs/{JOB_ID}")).json()
                if not view.get("live", True) and not stack.world.objects("Job"):
                    return True
                if scenario is Scenario.CANCELLED and view.get("state") == "Deployed":
                    if not cancelled:
                        timeline.tell("service", f"DELETE /jobs/{JOB_ID}")
                        await stack.client.delete(f"/jobs/{JOB_ID}")
                    cancelled = True
                cleaned = view.get("state") == "Succeeded" and not stack.world.objects("Secret")
                if cleaned and stack.world.backend.down:
                    timeline.tell("backend", "is back")
                    stack.world.backend.down = False
                await asyncio.sleep(POLL)
    except TimeoutError:
        return False


async def _sum_up(scenario: Scenario, stack: Running, say: Say, *, finished: bool) -> int:
    world = stack.world
    view = (await stack.client.get(f"/jobs/{JOB_ID}")).json()
    told = world.backend.delivered(JOB_ID)
    results = f"{world.namespace}-{BASE}-results"
    kept = {results} if view["state"] == "Succeeded" else set()
    leftovers = [name for name in world.storage.buckets if name not in kept]
    leftovers += [
        f"{kind} {name}" for kind in ("Job", "Secret", "Pod") for name in world.objects(kind)
    ]
    say("")
    verdict = view.get("verdict") or {}
    say(f"state        {view['state']}: {verdict.get('reason')}: {verdict.get('message')}")
    if verdict.get("next_step"):
        say(f"next step    {verdict['next_step']}")
    say(f"backend took {', '.join(told)}")
    for removal in view["removed"]:
        count = "" if removal["objects"] is None else f" with {removal['objects']} objects"
        seen = f"seen to be gone at {removal['proven_absent_at']}"
        how = seen if removal["removed_at"] else f"not there when looked for; {seen}"
        say(f"removed      {removal['resource']}{count}, {how}")
    for item in view["remaining"]:
        say(f"REMAINS      {item['resource']}: {item['reason']}")
    for name in sorted(kept):
        say(f"kept         bucket/{name}: the results, until their lifecycle rule deletes them")
    say(f"kept         ConfigMap {BASE}-record: what happened, no personal data")
    say(f"left behind  {', '.join(leftovers) or 'nothing'}")
    right = finished and not leftovers and _is_right(scenario, told)
    say("\nas it must be" if right else "\nNOT as it must be")
    return 0 if right else 1


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


async def run_sandbox(kubeconfig: Path, port: int, say: Say) -> None:
    """Keep the world and a service running until interrupted."""
    configure_logging(Settings.model_construct(log_format="auto", log_level="info"))
    kubeconfig = kubeconfig.absolute()  # noqa: ASYNC240 - no file is touched
    from pyvatti.sandbox.world import World  # noqa: PLC0415 - as above

    async with run_stack({"POLL_INTERVAL": "2"}, World(), port=port) as stack:
        _write_private(kubeconfig, stack.world.kube.kubeconfig())
        say(f"service    {stack.url}  (API documents: {stack.url}/docs)")
        say(f"kubernetes {stack.world.kube.url}  (export KUBECONFIG={kubeconfig})")
        say(f"seqera     {stack.world.seqera.url}")
        say(f"storage    {stack.world.storage.url}")
        say(f"backend    {stack.world.backend.url}")
        say("")
        say("a job to start with:")
        say(f"curl -X POST {stack.url}/launch -H 'Content-Type: application/json' \\")
        say(f"  -d '{json.dumps(REQUEST)}'")
        say("Ctrl-C ends it")
        await asyncio.Event().wait()
