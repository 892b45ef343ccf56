"""What the API server says about itself: groups, resources, version, health.

The OpenAPI documents are in `openapi`.
"""

from typing import Any

from pyvatti.sandbox.kube.resources import RESOURCES, Resource

Body = dict[str, Any]

VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-04-22T00:00:00Z",
    "goVersion": "go1.26",
    "compiler": "gc",
    "platform": "linux/amd64",
}
AGGREGATED = "apidiscovery.k8s.io"
SUBRESOURCE_KINDS = {
    "token": ("authentication.k8s.io", "TokenRequest", ("create",)),
    "status": ("", "", ("get", "patch", "update")),
    "log": ("", "", ("get",)),
    "finalize": ("", "", ("update",)),
    "eviction": ("policy", "Eviction", ("create",)),
}
REVIEWS = {
    ("authorization.k8s.io", "v1"): {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
    },
    ("authentication.k8s.io", "v1"): {"selfsubjectreviews": "SelfSubjectReview"},
}


def group_versions() -> list[tuple[str, str]]:
    """Give every served (group, version), the core group first."""
    served = [(item.group, item.version) for item in RESOURCES]
    return list(dict.fromkeys([*served, *REVIEWS]))


def core_versions() -> Body:
    """Answer /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> Body:
    """Answer /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        group(name) for name, _ in group_versions() if name
    ]}  # fmt: skip


def group(name: str) -> Body:
    """Answer /apis/{group}."""
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for known, version in group_versions()
        if known == name
    ]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def resource_list(group_name: str, version: str) -> Body:
    """Answer /api/v1 and /apis/{group}/{version}."""
    entries: list[Body] = []
    for item in _resources(group_name, version):
        entries.append(_entry(item))
        entries += [_subresource(item, name) for name in item.subresources]
    for plural, kind in REVIEWS.get((group_name, version), {}).items():
        entries.append(
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": False,
                "kind": kind,
                "verbs": ["create"],
            }
        )
    group_version = f"{group_name}/{version}" if group_name else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    }


def aggregated(*, core: bool) -> Body:
    """Answer /api or /apis in the aggregated form (APIGroupDiscoveryList v2)."""
    items = []
    for name, version in group_versions():
        if core is (name == ""):
            versions = [
                {
                    "version": version,
                    "resources": _aggregated_resources(name, version),
                    "freshness": "Current",
                }
            ]
            items.append({"metadata": {"name": name or None}, "versions": versions})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{AGGREGATED}/v2",
        "metadata": {},
        "items": items,
    }


def _resources(group_name: str, version: str) -> list[Resource]:
    return [item for item in RESOURCES if (item.group, item.version) == (group_name, version)]


def _entry(item: Resource) -> Body:
    entry: Body = {
        "name": item.plural,
        "singularName": item.singular,
        "namespaced": item.namespaced,
        "kind": item.kind,
        "verbs": list(item.verbs),
        "shortNames": list(item.short_names),
        "categories": list(item.categories),
    }
    return {key: value for key, value in entry.items() if value != []}


def _subresource(item: Resource, name: str) -> Body:
    group_name, kind, verbs = SUBRESOURCE_KINDS[name]
    entry: Body = {
        "name": f"{item.plural}/{name}",
        "singularName": "",
        "namespaced": item.namespaced,
        "kind": kind or item.kind,
        "verbs": list(verbs),
    }
    return entry | ({"group": group_name, "version": "v1"} if group_name else {})


def _aggregated_resources(group_name: str, version: str) -> list[Body]:
    entries = []
    for item in _resources(group_name, version):
        entry: Body = {
            "resource": item.plural,
            "responseKind": _kind(item.group, item.version, item.kind),
            "scope": "Namespaced" if item.namespaced else "Cluster",
            "singularResource": item.singular,
            "verbs": list(item.verbs),
            "shortNames": list(item.short_names),
            "categories": list(item.categories),
            "subresources": [_aggregated_subresource(item, name) for name in item.subresources],
        }
        entries.append({key: value for key, value in entry.items() if value != []})
    for plural, kind in REVIEWS.get((group_name, version), {}).items():
        entries.append(
            {
                "resource": plural,
                "responseKind": _kind(group_name, version, kind),
                "scope": "Cluster",
                "singularResource": kind.lower(),
                "verbs": ["create"],
            }
        )
    return entries


def _aggregated_subresource(item: Resource, name: str) -> Body:
    group_name, kind, verbs = SUBRESOURCE_KINDS[name]
    return {
        "subresource": name,
        "responseKind": _kind(group_name or item.group, "v1", kind or item.kind),
        "verbs": list(verbs),
    }


def _kind(group_name: str, version: str, kind: str) -> Body:
    return {"group": group_name, "version": version, "kind": kind}
