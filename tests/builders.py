"""Builders of observations with defaults: `seen(state=..., pods=[...])` reads as one sentence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pyvatti.jobs import names_for
from pyvatti.labels import FINALIZER, INIT_CONTAINER, MAIN_CONTAINER
from pyvatti.models import ContainerEnd, Installation, Job, Pod, Run, RunStatus, State
from pyvatti.policy import Observed, Progress
from pyvatti.settings import Settings

T0 = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
JOB_ID = "INTP00000000513"
UID = "5a8f1f6e-0000-4000-8000-000000000513"
NAMES = names_for(JOB_ID, "intervene-dev", UID)
INSTALLATION = Installation(
    namespace="intervene-dev",
    namespace_uid="b7c1a5de-0000-4000-8000-00000000c0de",
    instance="pyvatti",
)

SETTINGS: dict[str, Any] = {
    "namespace": "intervene-dev",
    "api_auth": "none",
    "tower_token": "tower-secret-1",
    "tower_workspace": 7,
    "globus_domain": "https://g-abc.data.globus.org",
    "globus_client_id": "globus-client",
    "globus_client_secret": "globus-secret-2",
    "globus_scopes": "openid email",
    "key_handler_token": "a2V5OnNlY3JldC0z",
    "key_handler_password": "password-secret-4",
    "key_handler_url": "https://keys.example.org/key-handler",
    "gcp_project": "intervene",
    "gcp_location": "europe-west2",
    "notify_url": "https://backend.example.org",
    "notify_token": "bm90aWZ5OnNlY3JldC01",
}


def settings(**changes: Any) -> Settings:
    """Make settings that need no environment."""
    return Settings(**(SETTINGS | changes))


def at(seconds: float) -> datetime:
    """Give the moment so many seconds after the job was accepted."""
    return T0 + timedelta(seconds=seconds)


def job(state: State = State.CREATED, **changes: Any) -> Job:
    """Make a job that entered its state at T0."""
    queued = state is State.REQUESTED
    base = Job(
        names=NAMES,
        uid=UID,
        resource_version="10",
        state=state,
        accepted_at=T0,
        request_hash="hash",
        suspended=queued,
        started=not queued,
        deleting_since=None,
        finalizers=(FINALIZER,),
        ended=None,
        transitions={State.REQUESTED: T0, state: T0},
        label=state.value,
    )
    return replace(base, **changes)


def pod(**changes: Any) -> Pod:
    """Make a driver pod that is pending."""
    base = Pod(name=f"{NAMES.base}-x", uid="pod-1", job_uid=UID, phase="Pending", created_at=T0)
    return replace(base, **changes)


def running(**changes: Any) -> Pod:
    """Make a driver pod whose transfer is done and whose main container runs since T0."""
    return pod(
        **{
            "phase": "Running",
            "init_end": ended(INIT_CONTAINER, 0),
            "main_running": True,
            "main_started_at": T0,
        }
        | changes
    )


def ended(name: str = MAIN_CONTAINER, code: int = 0, reason: str = "", **more: Any) -> ContainerEnd:
    """Make the end of a container at T0."""
    why = reason or ("Completed" if code == 0 else "Error")
    return ContainerEnd(
        **{"name": name, "exit_code": code, "reason": why, "finished_at": T0} | more
    )


def run(status: RunStatus, **changes: Any) -> Run:
    """Make a Seqera row of the job's run."""
    base = Run(
        name=NAMES.run_name, status=status, submitted_at=T0, seen_at=T0, raw_status=status.value
    )
    return replace(base, **changes)


def seen(of: Job | None = None, *pods: Pod, **changes: Any) -> Observed:
    """Make an observation; Seqera has just been asked, answered or not."""
    base = Observed(
        job=of or job(), pods=pods, asked_at=at(10**9), progress=Progress(accepted=True)
    )
    return replace(base, **changes)
