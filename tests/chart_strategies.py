"""Hypothesis strategies for values of the chart, read from its own values.schema.json.

Covers the keywords that schema uses; Kubernetes objects passed through unchecked are left out.
"""

import functools
import json
import math
import re
from typing import Any
from urllib.parse import urlsplit

from chart_tools import CHART, scenario
from hypothesis import strategies as st

# Passed to Kubernetes as they are: their schema is the API server's.
UNCHECKED = {"affinity", "topologySpreadConstraints", "extraVolumes", "global"}
# Rules between values, which a draw value by value would break most of the time.
TIED = {"leaseDuration", "renewDeadline", "retryPeriod", "fusion", "wave", "templatesDir"}
# Control characters are refused by YAML readers; surrogates are no text at all.
CHARACTERS = st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"])


@functools.cache
def schema() -> dict[str, Any]:
    """Read values.schema.json."""
    document: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return document


def drawn(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Give a strategy for one schema node."""
    if "$ref" in node:
        target = schema()["$defs"][node["$ref"].rpartition("/")[2]]
        return drawn({**target, **{key: node[key] for key in node if key != "$ref"}})
    if "enum" in node:
        return st.sampled_from(node["enum"])
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return st.one_of([BY_TYPE[name](node) for name in types])


def _text(node: dict[str, Any]) -> st.SearchStrategy[str]:
    shortest, longest = node.get("minLength", 0), node.get("maxLength", 60)
    if "pattern" not in node:
        return st.text(CHARACTERS, min_size=shortest, max_size=longest)
    pattern = re.compile(node["pattern"])
    texts = st.from_regex(pattern, fullmatch=True, alphabet=CHARACTERS)
    if "https?" in node["pattern"]:
        texts = texts.filter(_is_address)
    return texts.filter(lambda text: shortest <= len(text) <= longest)


def _is_address(text: str) -> bool:
    """Tell whether brackets hold an IPv6 address and a port is one, which no pattern can say."""
    try:
        return not text or (bool(urlsplit(text).hostname) and urlsplit(text).port != 0)
    except ValueError:
        return False


def _number(node: dict[str, Any]) -> st.SearchStrategy[float]:
    low, high = node.get("minimum", 0), node.get("maximum", 10**6)
    whole = st.integers(math.ceil(low), math.floor(high))
    return whole | st.floats(low, high, allow_subnormal=False)


def _integer(node: dict[str, Any]) -> st.SearchStrategy[int]:
    return st.integers(node.get("minimum", 0), node.get("maximum", 10**6))


def _array(node: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    different = json.dumps if node.get("uniqueItems") else None  # items may be objects
    fewest = node.get("minItems", 0)
    return st.lists(drawn(node["items"]), min_size=fewest, max_size=2, unique_by=different)


def _object(node: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in node:
        keys = node.get("propertyNames", {"pattern": "^[a-z]{1,8}$"})
        return st.dictionaries(
            drawn({"type": "string", **keys}), drawn(node["additionalProperties"]), max_size=2
        )
    parts = {key: drawn(part) for key, part in node["properties"].items() if key not in UNCHECKED}
    required = set(node.get("required", ()))
    objects = st.fixed_dictionaries(
        {key: part for key, part in parts.items() if key in required},
        optional={key: part for key, part in parts.items() if key not in required},
    )
    fewest, most = node.get("minProperties", 0), node.get("maxProperties", len(parts))
    return objects.filter(lambda value: fewest <= len(value) <= most)


BY_TYPE = {
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _node: st.booleans(),
    "null": lambda _node: st.none(),
    "array": _array,
    "object": _object,
}


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """Draw installable values: the default scenario with some groups and settings redrawn."""
    groups = schema()["properties"]
    chosen: dict[str, Any] = scenario("existing-secret")
    free = sorted(set(groups) - UNCHECKED - {"config", "secrets", "existingSecret"})
    for group in draw(st.lists(st.sampled_from(free), max_size=5, unique=True)):
        chosen[group] = draw(drawn(groups[group]))
    settings = groups["config"]["properties"]
    names = st.sampled_from(sorted(set(settings) - TIED))
    for name in draw(st.lists(names, max_size=6, unique=True)):
        redrawn = draw(drawn(settings[name]))
        if redrawn != "":  # a required setting stays set
            chosen["config"][name] = redrawn
    return chosen
