"""The kinds that a chart brings besides those the service uses: defaults and checks.

Follows kubernetes pkg/apis/{apps,core,policy}; they are kept for Helm, nothing acts on them.
"""

import re
from typing import Any

from pyvatti.sandbox.kube.defaults import fill_pod_spec
from pyvatti.sandbox.kube.kinds import pod_spec
from pyvatti.sandbox.kube.resources import DEPLOYMENTS, DISRUPTIONBUDGETS, SERVICES, Resource
from pyvatti.sandbox.kube.syntax import Causes, check_annotations, check_labels

Body = dict[str, Any]

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
IMMUTABLE = "Invalid value: field is immutable"


def fill(resource: Resource, body: Body, old: Body | None = None) -> None:
    """Write the defaults into a body, in place; `old` is what an update replaces."""
    spec = body.setdefault("spec", {}) if resource in (DEPLOYMENTS, SERVICES) else {}
    if resource is DEPLOYMENTS:
        for name, value in (("replicas", 1), ("revisionHistoryLimit", 10)):
            spec.setdefault(name, value)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            surge = {"maxSurge": "25%", "maxUnavailable": "25%"}
            strategy["rollingUpdate"] = surge | strategy.get("rollingUpdate", {})
        fill_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))
    if resource is SERVICES:
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
        if old and "clusterIP" in old["spec"]:
            spec.setdefault("clusterIP", old["spec"]["clusterIP"])
        elif spec["type"] != "ExternalName":
            host = int(body["metadata"]["uid"].replace("-", "")[:4], 16)
            spec.setdefault("clusterIP", f"10.96.{host >> 8}.{host & 255}")


def check(resource: Resource, body: Body, old: Body | None = None) -> Causes:
    """Check the fields of one object, and against `old` those that may not change."""
    if resource is DEPLOYMENTS:
        return _deployment(body, old)
    if resource is SERVICES:
        return _service(body, old)
    if resource is DISRUPTIONBUDGETS and {"minAvailable", "maxUnavailable"} <= body["spec"].keys():
        return [("spec", "Invalid value: minAvailable and maxUnavailable cannot be both set")]
    return []


def _deployment(body: Body, old: Body | None) -> Causes:
    spec = body["spec"]
    template, chosen = spec["template"], spec.get("selector", {}).get("matchLabels", {})
    metadata = template.get("metadata", {})
    causes = check_labels("spec.template.labels", metadata.get("labels", {}))
    causes += check_annotations("spec.template.annotations", metadata.get("annotations", {}))
    if not spec.get("selector"):
        causes.append(("spec.selector", "Required value"))
    elif not chosen.items() <= metadata.get("labels", {}).items():
        why = "Invalid value: `selector` does not match template `labels`"
        causes.append(("spec.template.metadata.labels", why))
    if template["spec"]["restartPolicy"] != "Always":
        why = (
            f'Unsupported value: "{template["spec"]["restartPolicy"]}": supported values: "Always"'
        )
        causes.append(("spec.template.spec.restartPolicy", why))
    if old and old["spec"]["selector"] != spec.get("selector"):
        causes.append(("spec.selector", IMMUTABLE))
    return causes + pod_spec("spec.template.spec", template["spec"])


def _service(body: Body, old: Body | None) -> Causes:
    spec, name = body["spec"], body["metadata"]["name"]
    causes: Causes = []
    if len(name) > 63 or not SERVICE_NAME.fullmatch(name):
        causes.append(("metadata.name", f'Invalid value: "{name}": a DNS-1035 label is needed'))
    if not spec.get("ports"):
        causes.append(("spec.ports", "Required value"))
    for index, port in enumerate(spec.get("ports", [])):
        if not 0 < port.get("port", 0) < 65536:
            why = f"Invalid value: {port.get('port', 0)}: must be between 1 and 65535, inclusive"
            causes.append((f"spec.ports[{index}].port", why))
    if old and spec.get("clusterIP") != old["spec"].get("clusterIP"):
        causes.append(("spec.clusterIPs[0]", "Invalid value: may not change once set"))
    return causes
