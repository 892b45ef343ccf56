"""Field managers: who wrote which field, as metadata.managedFields keeps it.

Pure: bodies in, entries written into bodies. Server-side apply itself is in `apply`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from pyvatti.sandbox.kube.schema import FieldType

Body = dict[str, Any]
Path: TypeAlias = tuple[str, ...]  # steps `f:field`, `k:{keys}` and `v:value` of FieldsV1

ITEM = object()  # stands for the presence of an item in a keyed list
UNOWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "generation",
                "generateName",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            )
        ),
    }
)


@dataclass(slots=True)
class Manager:
    """One entry of managedFields."""

    name: str
    operation: str
    subresource: str
    api_version: str
    time: str = ""
    paths: set[Path] = field(default_factory=set)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two entries the same manager."""
        return (self.name, self.operation, self.subresource)


def flatten(kind: FieldType, body: Body) -> dict[Path, Any]:
    """Give every field a manager can own: path -> value."""
    return {path: value for path, value in _walk(kind, body, ()) if path[:2] not in UNOWNED}


def _walk(kind: FieldType | None, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    form = kind.form if kind is not None else "any"
    if kind is None or form in ("any", "atomic", "scalar") or not value:
        yield path, value
    elif form == "keyed":
        for item in value:
            here = (*path, key_step(kind, item))
            yield here, ITEM
            yield from _walk(kind.item, item, here)
    elif form == "set":
        yield from (((*path, f"v:{orjson.dumps(item).decode()}"), item) for item in value)
    else:
        for name, child in value.items():
            inner = kind.item if form == "map" else kind.fields.get(name)
            if (*path, f"f:{name}")[:2] not in UNOWNED:
                yield from _walk(inner, child, (*path, f"f:{name}"))


def key_step(kind: FieldType, item: Body) -> str:
    """Give the step that names an item of a keyed list."""
    keys = {key: item.get(key, "TCP" if key == "protocol" else "") for key in sorted(kind.keys)}
    return f"k:{orjson.dumps(keys).decode()}"


def read(body: Body | None) -> list[Manager]:
    """Read the entries of an object."""
    entries = body["metadata"].get("managedFields", []) if body else []
    return [
        Manager(
            entry.get("manager", ""),
            entry.get("operation", ""),
            entry.get("subresource", ""),
            entry.get("apiVersion", ""),
            entry.get("time", ""),
            set(_paths(entry.get("fieldsV1", {}), ())),
        )
        for entry in entries
    ]


def write(body: Body, managers: Iterable[Manager]) -> None:
    """Write the entries into an object, in place; empty ones are dropped."""
    entries: list[Body] = []
    for manager in managers:
        if not manager.paths:
            continue
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": manager.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(manager.paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    if entries:
        body["metadata"]["managedFields"] = entries
    else:
        body["metadata"].pop("managedFields", None)


def note_update(kind: FieldType, new: Body, old: Body | None, author: Manager) -> None:
    """Make `author` the only owner of every field in which two bodies differ, in place."""
    before = flatten(kind, old) if old else {}
    after = flatten(kind, new)
    changed = {path for path, value in after.items() if before.get(path) != value}
    removed = before.keys() - after.keys()
    if not changed and not removed:
        _keep(new, old)
        return
    managers = read(old)
    own = next((item for item in managers if item.identity == author.identity), None)
    if own is None:
        own = author
        managers.append(own)
    for manager in managers:
        manager.paths -= removed if manager is own else changed | removed
    own.paths |= changed
    own.time, own.api_version = author.time, author.api_version
    write(new, managers)


def _keep(new: Body, old: Body | None) -> None:
    entries = old["metadata"].get("managedFields") if old else None
    if entries:
        new["metadata"]["managedFields"] = entries
    else:
        new["metadata"].pop("managedFields", None)


def _paths(tree: Body, path: Path) -> Iterator[Path]:
    for step, child in tree.items():
        if step == ".":
            yield path
        elif child:
            yield from _paths(child, (*path, step))
        else:
            yield (*path, step)


def _tree(paths: Iterable[Path]) -> Body:
    tree: Body = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree
