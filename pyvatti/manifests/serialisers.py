"""PURE: one serialiser for each format the templates write. They are the templates' only filters.

No files and no settings. Whatever the value, the format's own parser reads it back unchanged.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pyvatti.errors import ConfigurationError


class Unwritable(ValueError):
    """A format cannot take a value; the message never holds the value."""


_PLAIN_JSON = json.JSONEncoder(ensure_ascii=False)
_YAML_ODD = re.compile(r"[^ -~]")
_GROOVY_ODD = re.compile(r"[^ -~]|[\\']")


def to_json(value: Any) -> str:
    """Write JSON in ASCII; `$` is escaped because Nextflow expands `${..}` in parameter files."""
    return json.dumps(value).replace("$", "\\u0024")


def to_yaml(value: Any) -> str:
    """Write YAML on one line: JSON whose every odd character is an escape all YAML readers know.

    Keys of mappings stay below 1024 characters as written, YAML's limit for a key on one line.
    """
    return _YAML_ODD.sub(_yaml_escape, _PLAIN_JSON.encode(value))


def _yaml_escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    # JSON's pairs of surrogates are two characters to YAML
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def to_groovy(value: Any) -> str:
    """Write a Groovy literal: strings in single quotes, where nothing is evaluated."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        pairs = (f"{to_groovy(key)}: {to_groovy(item)}" for key, item in value.items())
        return f"[{', '.join(pairs) or ':'}]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_groovy(item) for item in value)}]"
    if not isinstance(value, str):
        raise TypeError(f"no Groovy literal for {type(value).__name__}")
    return "'" + _GROOVY_ODD.sub(lambda found: _groovy_character(found[0]), value) + "'"


def _groovy_character(char: str) -> str:
    known = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return known.get(char) or (char if " " <= char <= "~" else _utf16(char))


def _utf16(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def to_unit(value: str) -> str:
    """Pass an amount in Nextflow's own notation, such as 64.GB or 24.h; Unwritable for all else."""
    if not re.fullmatch(r"[0-9]+\.(?:MB|GB|m|h|d)", value, re.ASCII):
        raise Unwritable("must be an amount such as 64.GB or 24.h")
    return value


def to_properties(value: str) -> str:
    """Write the value of a Java property.

    Raises Unwritable for `${` and `#{`: Spring expands them and knows no escape that holds in all
    versions (spring-projects/spring-framework issues 9628 and 34315).
    """
    if "${" in value or "#{" in value:
        raise Unwritable("a property's value must not hold ${ or #{: Spring would expand it")
    blank = len(value) - len(value.lstrip(" ")), len(value.rstrip(" "))
    return "".join(
        "\\u0020" if char == " " and not blank[0] <= at < blank[1] else _property_character(char)
        for at, char in enumerate(value)
    )


def _property_character(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return char if " " <= char <= "~" else _utf16(char)


def to_base64(value: str) -> str:
    """Write text as the base64 of its UTF-8, as in the data of a Secret."""
    return base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()


def refuse(message: str) -> str:
    """Let a template say what it cannot render."""
    raise ConfigurationError(message)


FILTERS: dict[str, Callable[..., str]] = {
    "json": to_json,
    "yaml": to_yaml,
    "groovy": to_groovy,
    "unit": to_unit,
    "properties": to_properties,
    "base64": to_base64,
    "refuse": refuse,
}
