"""What the measurements put into a cluster: launches, and jobs that run since long ago."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from pyvatti import jobs, labels
from pyvatti.launch import EXAMPLE, LaunchRequest
from pyvatti.manifests import Renderer
from pyvatti.models import Delivery, Event, Installation, Manifest, Names, Notice, State, Verdict

NOBODY = "bench.example.org/nobody"  # neither Job controller nor scheduler touches these objects


def launch(number: int) -> dict[str, Any]:
    """Give a launch request."""
    body: dict[str, Any] = copy.deepcopy(EXAMPLE)
    body["pipeline_param"]["id"] = f"INTP{number:011}"
    return body


def parsed(number: int) -> LaunchRequest:
    """Give a launch request as the service reads it."""
    return LaunchRequest.model_validate(launch(number))


def live_job(renderer: Renderer, number: int, whose: Installation, state: State) -> Manifest:
    """Give a Job as the service leaves it in this state, Created or Deployed."""
    manifest = renderer.job(parsed(number), whose)
    times = {State.REQUESTED: launched(number), State.CREATED: launched(number)}
    marks = manifest["metadata"]["annotations"]
    if state is State.DEPLOYED:
        times[state] = launched(number)
        marks[labels.OUTBOX] = jobs.dump_outbox((_told(launched(number)),))
        marks[labels.VERDICT] = jobs.dump_verdict(
            Verdict(state=state, reason="RunStarted", message="The calculation runs.")
        )
    marks[labels.TRANSITIONS] = jobs.dump_transitions(times)
    manifest["metadata"]["labels"][labels.STATE] = state.value
    manifest["spec"] |= {"suspend": False, "managedBy": NOBODY}
    return manifest


def launched(number: int) -> datetime:
    """Give a time of launch in the last 50 minutes, so that no time limit is near."""
    return _NOW - timedelta(seconds=2 * (number % 1500))


_NOW = datetime.now(UTC).replace(microsecond=0)


def _told(at: datetime) -> Notice:
    return Notice(
        sequence=1,
        event=Event.DEPLOYED,
        at=at,
        delivery=Delivery.DELIVERED,
        settled_at=at,
        answer="200",
    )


def pod_of(job: Manifest) -> Manifest:
    """Give the pod a Job controller would make, for no scheduler to place."""
    metadata, template = job["metadata"], job["spec"]["template"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"]}
    owner |= {"uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}
    marks = {
        labels.CONTROLLER_UID: metadata["uid"],
        "batch.kubernetes.io/job-name": metadata["name"],
    }
    return {
        "metadata": {
            "name": f"{metadata['name']}-bench",
            "labels": template["metadata"]["labels"] | marks,
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [owner],
        },
        "spec": template["spec"] | {"schedulerName": NOBODY},
    }


def pod_status(pod: Manifest, *, transfer: int | None, calculation: int | None) -> Manifest:
    """Give a patch: exit codes of the two containers, None for one that runs.

    The calculation waits until the transfer has ended.
    """
    spec, now = pod["spec"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    first, second = spec["initContainers"][0], spec["containers"][0]
    waiting = {"waiting": {"reason": "PodInitializing"}}
    states = (
        _state(transfer, now),
        _state(calculation, now) if transfer == 0 else waiting,
    )
    failed = bool(transfer or calculation)
    statuses = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
        for container, state in zip((first, second), states, strict=True)
    ]
    conditions = [
        {"type": name, "status": "True", "lastTransitionTime": now}
        for name in ("PodScheduled", "PodReadyToStartContainers", "Initialized")
    ]
    return {
        "status": {
            "phase": "Failed" if failed else "Running" if transfer == 0 else "Pending",
            "startTime": now,
            "conditions": conditions,
            "initContainerStatuses": statuses[:1],
            "containerStatuses": statuses[1:],
        }
    }


def _state(exit_code: int | None, now: str) -> Manifest:
    if exit_code is None:
        return {"running": {"startedAt": now}}
    reason = "Error" if exit_code else "Completed"
    ended = {"exitCode": exit_code, "reason": reason, "startedAt": now, "finishedAt": now}
    return {"terminated": ended}


def base_of(number: int) -> str:
    """Name the Kubernetes Job of a launch: its id in lower case."""
    return parsed(number).job_id.lower()


def names_of(number: int, namespace: str, uid: str) -> Names:
    """Name everything that the Kubernetes Job with this uid makes."""
    return jobs.names_for(parsed(number).job_id, namespace, uid)
