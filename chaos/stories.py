"""The stories a service is killed in: what user, operator and driver do, and how it may end.

No kill and no rule. An act waits for its moment in the world itself, for the service may be dead;
where the moment never comes, because the job ended before, it does nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from chaos.calls import Kill, Point, Side
from chaos.ground import Ground
from chaos.rules import EITHER, is_at_rest
from pyvatti import labels
from pyvatti.sandbox.driver_plans import PLANS, Plan, Plans, job_name
from pyvatti.sandbox.kube.resources import JOBS, SECRETS
from pyvatti.sandbox.kube.store import ApiError

BLOCKERS = "INTP9"
FOREVER = Plan(transfer_seconds=1e5)
LONG_TRANSFER = Plan(transfer_seconds=200)
LONG_RUN = Plan(run_seconds=400)
RELEASED = Kill(Point("kubernetes PATCH jobs", 1), Side.AFTER)
RENEWED = Kill(Point("kubernetes PUT leases", 1), Side.AFTER)
CANCELLED = Kill(Point("kubernetes DELETE jobs", 1), Side.AFTER)
SUCCEEDED, FAILED = frozenset({"succeeded"}), frozenset({"failed"})

Act = Callable[[Ground, str], Awaitable[bool]]


async def _launch(ground: Ground, job_id: str) -> bool:
    return await ground.launch(job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`act` launches the job, does the rest and tells whether a launch was answered 201.

    `settings` are the service's, `later` those it is restarted with. With `is_queued` another job
    holds the only slot of each run. After each death of `twice` the next service dies as well, at
    every call it makes. With `is_gentle` the service is asked to end (SIGTERM) instead of killed.
    With `is_between_jobs` it dies in calls that are made for no job: election, lists, watches.
    """

    name: str
    act: Act = _launch
    ends: frozenset[str] = SUCCEEDED
    plan: Plan = PLANS["success"]
    settings: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    is_queued: bool = False
    is_gentle: bool = False
    is_between_jobs: bool = False
    twice: tuple[Kill, ...] = ()

    @property
    def plans(self) -> Plans:
        """Give every job the story's plan, a blocker its own."""
        return lambda pod: FOREVER if job_name(pod).startswith(BLOCKERS.lower()) else self.plan

    async def prepare(self, ground: Ground, job_id: str) -> None:
        """Take the only slot, if the story is about a queued job."""
        if self.is_queued:
            blocker = blocker_of(job_id)
            await ground.launch(blocker)
            await ground.until(lambda: bool(ground.job(blocker).pods))

    async def clear(self, ground: Ground, job_id: str) -> None:
        """Give the slot back."""
        if self.is_queued:
            await ground.cancel(blocker_of(job_id))
            await ground.until_rest(blocker_of(job_id), accepted=True)


def blocker_of(job_id: str) -> str:
    """Name the job that holds the only slot while another is told about."""
    return BLOCKERS + job_id.removeprefix("INTP")[1:]


async def moment(ground: Ground, job_id: str, *states: str) -> bool:
    """Wait until a job was in one of the states; False if it ended before."""
    seen, base = ground.job(job_id), job_id.lower()
    await ground.until(
        lambda: (
            bool(set(states) & set(seen.states))
            or (bool(seen.uids) and is_at_rest(ground.world, base, accepted=False))
        )
    )
    return bool(set(states) & set(seen.states)) and base in ground.world.objects("Job")


def _cancel_when(state: str) -> Act:
    async def act(ground: Ground, job_id: str) -> bool:
        accepted = await ground.launch(job_id)
        if await moment(ground, job_id, state):
            await ground.cancel(job_id)
        return accepted

    return act


def _kubectl_delete_when(state: str, propagation: str) -> Act:
    async def act(ground: Ground, job_id: str) -> bool:
        accepted = await ground.launch(job_id)
        if await moment(ground, job_id, state):
            with suppress(ApiError):
                ground.world.kube.store.delete(
                    JOBS, ground.world.namespace, job_id.lower(), propagation=propagation
                )
        return accepted

    return act


async def _once(ground: Ground, job_id: str) -> bool:
    return await ground.launch(job_id, again=False)


async def _outage(ground: Ground, job_id: str) -> bool:
    """Let the backend be away until all data is deleted."""
    ground.world.backend.down = True
    accepted = await ground.launch(job_id)
    seen = ground.job(job_id)
    await moment(ground, job_id, "Succeeded", "Failed")
    await ground.until(lambda: not ground.world.work_bucket(job_id.lower()) and bool(seen.told))
    ground.world.backend.down = False
    return accepted


def _delete_secret(suffix: str, when: Callable[[Ground, str], bool]) -> Act:
    async def act(ground: Ground, job_id: str) -> bool:
        accepted = await ground.launch(job_id)
        base = job_id.lower()
        await ground.until(
            lambda: when(ground, base) or is_at_rest(ground.world, base, accepted=False)
        )
        with suppress(ApiError):
            ground.world.kube.store.delete(
                SECRETS, ground.world.namespace, base + suffix, propagation="Background"
            )
        return accepted

    return act


async def _lose_request(ground: Ground, job_id: str) -> bool:
    """Delete the Secret of a queued job, then give it the slot."""
    accepted = await _delete_secret("", _is_marked)(ground, job_id)
    await ground.cancel(blocker_of(job_id))
    return accepted


def _is_marked(ground: Ground, base: str) -> bool:
    """Tell whether the service has written down that the accept was complete."""
    body = ground.world.kube.store.find(JOBS, ground.world.namespace, base)
    return body is not None and labels.TRANSITIONS in body["metadata"].get("annotations", {})


def _has_transfer_secret(ground: Ground, base: str) -> bool:
    return f"{base}-transfer" in ground.world.objects("Secret")


def _is_released(ground: Ground, base: str) -> bool:
    body = ground.world.kube.store.find(JOBS, ground.world.namespace, base)
    return body is not None and not body["spec"].get("suspend")


def edit(ground: Ground, job_id: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let an operator edit a Job's metadata, if it is still there."""

    def edited(body: dict[str, Any]) -> None:
        change(body["metadata"])

    with suppress(ApiError):
        ground.world.kube.store.mutate(JOBS, ground.world.namespace, job_id.lower(), edited)


def _mislabel(metadata: dict[str, Any]) -> None:
    metadata["labels"][labels.STATE] = "Succeeded"
    metadata["annotations"].pop(labels.REQUEST_HASH, None)
    metadata["annotations"]["example.org/note"] = "looked at it"


def _break_annotations(metadata: dict[str, Any]) -> None:
    metadata["labels"][labels.STATE] = "Nonsense"
    metadata["annotations"][labels.TRANSITIONS] = "{not json"
    metadata["annotations"][labels.WORK_BUCKET] = ""
    metadata["finalizers"] = []


def _break_end(metadata: dict[str, Any]) -> None:
    metadata["labels"].pop(labels.STATE, None)
    metadata["annotations"][labels.VERDICT] = "[]"
    metadata["annotations"].pop(labels.TRANSITIONS, None)


async def _edits(ground: Ground, job_id: str) -> bool:
    accepted = await ground.launch(job_id)
    for states, change in (
        (("Created",), _mislabel),
        (("Deployed",), _break_annotations),
        (("Succeeded", "Failed"), _break_end),
    ):
        if await moment(ground, job_id, *states):
            edit(ground, job_id, change)
    return accepted


STORIES: tuple[Story, ...] = (
    Story(name="success", twice=(RELEASED,)),
    Story(name="success, launched once", act=_once, ends=SUCCEEDED),
    Story(name="success, ended by SIGTERM", is_gentle=True),
    Story(name="success, killed in election and watches", is_between_jobs=True, twice=(RENEWED,)),
    Story(name="task failure", plan=PLANS["task_failure"], ends=FAILED),
    Story(name="transfer failure", plan=PLANS["transfer_fails"], ends=FAILED),
    Story(
        name="cancel while queued",
        act=_cancel_when("Requested"),
        ends=FAILED,
        settings={"MAX_CONCURRENT_JOBS": "1"},
        is_queued=True,
    ),
    Story(
        name="cancel while starting",
        act=_cancel_when("Created"),
        ends=FAILED,
        plan=LONG_TRANSFER,
    ),
    Story(
        name="cancel while running",
        act=_cancel_when("Deployed"),
        ends=FAILED,
        plan=LONG_RUN,
        twice=(CANCELLED,),
    ),
    Story(
        name="time-out",
        plan=LONG_TRANSFER,
        ends=FAILED,
        settings={"TIMEOUT_SECONDS": "1"},
    ),
    Story(
        name="time-out while running",
        plan=LONG_RUN,
        ends=FAILED,
        settings={"DEPLOYED_TIMEOUT_SECONDS": "1"},
    ),
    Story(name="backend down", act=_outage),
    Story(
        name="kubectl delete job",
        act=_kubectl_delete_when("Deployed", "Background"),
        ends=FAILED,
        plan=LONG_RUN,
    ),
    Story(
        name="kubectl delete job, orphaning",
        act=_kubectl_delete_when("Created", "Orphan"),
        ends=FAILED,
        plan=LONG_TRANSFER,
    ),
    Story(
        name="kubectl delete secret while queued",
        act=_lose_request,
        ends=FAILED,
        settings={"MAX_CONCURRENT_JOBS": "1", "TIMEOUT_SECONDS": "2"},
        is_queued=True,
    ),
    Story(
        name="kubectl delete secret of the transfer",
        act=_delete_secret("-transfer", _has_transfer_secret),
        ends=EITHER,
    ),
    Story(
        name="kubectl delete secret while starting",
        act=_delete_secret("", _is_released),
        ends=EITHER,
        settings={"TIMEOUT_SECONDS": "2"},
    ),
    Story(name="operator edits", act=_edits, ends=SUCCEEDED),
    Story(
        name="restart with other settings",
        later={
            "MAX_CONCURRENT_JOBS": "1",
            "GCP_LOCATION": "europe-north1",
            "GLOBUS_CLIENT_SECRET": "rotated-globus-secret",
            "PGSC_CALC_REVISION": "v2.1.0",
            "RESULTS_RETENTION": "86400",
            "POLL_INTERVAL": "0.5",
            "NOTIFY_STATUS_PATH": "/pipeline-manager/integration/pipeline/{id}/status",
        },
    ),
)
