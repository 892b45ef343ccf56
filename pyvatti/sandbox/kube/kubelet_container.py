"""Starts, watches and ends one container of a pod: image, configuration, run, TERM and KILL.

Nothing about the pod as a whole.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pyvatti.sandbox.kube import kubelet_status as status
from pyvatti.sandbox.kube.kubelet_faults import AT_INIT, Fault
from pyvatti.sandbox.kube.kubelet_runtime import (
    SIGKILLED,
    TERMINATION_LOG,
    CommandNotFound,
    ContainerSpec,
    OutOfMemory,
)
from pyvatti.sandbox.kube.kubelet_volumes import (
    ConfigFailed,
    Volumes,
    container_spec,
    keep_written,
)
from pyvatti.sandbox.kube.store import Body

if TYPE_CHECKING:
    from pyvatti.sandbox.kube.kubelet_pod import PodWorker

log = structlog.get_logger(__name__)

START = 0.15
SEEN_GOOD, SEEN_BAD = 0.5, 1.0  # until the kubelet notices an end (it looks once a second)
FIRST_ERROR, NEVER_PULL, LATE_IMAGE_ERROR, LATE_CONFIG_ERROR = 0.2, 0.7, 11.6, 13.0
RETRY = 13.0
PULL_BACKOFF, PULL_BACKOFF_LIMIT, PULL_SHOWN = 10.0, 300.0, 2.0
START_ERROR = 128

# What a strike makes of a running container: exit code, reason.
_STRUCK = {
    Fault.INIT_EXIT: (1, "Error"),
    Fault.MAIN_EXIT: (1, "Error"),
    Fault.OOM_INIT: (SIGKILLED, "OOMKilled"),
    Fault.OOM_MAIN: (SIGKILLED, "OOMKilled"),
    Fault.OOM_CHILD: (0, "OOMKilled"),
}


@dataclass(slots=True, kw_only=True)
class _Run:
    """A running container."""

    spec: ContainerSpec
    task: asyncio.Task[tuple[int, str]]
    stop: asyncio.Event
    path: str
    kill_at: float | None = None
    verdict: tuple[int, str] = (SIGKILLED, "Error")
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=status.LOG_LINES))


async def run_container(worker: "PodWorker", container: Body, kind: str, volumes: Volumes) -> int:
    """Run one container until its end is in the pod's status; gives the exit code.

    `kind` is kubelet_status.INIT or MAIN. Raises Interrupted if it never started.
    """
    path = (
        f"spec.{'initContainers' if kind == status.INIT else 'containers'}{{{container['name']}}}"
    )
    await _get_image(worker, container, kind, path)
    spec = await _configure(worker, container, kind, volumes, path)
    worker.event("Normal", "Created", f"Created container: {spec.name}", path)
    started = worker.node.now()
    lines: deque[str] = deque(maxlen=status.LOG_LINES)
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        task = group.create_task(_execute(worker, spec, stop, lines.append))
        run = _Run(spec=spec, task=task, stop=stop, path=path, lines=lines)
        await asyncio.wait({task}, timeout=0)  # a program that is not there ends before it starts
        if not task.done() or task.result()[1] != "StartError":
            worker.event("Normal", "Started", f"Started container {spec.name}", path)
            worker.write(lambda pod: status.running(pod, kind, spec.name, started))
        await _watch(worker, run, kind)
    worker.node.logs.end(worker.uid, spec.name)
    keep_written(container, worker.pod, volumes, spec.files)
    if not worker.lost:
        await _report(worker, container, kind, run, started)
    return _result(run)[0]


async def _get_image(worker: "PodWorker", container: Body, kind: str, path: str) -> None:
    await worker.pause(START)
    image = container["image"]
    error = _image_error(worker, container, kind)
    if not error:
        present = f'Container image "{image}" already present on machine'
        worker.event("Normal", "Pulled", present, path)
        return
    late = kind == status.MAIN and bool(worker.pod["spec"].get("initContainers"))
    if error == "ErrImagePull":
        await _pull_for_ever(worker, container, kind, path, LATE_IMAGE_ERROR if late else 0)
    reason, message, shown = (
        ("ErrImageNeverPull", _NEVER.format(image), NEVER_PULL)
        if error == "ErrImageNeverPull"
        else ("InspectFailed", _INVALID.format(image), FIRST_ERROR)
    )
    while True:
        worker.event("Warning", reason, message, path)
        worker.event("Warning", "Failed", f"Error: {error}", path)
        await worker.pause(LATE_IMAGE_ERROR if late else shown)
        worker.write(lambda pod: status.waiting(pod, kind, container["name"], error, message))
        await worker.pause(RETRY)


_NEVER = 'Container image "{}" is not present with pull policy of Never'
_INVALID = (
    'Failed to apply default image tag "{0}": couldn\'t parse image name "{0}":'
    " invalid reference format"
)


def _image_error(worker: "PodWorker", container: Body, kind: str) -> str:
    pull = Fault.IMAGE_PULL_INIT if kind == status.INIT else Fault.IMAGE_PULL_MAIN
    named = {
        pull: "ErrImagePull",
        Fault.INVALID_IMAGE_NAME: "InvalidImageName",
        Fault.IMAGE_NEVER_PULL: "ErrImageNeverPull",
    }
    if worker.fault in named:
        return named[worker.fault]
    return worker.node.image_error(container)


async def _pull_for_ever(
    worker: "PodWorker", container: Body, kind: str, path: str, late: float
) -> None:
    image, name, backoff = container["image"], container["name"], PULL_BACKOFF
    failure = (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}":'
        " dial tcp: lookup failed: no such host"
    )
    waits = f'Back-off pulling image "{image}"'
    shown = late or FIRST_ERROR
    while True:
        worker.event("Normal", "Pulling", f'Pulling image "{image}"', path)
        worker.event("Warning", "Failed", f'Failed to pull image "{image}": {failure}', path)
        worker.event("Warning", "Failed", "Error: ErrImagePull", path)
        worker.event("Normal", "BackOff", waits, path)
        worker.event("Warning", "Failed", "Error: ImagePullBackOff", path)
        await worker.pause(shown)
        worker.write(lambda pod: status.waiting(pod, kind, name, "ErrImagePull", failure))
        await worker.pause(PULL_SHOWN)
        worker.write(
            lambda pod: status.waiting(
                pod, kind, name, "ImagePullBackOff", f"{waits}: ErrImagePull: {failure}"
            )
        )
        await worker.pause(backoff)
        backoff, shown = min(backoff * 2, PULL_BACKOFF_LIMIT), FIRST_ERROR


async def _configure(
    worker: "PodWorker", container: Body, kind: str, volumes: Volumes, path: str
) -> ContainerSpec:
    init = kind == status.INIT
    late = not init and bool(worker.pod["spec"].get("initContainers"))
    shown = LATE_CONFIG_ERROR if late else FIRST_ERROR
    while True:
        try:
            _need_configuration(worker, init=init)
            return container_spec(worker.node.store, worker.pod, container, volumes, init=init)
        except ConfigFailed as error:
            message = str(error)
        worker.event("Warning", "Failed", f"Error: {message}", path)
        await worker.pause(shown)
        show = partial(
            status.waiting, kind=kind, name=container["name"],
            reason="CreateContainerConfigError", message=message,
        )  # fmt: skip
        worker.write(show)
        if shown < RETRY:
            await worker.pause(RETRY)


def _need_configuration(worker: "PodWorker", *, init: bool) -> None:
    if worker.fault is Fault.MISSING_SECRET_ENV and not init:
        raise ConfigFailed('secret "missing" not found')


async def _execute(
    worker: "PodWorker",
    spec: ContainerSpec,
    stop: asyncio.Event,
    keep: Callable[[str], None],
) -> tuple[int, str]:
    def write(line: str) -> None:
        worker.node.logs.append(worker.uid, spec.name, line)
        for part in line.splitlines():
            keep(part)

    absent = Fault.COMMAND_NOT_FOUND_INIT if spec.init else Fault.COMMAND_NOT_FOUND
    if worker.fault is absent:
        return _not_found(spec, next(iter(spec.argv), spec.name))
    try:
        code = await worker.node.runtime.run(spec, worker.pod, write, stop)
    except CommandNotFound as error:
        return _not_found(spec, error.args[0])
    except OutOfMemory as error:
        return error.code, "OOMKilled"
    except Exception:  # one container's defect must not end the node and all other pods
        log.exception("runtime failed", pod=worker.name, container=spec.name)
        return 1, "Error"
    return code, "Error" if code else "Completed"


_START_ERROR = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed:"
    ' unable to start container process: exec: "{}": executable file not found in $PATH'
)


def _not_found(spec: ContainerSpec, program: str) -> tuple[int, str]:
    spec.files[TERMINATION_LOG] = _START_ERROR.format(program).encode()
    return START_ERROR, "StartError"


async def _watch(worker: "PodWorker", run: _Run, kind: str) -> None:
    """Wait for the end; pass on TERM, KILL after the grace, and strikes."""
    loop = asyncio.get_running_loop()
    run.task.add_done_callback(lambda _task: worker.wake())
    timer = _arm_init(worker, kind)
    try:
        while not run.task.done():
            await worker.woken(None if run.kill_at is None else max(run.kill_at - loop.time(), 0))
            worker.hit()
            if worker.struck in _STRUCK:
                run.verdict, worker.struck = _STRUCK[worker.struck], None
                run.task.cancel()
            if worker.ending:
                _end(worker, run, loop.time())
            if run.task.cancelling():
                await asyncio.wait({run.task})
    finally:
        timer.cancel()


def _arm_init(worker: "PodWorker", kind: str) -> asyncio.TimerHandle:
    loop = asyncio.get_running_loop()
    fault = worker.fault if kind == status.INIT and worker.fault in AT_INIT else None
    delay = worker.node.fault_after / worker.node.speed
    return loop.call_later(delay, lambda: worker.strike(fault) if fault else None)


def _end(worker: "PodWorker", run: _Run, now: float) -> None:
    gently = (worker.deleting and not worker.gone) or worker.ended_by is Fault.NODE_SHUTDOWN
    if not gently or worker.lost or worker.grace == 0:
        run.task.cancel()
        return
    if not run.stop.is_set():
        worker.event("Normal", "Killing", f"Stopping container {run.spec.name}", run.path)
        run.stop.set()
    # A second deletion may only shorten the grace.
    latest = now + worker.grace / worker.node.speed
    run.kill_at = latest if run.kill_at is None else min(run.kill_at, latest)
    if run.kill_at <= now:
        run.task.cancel()


def _result(run: _Run) -> tuple[int, str]:
    return run.verdict if run.task.cancelled() else run.task.result()


async def _report(worker: "PodWorker", container: Body, kind: str, run: _Run, started: str) -> None:
    code, reason = _result(run)
    finished = worker.node.now()
    if reason == "StartError":
        message = run.spec.files[TERMINATION_LOG].decode()
        worker.event("Warning", "Failed", f"Error: {message}", run.path)
        started = status.EPOCH
    await worker.linger(SEEN_BAD if code else SEEN_GOOD)
    end = status.Exit(
        code=code, reason=reason, started=started, finished=finished,
        message=_message(container, run, code),
    )  # fmt: skip
    worker.write(lambda pod: status.terminated(pod, kind, run.spec.name, end, finished))


def _message(container: Body, run: _Run, code: int) -> str:
    path = container.get("terminationMessagePath", TERMINATION_LOG)
    written = run.spec.files.get(path) or run.spec.files.get(TERMINATION_LOG, b"")
    if written:
        return written[: status.MESSAGE_BYTES].decode(errors="ignore")
    falls_back = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    return status.tail(list(run.lines)) if code and falls_back else ""
