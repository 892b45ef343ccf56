"""PURE: what the Job controller decides from a Job and its pods.

No writes and no clock. Source: kubernetes pkg/controller/job/job_controller.go (1.36).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

TRACKING = "batch.kubernetes.io/job-tracking"
DECIDED = ("SuccessCriteriaMet", "FailureTarget")
TERMINAL = ("Complete", "Failed")
FINAL_PHASES = ("Succeeded", "Failed")
OWN_CONTROLLER = "kubernetes.io/job-controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decided or terminal condition."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The pods of a Job by what they count for.

    succeeded, failed: with earlier pods. lost: dying pods that are as good as failed.
    """

    active: Sequence[Body]
    terminating: int
    ready: int
    succeeded: int
    failed: int
    lost: int
    uncounted: Sequence[Body]


def condition(job: Body, kind: str) -> Body | None:
    """Give a condition that is true, None otherwise."""
    found: Iterable[Body] = job.get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == kind and item["status"] == "True"), None)


def is_finished(job: Body) -> bool:
    """Whether the Job is Complete or Failed."""
    return any(condition(job, kind) for kind in TERMINAL)


def is_ours(job: Body) -> bool:
    """Whether no other controller manages the Job."""
    return bool(job["spec"].get("managedBy", OWN_CONTROLLER) == OWN_CONTROLLER)


def is_terminal(pod: Body) -> bool:
    """Whether a pod has reached its final phase."""
    return pod.get("status", {}).get("phase") in FINAL_PHASES


def is_dying(pod: Body) -> bool:
    """Whether a pod's deletion was asked for."""
    return "deletionTimestamp" in pod["metadata"]


def is_tracked(pod: Body) -> bool:
    """Whether a pod is still to be counted."""
    return TRACKING in pod["metadata"].get("finalizers", [])


def tally(job: Body, pods: Sequence[Body]) -> Tally:
    """Count the pods. A dying pod counts as failed at once unless only failed ones are replaced.

    Pods without the tracking finalizer were counted before, or are not to be counted.
    """
    waits_for_end = job["spec"].get("podReplacementPolicy") == "Failed"
    living = [pod for pod in pods if not is_terminal(pod)]
    active = [pod for pod in living if not is_dying(pod)]
    uncounted = [pod for pod in pods if is_terminal(pod) and is_tracked(pod)]
    good = sum(pod["status"]["phase"] == "Succeeded" for pod in uncounted)
    status = job.get("status", {})
    failed = status.get("failed", 0) + len(uncounted) - good
    dying = [pod for pod in living if is_dying(pod) and is_tracked(pod)]
    return Tally(
        active=active,
        terminating=len(living) - len(active),
        ready=sum(_is_ready(pod) for pod in active),
        succeeded=status.get("succeeded", 0) + good,
        failed=failed,
        lost=0 if waits_for_end else len(dying),
        uncounted=uncounted,
    )


def decide(job: Body, counts: Tally, *, overdue: bool) -> Verdict | None:
    """Give the decided condition a Job deserves now, None while it goes on."""
    spec = job["spec"]
    matched = _failing_rule(job, counts.uncounted)
    if matched:
        return Verdict(kind="FailureTarget", reason="PodFailurePolicy", message=matched)
    if counts.failed + counts.lost > spec.get("backoffLimit", 6):
        message = "Job has reached the specified backoff limit"
        return Verdict(kind="FailureTarget", reason="BackoffLimitExceeded", message=message)
    if overdue:
        message = "Job was active longer than specified deadline"
        return Verdict(kind="FailureTarget", reason="DeadlineExceeded", message=message)
    if counts.succeeded >= wanted_completions(job, counts):
        message = "Reached expected number of succeeded pods"
        return Verdict(kind="SuccessCriteriaMet", reason="CompletionsReached", message=message)
    return None


def terminal(decided: Body) -> Verdict:
    """Give the terminal condition that follows a decided one."""
    kind = "Complete" if decided["type"] == "SuccessCriteriaMet" else "Failed"
    return Verdict(kind=kind, reason=decided["reason"], message=decided["message"])


def wanted_completions(job: Body, counts: Tally) -> int:
    """Give how many pods must succeed: `completions`, or any one once none is active."""
    completions = job["spec"].get("completions")
    if completions is not None:
        return int(completions)
    return 1 if not counts.active else counts.succeeded + 1


def missing_pods(job: Body, counts: Tally) -> int:
    """Give how many pods are to be created now."""
    spec = job["spec"]
    wanted = spec.get("parallelism", 1)
    if spec.get("completions") is not None:
        wanted = min(wanted, spec["completions"] - counts.succeeded)
    held = counts.terminating if spec.get("podReplacementPolicy") == "Failed" else 0
    return max(int(wanted) - len(counts.active) - held, 0)


def new_pod(job: Body, name: str) -> Body:
    """Make a pod from a Job's template."""
    metadata = job["metadata"]
    template = job["spec"]["template"]
    labels = {
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": metadata["name"],
        "controller-uid": metadata["uid"],
        "job-name": metadata["name"],
    }
    described = template.get("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{metadata['name']}-",
            "labels": {**described.get("labels", {}), **labels},
            "annotations": dict(described.get("annotations", {})),
            "finalizers": [TRACKING],
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template["spec"],
    }


def owner_uid(pod: Body) -> str:
    """Give the uid of the Job that controls a pod, empty if none does."""
    for owner in pod["metadata"].get("ownerReferences", []):
        if owner.get("controller") and owner["kind"] == "Job":
            return str(owner["uid"])
    return ""


def _is_ready(pod: Body) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _failing_rule(job: Body, pods: Iterable[Body]) -> str:
    """Say which FailJob rule a failed pod meets, empty if none; earlier rules win."""
    rules: Sequence[Body] = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    for pod in pods:
        if pod["status"]["phase"] != "Failed":
            continue
        for index, rule in enumerate(rules):
            if what := _matches(rule, pod):
                if rule["action"] == "FailJob":
                    return f"{what} matching FailJob rule at index {index}"
                break
    return ""


def _matches(rule: Body, pod: Body) -> str:
    place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for pattern in rule.get("onPodConditions", []):
        for item in pod["status"].get("conditions", []):
            if (item["type"], item["status"]) == (pattern["type"], pattern.get("status", "True")):
                return f"Pod {place} has condition {item['type']}"
    wanted = rule.get("onExitCodes")
    return _exit_match(wanted, pod, place) if wanted else ""


def _exit_match(wanted: Body, pod: Body, place: str) -> str:
    status = pod["status"]
    for item in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        end = item["state"].get("terminated")
        if not end or end["exitCode"] == 0:
            continue
        named = wanted.get("containerName", item["name"]) == item["name"]
        if named and (end["exitCode"] in wanted["values"]) is (wanted["operator"] == "In"):
            return (
                f"Container {item['name']} for pod {place} failed with exit code {end['exitCode']}"
            )
    return ""
