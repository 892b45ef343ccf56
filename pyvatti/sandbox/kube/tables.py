"""Objects as the rows kubectl prints.

Follows kubernetes pkg/printers/internalversion/printers.go. Pure; `now` is handed in.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pyvatti.sandbox.kube import podtable
from pyvatti.sandbox.kube.durations import age_of, between
from pyvatti.sandbox.kube.resources import (
    CONFIGMAPS,
    EVENTS,
    EVENTS_V1,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCEQUOTAS,
    ROLEBINDINGS,
    ROLES,
    SECRETS,
    SERVICEACCOUNTS,
    Resource,
)

Body = dict[str, Any]
Row = Callable[[Body, datetime], list[Any]]

# A name after "+" is shown with `-o wide` only.
COLUMNS: Mapping[Resource, str] = {
    JOBS: "Name Status Completions Duration Age +Containers +Images +Selector",
    PODS: "Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates",
    SECRETS: "Name Type Data Age",
    CONFIGMAPS: "Name Data Age",
    EVENTS: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    EVENTS_V1: "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name",
    LEASES: "Name Holder Age",
    NAMESPACES: "Name Status Age",
    NODES: "Name Status Roles Age Version",
    SERVICEACCOUNTS: "Name Secrets Age",
    RESOURCEQUOTAS: "Name Request Limit Age",
    ROLES: "Name Created_At",
    ROLEBINDINGS: "Name Role Age",
}


def columns(resource: Resource) -> list[Body]:
    """Give the column definitions of a resource."""
    definitions = []
    for word in COLUMNS.get(resource, "Name Age").split():
        name = word.lstrip("+").replace("_", " ")
        definitions.append(
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": name,
                "priority": int(word.startswith("+")),
            }
        )
    return definitions


def cells(resource: Resource, body: Body, now: datetime) -> list[Any]:
    """Give the cells of one object, which is in its stored form."""
    return _ROWS.get(resource, _named)(body, now)


def _name(body: Body) -> str:
    name: str = body["metadata"]["name"]
    return name


def _named(body: Body, now: datetime) -> list[Any]:
    return [_name(body), age_of(body, now)]


def _job(body: Body, now: datetime) -> list[Any]:
    spec, status = body["spec"], body.get("status", {})
    containers = spec["template"]["spec"]["containers"]
    labels = spec.get("selector", {}).get("matchLabels", {})
    wanted = spec.get("completions")
    done = (
        f"{status.get('succeeded', 0)}/{spec.get('parallelism', 1) if wanted is None else wanted}"
    )
    return [
        _name(body),
        _job_status(body),
        done,
        between(status.get("startTime"), status.get("completionTime"), now),
        age_of(body, now),
        ",".join(item["name"] for item in containers),
        ",".join(item["image"] for item in containers),
        ",".join(f"{key}={value}" for key, value in labels.items()),
    ]


def _job_status(body: Body) -> str:
    conditions = body.get("status", {}).get("conditions", [])
    true = {item["type"] for item in conditions if item["status"] == "True"}
    for type_ in ("Complete", "Failed"):
        if type_ in true:
            return type_
    if "deletionTimestamp" in body["metadata"]:
        return "Terminating"
    for type_ in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if type_ in true:
            return type_
    return "Running"


def _secret(body: Body, now: datetime) -> list[Any]:
    return [_name(body), body.get("type", ""), len(body.get("data", {})), age_of(body, now)]


def _configmap(body: Body, now: datetime) -> list[Any]:
    count = len(body.get("data", {})) + len(body.get("binaryData", {}))
    return [_name(body), count, age_of(body, now)]


def _event(body: Body, now: datetime) -> list[Any]:
    about, series, source = body["involvedObject"], body.get("series"), body.get("source", {})
    first = body.get("firstTimestamp") or body.get("eventTime")
    last = series["lastObservedTime"] if series else body.get("lastTimestamp") or first
    target = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    origin = source.get("component") or body.get("reportingComponent", "")
    return [
        between(last, None, now) or "<unknown>",
        body.get("type", ""),
        body.get("reason", ""),
        target,
        about.get("fieldPath", ""),
        ", ".join(filter(None, (origin, source.get("host", "")))),
        body.get("message", "").strip(),
        between(first, None, now) or "<unknown>",
        series["count"] if series else body.get("count", 1),
        _name(body),
    ]


def _lease(body: Body, now: datetime) -> list[Any]:
    return [_name(body), body.get("spec", {}).get("holderIdentity", ""), age_of(body, now)]


def _namespace(body: Body, now: datetime) -> list[Any]:
    return [_name(body), body["status"]["phase"], age_of(body, now)]


def _node(body: Body, now: datetime) -> list[Any]:
    conditions = body.get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    version = body.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
    return [_name(body), "Ready" if ready else "NotReady", "<none>", age_of(body, now), version]


def _service_account(body: Body, now: datetime) -> list[Any]:
    return [_name(body), len(body.get("secrets", [])), age_of(body, now)]


def _quota(body: Body, now: datetime) -> list[Any]:
    status = body.get("status", {})
    used, hard = status.get("used", {}), status.get("hard", {})
    shown = {key: f"{key}: {used.get(key, 0)}/{hard[key]}" for key in sorted(hard)}
    limits = [text for key, text in shown.items() if key.startswith("limits.")]
    requests = [text for key, text in shown.items() if not key.startswith("limits.")]
    return [_name(body), ", ".join(requests), ", ".join(limits), age_of(body, now)]


def _role(body: Body, _now: datetime) -> list[Any]:
    return [_name(body), body["metadata"]["creationTimestamp"]]


def _role_binding(body: Body, now: datetime) -> list[Any]:
    role = body["roleRef"]
    return [_name(body), f"{role['kind']}/{role['name']}", age_of(body, now)]


_ROWS: Mapping[Resource, Row] = {
    JOBS: _job,
    PODS: podtable.cells,
    SECRETS: _secret,
    CONFIGMAPS: _configmap,
    EVENTS: _event,
    EVENTS_V1: _event,
    LEASES: _lease,
    NAMESPACES: _namespace,
    NODES: _node,
    SERVICEACCOUNTS: _service_account,
    RESOURCEQUOTAS: _quota,
    ROLES: _role,
    ROLEBINDINGS: _role_binding,
}
