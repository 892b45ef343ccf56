"""OpenAPI v3 documents of the served kinds, made from the field table.

As much as kubectl needs: schemas, and per resource the parameters of its PATCH.
"""

from functools import cache
from typing import Any

from pyvatti.sandbox.kube.discovery import VERSION, group_versions
from pyvatti.sandbox.kube.resources import EVENTS, RESOURCES, Resource
from pyvatti.sandbox.kube.schema import FieldType, type_of, types

Body = dict[str, Any]

SCALARS: dict[str, Body] = {
    "str": {"type": "string"},
    "bytes": {"type": "string", "format": "byte"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": "number"},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "intstr": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    "time": {"type": "string", "format": "date-time"},
    "micro": {"type": "string", "format": "date-time"},
}
WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")


def index() -> Body:
    """Answer /openapi/v3."""
    paths = {
        _path(group, version): {"serverRelativeURL": f"/openapi/v3/{_path(group, version)}"}
        for group, version in group_versions()
    }
    return {"paths": paths}


@cache
def document(path: str) -> Body | None:
    """Answer /openapi/v3/{path}, such as apis/batch/v1; None if it is not served."""
    for group, version in group_versions():
        if _path(group, version) == path:
            return _document(
                [item for item in RESOURCES if (item.group, item.version) == (group, version)]
            )
    return None


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(resources: list[Resource]) -> Body:
    schemas: Body = {}
    paths: Body = {}
    for item in resources:
        root = type_of(item)
        _collect(root, schemas)
        schemas[_name(root)]["x-kubernetes-group-version-kind"] = [_identity(item)]
        base = f"/{_path(item.group, item.version)}"
        scope = "/namespaces/{namespace}" if item.namespaced else ""
        paths[f"{base}{scope}/{item.plural}"] = {"post": _operation(item, "post")}
        paths[f"{base}{scope}/{item.plural}/{{name}}"] = {
            "put": _operation(item, "put"),
            "patch": _operation(item, "patch"),
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _identity(item: Resource) -> Body:
    return {"group": item.group, "version": item.version, "kind": item.kind}


def _operation(item: Resource, action: str) -> Body:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in WRITE_PARAMETERS
    ]
    return {
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _identity(item),
    }


def _name(kind: FieldType) -> str:
    name = "Event" if kind is type_of(EVENTS) else kind.name
    return f"io.k8s.api.{name}"


def _collect(kind: FieldType, schemas: Body) -> None:
    name = _name(kind)
    if name in schemas:
        return
    schemas[name] = {"type": "object", "properties": {}}
    properties = {label: _schema(child, schemas) for label, child in kind.fields.items()}
    schemas[name]["properties"] = properties


def _schema(kind: FieldType, schemas: Body) -> Body:
    if kind.form == "scalar":
        return SCALARS[kind.name]
    if kind.form == "object":
        _collect(types()[kind.name], schemas)
        return {"allOf": [{"$ref": f"#/components/schemas/{_name(kind)}"}], "default": {}}
    if kind.item is None:
        return {"type": "object"}
    inner = _schema(kind.item, schemas)
    if kind.form == "map":
        return {"type": "object", "additionalProperties": inner}
    described: Body = {"type": "array", "items": inner}
    if kind.form == "keyed":
        described |= {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(kind.keys),
            "x-kubernetes-patch-merge-key": kind.keys[0],
            "x-kubernetes-patch-strategy": "merge",
        }
    return described
