"""The defaults the API server writes into new objects.

Follows kubernetes pkg/apis/{core,batch}/v1/defaults.go. No checks.
"""

import base64
from collections.abc import Iterator
from typing import Any

from pyvatti.sandbox.kube.resources import JOBS, NAMESPACES, PODS, SECRETS, Resource

Body = dict[str, Any]

UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")


def fill(resource: Resource, body: Body) -> None:
    """Write the defaults of a resource into a body, in place."""
    if resource is JOBS:
        _fill_job(body)
    elif resource is PODS:
        _fill_pod(body)
    elif resource is SECRETS:
        _fill_secret(body)
    elif resource is NAMESPACES:
        body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body[
            "metadata"
        ].get("name", "")
        body.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        body.setdefault("status", {})["phase"] = "Active"


def refill(resource: Resource, body: Body) -> None:
    """Write the defaults an update left out, in place; the status is untouched."""
    if resource is JOBS:
        _fill_job(body)
    elif resource is PODS:
        fill_pod_spec(body["spec"])
    elif resource is SECRETS:
        _fill_secret(body)


def own_pods(body: Body) -> None:
    """Write a new Job's selector and the labels its pods are found by (needs the uid)."""
    spec, metadata = body["spec"], body["metadata"]
    if spec.get("manualSelector"):
        return
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels.update(dict.fromkeys(UID_LABELS, metadata["uid"]))
    labels.update(dict.fromkeys(NAME_LABELS, metadata["name"]))
    spec["selector"] = {"matchLabels": {UID_LABELS[0]: metadata["uid"]}}


def _fill_job(body: Body) -> None:
    spec = body.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    failure_policy = "podFailurePolicy" in spec
    spec.setdefault("podReplacementPolicy", "Failed" if failure_policy else "TerminatingOrFailed")
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for pattern in rule.get("onPodConditions", []):
            pattern.setdefault("status", "True")
    template = spec.setdefault("template", {})
    if not body["metadata"].get("labels") and template.get("metadata", {}).get("labels"):
        body["metadata"]["labels"] = dict(template["metadata"]["labels"])
    fill_pod_spec(template.setdefault("spec", {}))


def _fill_pod(body: Body) -> None:
    spec = body.setdefault("spec", {})
    fill_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    for container in _containers(spec):
        resources = container["resources"]
        if "limits" in resources:
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
    body["status"] = {"phase": "Pending", "qosClass": _quality(spec)}


def fill_pod_spec(spec: Body) -> None:
    """Write the defaults of a pod spec or pod template, in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in _containers(spec):
        _fill_container(container)
    for volume in spec.get("volumes", []):
        _fill_volume(volume)


def _containers(spec: Body) -> Iterator[Body]:
    yield from spec.get("initContainers", [])
    yield from spec.get("containers", [])


def _fill_container(container: Body) -> None:
    image = container.get("image", "")
    tag = image.rsplit("/", 1)[-1]
    latest = "@" not in tag and (":" not in tag or tag.endswith(":latest"))
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            container[probe] = {
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
                **container[probe],
            }


def _fill_volume(volume: Body) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source].setdefault("defaultMode", 0o644)
    for projection in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in projection:
            projection["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")


def _fill_secret(body: Body) -> None:
    body.setdefault("type", "Opaque")
    for key, text in body.pop("stringData", {}).items():
        body.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _quality(spec: Body) -> str:
    """Give the pod's quality of service class (pkg/apis/core/helper/qos)."""
    shares = [container["resources"] for container in _containers(spec)]
    if not any(share.get("requests") or share.get("limits") for share in shares):
        return "BestEffort"
    guaranteed = all(
        set(share.get("limits", {})) >= {"cpu", "memory"}
        and share.get("requests") == share.get("limits")
        for share in shares
    )
    return "Guaranteed" if guaranteed else "Burstable"
