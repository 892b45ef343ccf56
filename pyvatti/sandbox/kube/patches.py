"""Merge patch (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic merge patch.

Pure: bodies in, bodies out. Server-side apply is in `apply`.
"""

import copy
from typing import Any

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.schema import FieldType

Body = dict[str, Any]


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch; gives the new value, the target may be changed."""
    if not isinstance(patch, dict):
        return patch
    result: Body = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def json_patch(target: Body, operations: Any) -> Body:
    """Apply a JSON patch to a body in place.

    Raises ApiError 400 for what is no patch, 422 for one that does not fit the object.
    """
    if not isinstance(operations, list):
        raise ApiError(400, "error decoding patch: json: cannot unmarshal object into JSON patch")
    whole: Body = {"": target}
    for operation in operations:
        try:
            _operate(whole, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as exc:
            raise ApiError(
                422,
                "the server rejected our request due to an error in our request",
                reason="Invalid",
            ) from exc
    result: Body = whole[""]
    return result


def _operate(whole: Body, operation: Body) -> None:
    name, path = operation["op"], _steps(operation["path"])
    if name == "test":
        if _read(whole, path) != operation["value"]:
            raise ValueError(name)
    elif name == "remove":
        _remove(whole, path)
    elif name == "replace":
        _read(whole, path)
        _put(whole, path, operation["value"], insert=False)
    elif name == "add":
        _put(whole, path, operation["value"], insert=True)
    elif name == "copy":
        value = copy.deepcopy(_read(whole, _steps(operation["from"])))
        _put(whole, path, value, insert=True)
    elif name == "move":
        source = _steps(operation["from"])
        value = _read(whole, source)
        _remove(whole, source)
        _put(whole, path, value, insert=True)
    else:
        raise ValueError(name)


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _read(value: Any, path: list[str]) -> Any:
    for step in path:
        value = value[_index(step, value)] if isinstance(value, list) else value[step]
    return value


def _index(step: str, owner: list[Any]) -> int:
    index = int(step)
    if not 0 <= index < len(owner):
        raise IndexError(step)
    return index


def _put(whole: Body, path: list[str], value: Any, *, insert: bool) -> None:
    owner, last = _read(whole, path[:-1]), path[-1]
    if not isinstance(owner, list):
        if not isinstance(owner, dict):
            raise TypeError(last)
        owner[last] = value
    elif not insert:
        owner[_index(last, owner)] = value
    elif last == "-":
        owner.append(value)
    else:
        owner.insert(_index(last, [*owner, None]), value)


def _remove(whole: Body, path: list[str]) -> None:
    owner, last = _read(whole, path[:-1]), path[-1]
    if isinstance(owner, list):
        del owner[_index(last, owner)]
    else:
        del owner[last]


def strategic(kind: FieldType, target: Any, patch: Body) -> Body:
    """Apply a strategic merge patch by the list keys of the schema; gives the new value."""
    result: Body = target if isinstance(target, dict) else {}
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif not name.startswith("$"):
            child = kind.fields.get(name) if kind.form == "object" else kind.item
            result[name] = _strategic_value(child, result.get(name), value)
    for name, value in patch.items():
        if name.startswith("$"):
            _directive(result, kind, name, value)
    return result


def _strategic_value(kind: FieldType | None, target: Any, value: Any) -> Any:
    if isinstance(value, dict):
        if kind is not None and kind.form in ("object", "map"):
            return strategic(kind, target, value)
        return merge(target, value)
    if isinstance(value, list) and kind is not None:
        if kind.form == "keyed":
            return _strategic_list(kind, target or [], value)
        if kind.form == "set":
            return [*(target or []), *(item for item in value if item not in (target or []))]
    return value


def _strategic_list(kind: FieldType, target: list[Body], patch: list[Body]) -> list[Body]:
    item_kind, key = kind.item, kind.keys[0]
    if item_kind is None or any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    result = list(target)
    for item in patch:
        if key not in item:
            raise ApiError(400, f"map: {item} does not contain declared merge key: {key}")
        found = [index for index, old in enumerate(result) if old.get(key) == item[key]]
        if item.get("$patch") == "delete":
            result = [old for old in result if old.get(key) != item[key]]
        elif found:
            result[found[0]] = strategic(item_kind, result[found[0]], item)
        else:
            result.append(strategic(item_kind, {}, item))
    return result


def _directive(result: Body, kind: FieldType, name: str, value: Any) -> None:
    word, _, field = name.partition("/")
    if word == "$deleteFromPrimitiveList":
        result[field] = [item for item in result.get(field, []) if item not in value]
    elif word == "$setElementOrder" and isinstance(result.get(field), list):
        _reorder(result, kind, field, value)
    elif word == "$retainKeys":
        for key in [key for key in result if key not in value]:
            del result[key]


def _reorder(result: Body, kind: FieldType, field: str, order: list[Any]) -> None:
    child = kind.fields.get(field)
    key = child.keys[0] if child is not None and child.keys else ""
    wanted = [item.get(key) if isinstance(item, dict) else item for item in order]

    def position(item: Any) -> int:
        name = item.get(key) if isinstance(item, dict) else item
        return wanted.index(name) if name in wanted else len(wanted)

    result[field] = sorted(result[field], key=position)
