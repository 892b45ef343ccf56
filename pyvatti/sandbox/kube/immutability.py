"""Which fields an update may not change.

Follows kubernetes pkg/apis/{batch,core}/validation as run on 1.36. Checks give (field, sentence)
pairs and change nothing.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pyvatti.sandbox.kube.resources import (
    CONFIGMAPS,
    EVENTS,
    JOBS,
    PODS,
    ROLEBINDINGS,
    SECRETS,
    Resource,
)
from pyvatti.sandbox.kube.syntax import Causes

Body = dict[str, Any]

JOB_FIELDS = (
    "completions",
    "selector",
    "manualSelector",
    "completionMode",
    "podFailurePolicy",
    "successPolicy",
    "managedBy",
    "backoffLimitPerIndex",
)
DIRECTIVES = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
POD_FIELDS = ("activeDeadlineSeconds", "tolerations", "schedulingGates", "nodeName")


def check(resource: Resource, new: Body, old: Body) -> Causes:
    """Check an update of one object."""
    checker = _CHECKS.get(resource)
    return checker(new, old) if checker else []


def _fixed(path: str) -> tuple[str, str]:
    return (path, "Invalid value: field is immutable")


def _job(new: Body, old: Body) -> Causes:
    spec, before = new["spec"], old["spec"]
    causes = [_fixed(f"spec.{name}") for name in JOB_FIELDS if spec.get(name) != before.get(name)]
    template, template_before = spec["template"], before["template"]
    if template != template_before:
        # KEP-2926: scheduling directives of a suspended Job that has no start time
        if before.get("suspend") and "startTime" not in old.get("status", {}):
            template = _without_directives(template)
            template_before = _without_directives(template_before)
        if template != template_before:
            causes.append(_fixed("spec.template"))
    return causes


def _without_directives(template: Body) -> Body:
    bare = copy.deepcopy(template)
    metadata, spec = bare.get("metadata", {}), bare["spec"]
    for name in ("labels", "annotations"):
        metadata.pop(name, None)
    bare["metadata"] = metadata
    for name in DIRECTIVES:
        spec.pop(name, None)
    for container in (*spec.get("initContainers", []), *spec.get("containers", [])):
        container.pop("resources", None)
    return bare


def _pod(new: Body, old: Body) -> Causes:
    if _fixed_pod_spec(new) == _fixed_pod_spec(old):
        return []
    return [
        (
            "spec",
            (
                "Forbidden: pod updates may not change fields other than"
                " `spec.containers[*].image`,`spec.initContainers[*].image`,"
                "`spec.activeDeadlineSeconds`,`spec.tolerations`"
            ),
        )
    ]


def _fixed_pod_spec(body: Body) -> Body:
    spec = {name: value for name, value in body["spec"].items() if name not in POD_FIELDS}
    for group in ("initContainers", "containers"):
        spec[group] = [{**item, "image": ""} for item in spec.get(group, [])]
    return spec


def _secret(new: Body, old: Body) -> Causes:
    causes = [_fixed("type")] if new.get("type") != old.get("type") else []
    return causes + _frozen_data(new, old, ("data",))


def _configmap(new: Body, old: Body) -> Causes:
    return _frozen_data(new, old, ("data", "binaryData"))


def _frozen_data(new: Body, old: Body, fields: tuple[str, ...]) -> Causes:
    if not old.get("immutable"):
        return []
    sentence = "Forbidden: field is immutable when `immutable` is set"
    return [
        (name, sentence)
        for name in (*fields, "immutable")
        if new.get(name, {}) != old.get(name, {})
    ]


def _event(new: Body, old: Body) -> Causes:
    if not old.get("eventTime"):
        return []
    kept = ("metadata", "series", "count", "firstTimestamp", "lastTimestamp")
    names = sorted({*new, *old} - set(kept))
    return [_fixed(name) for name in names if new.get(name) != old.get(name)]


def _role_binding(new: Body, old: Body) -> Causes:
    return [] if new["roleRef"] == old["roleRef"] else [_fixed("roleRef")]


_CHECKS: Mapping[Resource, Callable[[Body, Body], Causes]] = {
    JOBS: _job,
    PODS: _pod,
    SECRETS: _secret,
    CONFIGMAPS: _configmap,
    EVENTS: _event,
    ROLEBINDINGS: _role_binding,
}
