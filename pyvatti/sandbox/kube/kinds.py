"""What makes an object of each kind valid, beyond its metadata.

Follows kubernetes pkg/apis/*/validation as far as pyvatti's objects reach. Checks give
(field, sentence) pairs and change nothing.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from pyvatti.sandbox.kube.quantities import amount
from pyvatti.sandbox.kube.resources import (
    CONFIGMAPS,
    EVENTS,
    JOBS,
    LEASES,
    PODS,
    ROLEBINDINGS,
    SECRETS,
    Resource,
)
from pyvatti.sandbox.kube.syntax import (
    DATA_KEY,
    Causes,
    check_annotations,
    check_label_name,
    check_labels,
    check_qualified,
)

Body = dict[str, Any]

DATA_BYTES = 1_048_576
ENUMS = {
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("FallbackToLogsOnError", "File"),
}


def check(resource: Resource, body: Body) -> Causes:
    """Check the fields of one object."""
    checker = _CHECKS.get(resource)
    return checker(body) if checker else []


def _job(body: Body) -> Causes:
    spec = body["spec"]
    causes: Causes = []
    for name in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if spec.get(name, 0) < 0:
            causes.append(
                (
                    f"spec.{name}",
                    f"Invalid value: {spec[name]}: must be greater than or equal to 0",
                )
            )
    causes += _enum("spec.podReplacementPolicy", spec, ("Failed", "TerminatingOrFailed"))
    causes += _enum("spec.completionMode", spec, ("Indexed", "NonIndexed"))
    template = spec["template"]
    metadata = template.get("metadata", {})
    causes += check_labels("spec.template.labels", metadata.get("labels", {}))
    causes += check_annotations("spec.template.annotations", metadata.get("annotations", {}))
    if template["spec"]["restartPolicy"] not in ("OnFailure", "Never"):
        causes.append(
            (
                "spec.template.spec.restartPolicy",
                (
                    f'Unsupported value: "{template["spec"]["restartPolicy"]}": supported values:'
                    ' "OnFailure", "Never"'
                ),
            )
        )
    return causes + pod_spec("spec.template.spec", template["spec"])


def _pod(body: Body) -> Causes:
    return pod_spec("spec", body["spec"])


def pod_spec(path: str, spec: Body) -> Causes:
    """Check a pod spec or that of a pod template."""
    if not spec.get("containers"):
        return [(f"{path}.containers", "Required value")]
    causes: Causes = []
    volumes = [volume.get("name", "") for volume in spec.get("volumes", [])]
    for index, name in enumerate(volumes):
        causes += _unique(f"{path}.volumes[{index}].name", name, volumes[:index])
        if not name:
            causes.append((f"{path}.volumes[{index}].name", "Required value"))
    seen: list[str] = []
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group, [])):
            here = f"{path}.{group}[{index}]"
            causes += _unique(f"{here}.name", container.get("name", ""), seen)
            causes += _container(here, container, volumes)
            seen.append(container.get("name", ""))
    return causes


def _container(path: str, container: Body, volumes: list[str]) -> Causes:
    causes: Causes = [
        (f"{path}.{name}", "Required value")
        for name in ("name", "image")
        if not container.get(name)
    ]
    if container.get("name"):
        causes += check_label_name(f"{path}.name", container["name"])
    for name, values in ENUMS.items():
        causes += _enum(f"{path}.{name}", container, values)
    causes += _mounts(f"{path}.volumeMounts", container.get("volumeMounts", []), volumes)
    causes += _environment(f"{path}.env", container.get("env", []))
    return causes + _requests(path, container["resources"])


def _mounts(path: str, mounts: list[Body], volumes: list[str]) -> Causes:
    causes: Causes = []
    for index, mount in enumerate(mounts):
        if not mount.get("mountPath"):
            causes.append((f"{path}[{index}].mountPath", "Required value"))
        if mount.get("name") not in volumes:
            causes.append((f"{path}[{index}].name", f'Not found: "{mount.get("name", "")}"'))
    return causes


def _environment(path: str, variables: list[Body]) -> Causes:
    causes: Causes = []
    for index, variable in enumerate(variables):
        if not variable.get("name"):
            causes.append((f"{path}[{index}].name", "Required value"))
        if variable.get("value") and variable.get("valueFrom"):
            why = 'Invalid value: "": may not be specified when `value` is not empty'
            causes.append((f"{path}[{index}].valueFrom", why))
    return causes


def _requests(path: str, resources: Body) -> Causes:
    causes: Causes = []
    limits = resources.get("limits", {})
    for name, value in resources.get("requests", {}).items():
        if name in limits and amount(value) > amount(limits[name]):
            causes.append(
                (
                    f"{path}.resources.requests",
                    (
                        f'Invalid value: "{value}": must be less than or equal to {name} limit of'
                        f" {limits[name]}"
                    ),
                )
            )
    return causes


def _secret(body: Body) -> Causes:
    data = body.get("data", {})
    size = sum(len(base64.b64decode(value)) for value in data.values())
    return _data_keys("data", data) + _data_size(size)


def _configmap(body: Body) -> Causes:
    data, binary = body.get("data", {}), body.get("binaryData", {})
    size = sum(len(key.encode()) + len(value.encode()) for key, value in data.items())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    causes = _data_keys("data", data) + _data_keys("binaryData", binary)
    return causes + ([("", cause) for _, cause in _data_size(size)])


def _data_keys(path: str, data: Body) -> Causes:
    return [
        (
            f"{path}[{key}]",
            (
                f'Invalid value: "{key}": a valid config key must consist of alphanumeric'
                " characters, '-', '_' or '.'"
            ),
        )
        for key in data
        if len(key) > 253 or key in (".", "..") or not DATA_KEY.fullmatch(key)
    ]


def _data_size(size: int) -> Causes:
    if size <= DATA_BYTES:
        return []
    return [("data", f"Too long: may not be more than {DATA_BYTES} bytes")]


def _event(body: Body) -> Causes:
    space = body["metadata"].get("namespace", "")
    about = body.get("involvedObject", {}).get("namespace", "")
    if body.get("eventTime"):
        fits = bool(about) or space in ("default", "kube-system")
    else:
        fits = about == space if about else space in ("", "default")
    why = f'Invalid value: "{about}": does not match event.namespace'
    causes: Causes = [] if fits else [("involvedObject.namespace", why)]
    return causes + (modern_event(body) if body.get("eventTime") else [])


def modern_event(body: Body) -> Causes:
    """Check what an Event with an eventTime must have, in its core/v1 form."""
    causes: Causes = []
    wire_names = {"reportingComponent": "reportingController"}
    for name in ("reportingComponent", "reportingInstance", "action", "reason"):
        wire, value = wire_names.get(name, name), body.get(name, "")
        if not value:
            causes.append((wire, "Required value"))
        elif name != "reportingComponent" and len(value.encode()) > 128:
            causes.append((wire, 'Invalid value: "": can have at most 128 characters'))
    if body.get("reportingComponent"):
        causes += check_qualified("reportingController", body["reportingComponent"])
    if len(body.get("message", "").encode()) > 1024:
        causes.append(("message", 'Invalid value: "": can have at most 1024 characters'))
    return causes


def _lease(body: Body) -> Causes:
    spec = body.get("spec", {})
    causes: Causes = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        causes.append(
            (
                "spec.leaseDurationSeconds",
                f"Invalid value: {spec['leaseDurationSeconds']}: must be greater than 0",
            )
        )
    if spec.get("leaseTransitions", 0) < 0:
        causes.append(
            (
                "spec.leaseTransitions",
                f"Invalid value: {spec['leaseTransitions']}: must be greater than or equal to 0",
            )
        )
    return causes


def _role_binding(body: Body) -> Causes:
    missing = [name for name in ("kind", "name") if not body.get("roleRef", {}).get(name)]
    return [(f"roleRef.{name}", "Required value") for name in missing]


def _enum(path: str, owner: Body, values: tuple[str, ...]) -> Causes:
    value = owner.get(path.rpartition(".")[2], values[0])
    if value in values:
        return []
    known = ", ".join(f'"{item}"' for item in values)
    return [(path, f'Unsupported value: "{value}": supported values: {known}')]


def _unique(path: str, name: str, earlier: list[str]) -> Causes:
    return [(path, f'Duplicate value: "{name}"')] if name and name in earlier else []


_CHECKS: Mapping[Resource, Callable[[Body], Causes]] = {
    JOBS: _job,
    PODS: _pod,
    SECRETS: _secret,
    CONFIGMAPS: _configmap,
    EVENTS: _event,
    LEASES: _lease,
    ROLEBINDINGS: _role_binding,
}
