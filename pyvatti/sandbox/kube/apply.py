"""Server-side apply: merges a manager's intent into an object, with ownership and conflicts.

Follows sigs.k8s.io/structured-merge-diff. Pure.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from pyvatti.sandbox.kube import managers
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.managers import ITEM, Manager, Path
from pyvatti.sandbox.kube.schema import FieldType

Body = dict[str, Any]


def apply(kind: FieldType, live: Body, intent: Body, author: Manager, *, force: bool) -> Body:
    """Give the object after an apply; `live` is a copy and is changed.

    Raises ApiError 409 with FieldManagerConflict causes, unless `force`.
    """
    wanted = managers.flatten(kind, intent)
    entries = managers.read(live)
    others = [entry for entry in entries if entry.identity != author.identity]
    own = next((entry for entry in entries if entry.identity == author.identity), None)
    conflicts = _conflicts(others, managers.flatten(kind, live), wanted)
    if conflicts and not force:
        raise _refusal(conflicts)
    new: Body = _merge(kind, live, intent)
    kept = set().union(*(entry.paths for entry in others))
    given_up = (own.paths if own else set()) - wanted.keys()
    # Items of lists before their fields: without its key an item would not be found.
    for path in sorted(given_up, key=len):
        if not any(other[: len(path)] == path for other in kept):
            _remove(new, path)
    for entry, path in conflicts:
        entry.paths.discard(path)
    before = set(own.paths) if own else set()
    if own is None:
        own = author
        entries.append(own)
    own.paths = set(wanted)
    if own.paths != before or conflicts:
        own.time = author.time
    managers.write(new, entries)
    return new


def _conflicts(
    others: list[Manager], live: dict[Path, Any], wanted: dict[Path, Any]
) -> list[tuple[Manager, Path]]:
    return [
        (entry, path)
        for path, value in wanted.items()
        if value is not ITEM and live.get(path) != value
        for entry in others
        if path in entry.paths
    ]


def _refusal(conflicts: list[tuple[Manager, Path]]) -> ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{entry.name}"'
            + (f' with subresource "{entry.subresource}"' if entry.subresource else "")
            + f" using {entry.api_version}",
            "field": _dotted(path),
        }
        for entry, path in conflicts
    ]
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    return ApiError(
        409,
        f"Apply failed with {len(causes)} conflict{plural}: {listed}",
        details={"causes": causes},
    )


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]"
    return text


def _merge(kind: FieldType | None, live: Any, intent: Any) -> Any:
    form = kind.form if kind is not None else "any"
    if kind is None or form in ("any", "atomic", "scalar"):
        return intent
    if form == "set":
        return [*(live or []), *(item for item in intent if item not in (live or []))]
    if form == "keyed":
        return _merge_items(kind, live or [], intent)
    result: Body = live if isinstance(live, dict) else {}
    for name, value in intent.items():
        child = kind.item if form == "map" else kind.fields.get(name)
        result[name] = _merge(child, result.get(name), value)
    return result


def _merge_items(kind: FieldType, live: list[Body], intent: Iterable[Body]) -> list[Body]:
    result = {managers.key_step(kind, item): item for item in live}
    for item in intent:
        step = managers.key_step(kind, item)
        result[step] = _merge(kind.item, result.get(step), item)
    return list(result.values())


def _remove(value: Any, path: Path) -> None:
    """Take a field out of a body, with the parents that it leaves empty."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        _remove_field(value, step[2:], rest)
    elif isinstance(value, list):
        _remove_item(value, step, rest)


def _remove_field(owner: Any, name: str, rest: Path) -> None:
    if not isinstance(owner, dict) or name not in owner:
        return
    if rest:
        _remove(owner[name], rest)
    if not rest or owner[name] in ({}, []):
        del owner[name]


def _remove_item(owner: list[Any], step: str, rest: Path) -> None:
    wanted = orjson.loads(step[2:])
    for item in list(owner):
        same = item == wanted if step.startswith("v:") else _has_keys(item, wanted)
        if same and rest:
            _remove(item, rest)
        elif same:
            owner.remove(item)


def _has_keys(item: Body, keys: Body) -> bool:
    return all(item.get(key, "TCP" if key == "protocol" else "") == keys[key] for key in keys)
