"""Field names and types of the served kinds, from Kubernetes 1.36's OpenAPI schema.

The table is `fields.txt`: one type a paragraph, `field:type` each; `{T}` is a map, `[T]` an atomic
list, `[T|key]` a list merged by key, `[T|set]` a set. No rules about values beyond their JSON type.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.quantities import is_quantity
from pyvatti.sandbox.kube.resources import EVENTS, Resource

MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
GO_TYPES = {"str": "string", "bool": "bool", "int": "int64", "float": "float64", "bytes": "[]uint8"}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bytes": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "quantity": (str, int, float),
    "intstr": (str, int),
    "time": (str,),
    "micro": (str,),
}


@dataclass(slots=True)
class FieldType:
    """A type. `form` is scalar, any, object, map, atomic (list), keyed (list) or set."""

    form: str
    name: str
    fields: "dict[str, FieldType]" = field(default_factory=dict)
    item: "FieldType | None" = None
    keys: tuple[str, ...] = ()


@cache
def types() -> dict[str, FieldType]:
    """Read the table: name of the type -> type."""
    text = Path(__file__).with_name("fields.txt").read_text(encoding="utf-8")
    paragraphs = [line.split() for line in text.replace("\n  ", " ").splitlines()]
    known = {words[0]: FieldType("object", words[0]) for words in paragraphs}
    for name in (*PYTHON_TYPES, "any"):
        known[name] = FieldType("any" if name == "any" else "scalar", name)
    for words in paragraphs:
        for word in words[1:]:
            label, _, notation = word.partition(":")
            known[words[0]].fields[label] = _parse(notation, known)
    return known


def _parse(notation: str, known: dict[str, FieldType]) -> FieldType:
    if notation.startswith("{"):
        return FieldType("map", notation, item=known[notation[1:-1]])
    if not notation.startswith("["):
        return known[notation]
    inner, _, keys = notation[1:-1].partition("|")
    if keys == "set":
        return FieldType("set", notation, item=known[inner])
    form = "keyed" if keys else "atomic"
    return FieldType(form, notation, item=known[inner], keys=tuple(keys.split(",")))


def type_of(resource: Resource) -> FieldType:
    """Give the type of a resource's objects."""
    return types()["CoreEvent" if resource is EVENTS else resource.kind]


def decode(resource: Resource, body: Any) -> list[str]:
    """Check JSON types, drop unknown fields and nulls in place; gives the unknown fields' paths.

    Raises ApiError 400 as the API server's decoder does.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "couldn't get version/kind; json parse error: expected an object")
    unknown: list[str] = []
    try:
        _walk(type_of(resource), body, "", unknown)
    except _WrongTypeError as exc:
        raise ApiError(
            400,
            f'{resource.kind} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: {exc}",
        ) from exc
    return unknown


class _WrongTypeError(Exception):
    """A value does not fit its field."""


def _walk(kind: FieldType, value: Any, path: str, unknown: list[str]) -> None:
    if kind.form == "object":
        _walk_object(kind, _need(value, dict, kind, path), path, unknown)
    elif kind.form == "map" and kind.item is not None:
        for key, item in _need(value, dict, kind, path).items():
            if item is None and kind.item.name == "str":
                value[key] = ""  # Go decodes null into the zero value
            else:
                _walk(kind.item, item, f"{path}.{key}", unknown)
    elif kind.form == "scalar":
        _check_scalar(kind.name, value, path)
    elif kind.item is not None:
        for index, item in enumerate(_need(value, list, kind, path)):
            _walk(kind.item, item, f"{path}[{index}]", unknown)


def _walk_object(kind: FieldType, value: dict[str, Any], path: str, unknown: list[str]) -> None:
    prefix = f"{path}." if path else ""
    for name in list(value):
        known = kind.fields.get(name)
        if known is None:
            unknown.append(prefix + name)
            del value[name]
        elif value[name] is None:
            del value[name]
        else:
            _walk(known, value[name], prefix + name, unknown)


def _need(value: Any, wanted: type, kind: FieldType, path: str) -> Any:
    if not isinstance(value, wanted):
        raise _WrongTypeError(_mismatch(value, path, kind.name))
    return value


def _check_scalar(name: str, value: Any, path: str) -> None:
    text = value if isinstance(value, str) else ""
    if not isinstance(value, PYTHON_TYPES[name]) or (name != "bool" and isinstance(value, bool)):
        raise _WrongTypeError(_mismatch(value, path, GO_TYPES.get(name, "string")))
    if name == "quantity" and not is_quantity(str(value)):
        raise _WrongTypeError(
            "quantities must match the regular expression"
            " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    if name == "bytes" and (len(text) % 4 or not BASE64.fullmatch(text)):
        raise _WrongTypeError("illegal base64 data at input byte 0")
    if name == "micro" and not MICRO_TIME.fullmatch(text):
        raise _WrongTypeError(_bad_time(text, "2006-01-02T15:04:05.000000Z07:00"))
    if name == "time" and not TIME.fullmatch(text):
        raise _WrongTypeError(_bad_time(text, "2006-01-02T15:04:05Z07:00"))


def _mismatch(value: Any, path: str, wanted: str) -> str:
    words: dict[type, str] = {str: "string", bool: "bool", dict: "object", list: "array"}
    return (
        f"json: cannot unmarshal {words.get(type(value), 'number')} into Go struct field"
        f" {path} of type {wanted}"
    )


def _bad_time(value: str, layout: str) -> str:
    return f'parsing time "{value}" as "{layout}": cannot parse "{value}"'
