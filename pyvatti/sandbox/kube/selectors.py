"""Label and field selectors.

No HTTP; a selector is a text that becomes a predicate over objects.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import EVENTS, JOBS, NAMESPACES, PODS, SECRETS, Resource
from pyvatti.sandbox.kube.syntax import check_label_value, check_qualified

Body = dict[str, Any]
Match = Callable[[Body], bool]
LabelTest = Callable[[Mapping[str, str]], bool]

SET_BASED = re.compile(r"(?P<key>[^\s!=(),]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
EQUALITY = re.compile(r"(?P<key>[^\s!=(),]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s!=(),]*)")
EXISTS = re.compile(r"(?P<not>!?)\s*(?P<key>[^\s!=(),]+)")
NUMERIC = re.compile(r"(?P<key>[^\s!=(),<>]+)\s*(?P<operator>[<>])\s*(?P<value>-?\d+)")
SEPARATOR = re.compile(r"\s*(,|$)\s*")

METADATA_FIELDS = ("metadata.name", "metadata.namespace")
FIELDS: Mapping[Resource, tuple[str, ...]] = {
    JOBS: ("status.successful",),
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    SECRETS: ("type",),
    NAMESPACES: ("status.phase",),
    EVENTS: (
        *(
            f"{owner}.{name}"
            for owner in ("involvedObject", "regarding")
            for name in (
                "kind",
                "namespace",
                "name",
                "uid",
                "apiVersion",
                "resourceVersion",
                "fieldPath",
            )
        ),
        "reason",
        "reportingComponent",
        "reportingController",
        "source",
        "type",
    ),
}


def compile_selectors(resource: Resource, labels: str, fields: str) -> Match | None:
    """Make one predicate of a label and a field selector; None if everything matches.

    Raises ApiError 400 for a selector that does not parse or an unknown field.
    """
    tests = [_on_labels(test) for test in parse_labels(labels)]
    tests += _parse_fields(resource, fields)
    if not tests:
        return None
    return lambda body: all(test(body) for test in tests)


def parse_labels(text: str) -> list[LabelTest]:
    """Parse a label selector into tests over a map of labels. Raises ApiError 400."""
    tests: list[LabelTest] = []
    rest = text.strip()
    while rest:
        for pattern, make in (
            (SET_BASED, _set_test),
            (NUMERIC, _numeric_test),
            (EQUALITY, _equality_test),
            (EXISTS, _exists_test),
        ):
            match = pattern.match(rest)
            end = match and SEPARATOR.match(rest, match.end())
            if match and end:
                tests.append(make(match))
                rest = rest[end.end() :]
                break
        else:
            raise _unparsable(text)
    return tests


def _unparsable(text: str) -> ApiError:
    return ApiError(
        400,
        f"unable to parse requirement: found '{text}', expected: in, notin, =, ==, !=, gt, lt",
    )


def _key(match: re.Match[str]) -> str:
    key = match["key"]
    if check_qualified("", key):
        raise ApiError(400, f'unable to parse requirement: invalid label key "{key}"')
    return key


def _value(text: str) -> str:
    if check_label_value("", text):
        raise ApiError(400, f'unable to parse requirement: invalid label value: "{text}"')
    return text


def _set_test(match: re.Match[str]) -> LabelTest:
    key = _key(match)
    values = frozenset(_value(part.strip()) for part in match["values"].split(","))
    if match["operator"] == "in":
        return lambda labels: labels.get(key) in values
    return lambda labels: labels.get(key) not in values


def _equality_test(match: re.Match[str]) -> LabelTest:
    key, value = _key(match), _value(match["value"])
    if match["operator"] == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _numeric_test(match: re.Match[str]) -> LabelTest:
    key, limit, above = _key(match), int(match["value"]), match["operator"] == ">"

    def test(labels: Mapping[str, str]) -> bool:
        try:
            number = int(labels.get(key, ""))
        except ValueError:
            return False
        return number > limit if above else number < limit

    return test


def _exists_test(match: re.Match[str]) -> LabelTest:
    key = _key(match)
    if match["not"]:
        return lambda labels: key not in labels
    return lambda labels: key in labels


def _on_labels(test: LabelTest) -> Match:
    return lambda body: test(body["metadata"].get("labels") or {})


def _parse_fields(resource: Resource, text: str) -> list[Match]:
    known = (*METADATA_FIELDS, *FIELDS.get(resource, ()))
    tests: list[Match] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        negated = "!=" in part
        name, separator, value = part.partition("!=" if negated else "=")
        if not separator:
            raise ApiError(400, f"invalid selector: '{text}'; can't understand '{part}'")
        if name not in known:
            raise ApiError(400, f"field label not supported: {name}")
        tests.append(_field_test(name, value.removeprefix("="), negated=negated))
    return tests


def _field_test(name: str, value: str, *, negated: bool) -> Match:
    def test(body: Body) -> bool:
        return (_field(body, name) == value) is not negated

    return test


def _field(body: Body, name: str) -> str:
    path = name.replace("regarding.", "involvedObject.", 1)
    path = {
        "status.successful": "status.succeeded",
        "reportingController": "reportingComponent",
        "source": "source.component",
    }.get(path, path)
    value: Any = body
    for step in path.split("."):
        value = value.get(step, "") if isinstance(value, dict) else ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" or name != "status.successful" else "0"
