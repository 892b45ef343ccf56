"""The life of one pod on the stand-in node, from scheduling to its final phase or removal.

One container's start and run are in `kubelet_container`. Order and delays are those measured on
Kubernetes 1.36.
"""

import asyncio
from contextlib import suppress

from pyvatti.sandbox.kube import kubelet_status as status
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.kubelet_container import run_container
from pyvatti.sandbox.kube.kubelet_faults import (
    AT_MAIN,
    BY_KUBELET,
    DISRUPTIONS,
    NODE_REASONS,
    REFUSED,
    SILENT,
    Fault,
)
from pyvatti.sandbox.kube.kubelet_node import ADDRESS, NAME, Change, Node
from pyvatti.sandbox.kube.kubelet_volumes import MountFailed, Volumes, mount
from pyvatti.sandbox.kube.resources import PODS
from pyvatti.sandbox.kube.store import Body

SCHEDULE, UNSCHEDULABLE = 0.01, 0.02
MOUNT, SANDBOX, LATE_SANDBOX = 0.26, 0.05, 0.35
MOUNT_RETRY, MOUNT_RETRY_LIMIT = 0.5, 122.0
PHASE, REMOVAL = 1.2, 0.1
UNREACHABLE, TOLERATION, NODE_REMOVED = 50.0, 300.0, 60.0
DEFAULT_GRACE = 30.0


class Interrupted(Exception):
    """The pod is being ended: deleted, or ended by its node."""


class PodWorker:
    """Follows one pod. `notice`, `vanish` and `strike` are called from outside at any time."""

    def __init__(self, node: Node, pod: Body) -> None:
        self.node = node
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.uid: str = pod["metadata"]["uid"]
        self.pod = pod
        self.fault = node.faults(pod)
        self.ended_by: Fault | None = None
        self.lost: Fault | None = None  # its node fell silent
        self.gone = False
        self.struck: Fault | None = None
        self._wake = asyncio.Event()

    @property
    def deleting(self) -> bool:
        """Whether a deletion was asked for."""
        return "deletionTimestamp" in self.pod["metadata"]

    @property
    def ending(self) -> bool:
        """Whether nothing new may be begun."""
        ended = self.lost is not None or self.ended_by is not None
        return self.deleting or self.gone or ended

    @property
    def grace(self) -> float:
        """Seconds between TERM and KILL."""
        given = self.pod["metadata"].get("deletionGracePeriodSeconds")
        asked = self.pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        return float(asked if given is None else given)

    def notice(self, pod: Body) -> None:
        """Take in the pod's newest state."""
        self.pod = pod
        if self.deleting:
            self._wake.set()

    def vanish(self) -> None:
        """End everything at once: the pod object is gone."""
        self.gone = True
        self._wake.set()

    def strike(self, fault: Fault) -> None:
        """Let a failure happen now."""
        self.struck = fault
        self._wake.set()

    def wake(self) -> None:
        """Let the worker look at the world again."""
        self._wake.set()

    async def live(self) -> None:
        """Run the pod to its end. Never raises but for cancellation and defects."""
        with suppress(Interrupted):
            await self._schedule()
            self._admit()
            await self._containers()
        if self.lost is not None:
            await self._lose_node()
        if not self.gone:
            await self._finish()

    def write(self, change: Change) -> None:
        """Change the pod's status in the store."""
        if not self.gone:
            self.node.store.mutate(PODS, self.namespace, self.name, change)

    def event(self, kind: str, reason: str, message: str, field_path: str = "") -> None:
        """Record an Event about the pod as the kubelet."""
        self.node.events.record(self.pod, kind, reason, message, field_path)

    async def woken(self, seconds: float | None) -> bool:
        """Wait real seconds (None: for ever) for something to happen; False if nothing did."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def pause(self, seconds: float) -> None:
        """Wait scaled seconds. Raises Interrupted as soon as the pod is being ended."""
        await self.linger(seconds)
        if self.ending:
            raise Interrupted

    async def linger(self, seconds: float) -> None:
        """Wait scaled seconds, less if the pod is being ended."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds / self.node.speed
        self.hit()
        while not self.ending and (left := end - loop.time()) > 0:
            if await self.woken(left):
                self.hit()

    def hit(self) -> None:
        """Act out a strike that ends the whole pod; one against a container stays for it."""
        fault = self.struck
        if fault in DISRUPTIONS or fault is Fault.POD_DELETED:
            self.struck = None
            self._disrupt(fault)
        elif fault in NODE_REASONS:
            self.struck, self.ended_by = None, fault
            if fault in (Fault.EVICTED, Fault.STORAGE_LIMIT):
                self.event("Warning", *NODE_REASONS[fault])
        elif fault in SILENT:
            self.struck, self.lost = None, fault

    def _disrupt(self, fault: Fault) -> None:
        if fault in DISRUPTIONS:
            reason, message = DISRUPTIONS[fault]
            self._condition("DisruptionTarget", "True", reason, message)
        with suppress(ApiError):
            self.node.store.delete(PODS, self.namespace, self.name, uid=self.uid)

    def _condition(self, kind: str, value: str, reason: str, message: str = "") -> None:
        now = self.node.now()
        self.write(
            lambda pod: status.set_condition(
                pod["status"], kind, value, now, reason=reason, message=message
            )
        )

    async def _schedule(self) -> None:
        if self.pod["spec"].get("nodeName"):
            return
        await self.pause(SCHEDULE)
        told = ""
        while why := self._misfit():
            if why != told:
                await self.pause(UNSCHEDULABLE - SCHEDULE)
                self._condition("PodScheduled", "False", "Unschedulable", why)
                self.node.scheduler.record_new_style(self.pod, "Warning", "FailedScheduling", why)
                told = why
            await self.woken(None)
            if self.ending:
                raise Interrupted
        self.write(self._bind)
        place = f"Successfully assigned {self.namespace}/{self.name} to {NAME}"
        self.node.scheduler.record_new_style(self.pod, "Normal", "Scheduled", place)

    def _misfit(self) -> str:
        if self.fault is Fault.UNSCHEDULABLE:
            return "0/1 nodes are available: 1 Insufficient cpu."
        return self.node.misfit(self.pod)

    def _bind(self, pod: Body) -> None:
        pod["spec"]["nodeName"] = NAME
        status.set_condition(pod["status"], "PodScheduled", "True", self.node.now())

    def _admit(self) -> None:
        if self.fault in REFUSED:
            self.ended_by = self.fault
            self.event("Warning", *NODE_REASONS[self.fault])
            raise Interrupted
        self.write(lambda pod: status.begin(pod, self.node.now(), ADDRESS))

    async def _containers(self) -> None:
        volumes = await self._mount()
        self.write(lambda pod: status.sandbox_up(pod, self.node.now(), self.node.pod_ip()))
        for container in self.pod["spec"].get("initContainers", []):
            if await run_container(self, container, status.INIT, volumes) != 0 or self.ending:
                return
        now = self.node.now()
        self.write(lambda pod: status.initialized(pod, now))
        strike = self._arm()
        try:
            async with asyncio.TaskGroup() as group:
                for container in self.pod["spec"]["containers"]:
                    group.create_task(self._main(container, volumes))
        finally:
            strike.cancel()

    async def _main(self, container: Body, volumes: Volumes) -> None:
        with suppress(Interrupted):
            await run_container(self, container, status.MAIN, volumes)

    def _arm(self) -> asyncio.TimerHandle:
        """Set the timer of a fault that strikes while the main container runs."""
        loop = asyncio.get_running_loop()
        delay = self.node.fault_after / self.node.speed
        fault = self.fault if self.fault in AT_MAIN else None
        return loop.call_later(delay, lambda: self.strike(fault) if fault else None)

    async def _mount(self) -> Volumes:
        await self.pause(MOUNT)
        retry, sandbox = MOUNT_RETRY, SANDBOX
        while True:
            try:
                volumes = self._try_mount()
                await self.pause(sandbox)
                return volumes
            except MountFailed as error:
                self.event("Warning", "FailedMount", str(error))
            await self.pause(retry)
            retry, sandbox = min(retry * 2, MOUNT_RETRY_LIMIT), LATE_SANDBOX

    def _try_mount(self) -> Volumes:
        if self.fault is Fault.MISSING_SECRET_VOLUME:
            raise MountFailed('MountVolume.SetUp failed for volume "x" : secret "x" not found')
        return mount(self.node.store, self.pod)

    async def _finish(self) -> None:
        if not self.ending:
            await self.linger(PHASE)
        now = self.node.now()
        self.write(lambda pod: self._final(pod, now))
        if self.deleting and not self.gone:
            await asyncio.sleep(REMOVAL / self.node.speed)
            self._remove()

    def _final(self, pod: Body, now: str) -> None:
        if self.ending and not self.lost:
            status.lose_containers(pod, now)
        status.finished(pod, "Failed" if self.ended_by or self.lost else status.outcome(pod), now)
        if self.lost:  # the garbage collector of pods writes both at once
            status.set_condition(
                pod["status"], "DisruptionTarget", "True", now,
                reason="DeletionByPodGC", message="PodGC: node no longer exists",
            )  # fmt: skip
        if self.ended_by:
            reason, message = NODE_REASONS[self.ended_by]
            pod["status"] |= {"reason": reason, "message": message}
            if self.ended_by in BY_KUBELET:
                status.set_condition(
                    pod["status"], "DisruptionTarget", "True", now,
                    reason="TerminationByKubelet", message=message,
                )  # fmt: skip

    def _remove(self) -> None:
        with suppress(ApiError):
            self.node.store.delete(PODS, self.namespace, self.name, uid=self.uid, grace_seconds=0)

    async def _lose_node(self) -> None:
        """Leave the pod as a silent node leaves it, until the node object is removed."""
        await self._silence(UNREACHABLE)
        self._mark_not_ready()
        if self.lost is Fault.NODE_SILENT:
            await self._silence(float("inf"))
        await self._silence(TOLERATION)
        self._disrupt(Fault.TAINT_MANAGER)
        await self._silence(NODE_REMOVED)

    def _mark_not_ready(self) -> None:
        """Turn Ready alone to False, as the node controller does, and say so where it was True."""
        ready = status.condition(self.pod, "Ready")
        if ready.get("status") != "True":
            return
        self._condition("Ready", "False", ready.get("reason", ""), ready.get("message", ""))
        text = "Node is not ready"
        self.node.controller.record(self.pod, "Warning", "NodeNotReady", text)

    async def _silence(self, seconds: float) -> None:
        # A deletion changes nothing here: no kubelet hears it.
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds / self.node.speed
        while not self.gone and (left := end - loop.time()) > 0:
            await self.woken(left if left < float("inf") else None)
