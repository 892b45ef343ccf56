"""From the bytes of a request body to a LaunchRequest, or to the list of what is wrong with it.

No rules of its own: they stand on the fields of `request`. An error never holds a value.
"""

import json
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pyvatti.errors import InvalidRequest
from pyvatti.launch.request import (
    CHROMOSOME,
    FILE_NAME,
    FOLDER,
    INT64,
    JOB_ID,
    PGP_IDS,
    PGS_IDS,
    SAMPLESET,
    SECRET_VERSION,
    TRAITS,
    UUID,
    LaunchRequest,
)

MAX_PROBLEMS = 50

PATTERN_RULES = {
    JOB_ID: "must be INTP followed by 1 to 11 digits",
    SAMPLESET: "must begin with a letter or digit and hold only letters, digits and -",
    CHROMOSOME: "must begin with a letter or digit and hold at most 32 letters, digits, _ . -",
    FILE_NAME: "must begin with a letter or digit and hold at most 255 letters, digits, . _ + -",
    FOLDER: "must hold 1 to 1024 letters, digits, blanks and . _ @ + / -",
    PGS_IDS: "must be PGS and six digits; several are separated by commas",
    PGP_IDS: "must be PGP and six digits; several are separated by commas",
    TRAITS: "must be an ontology term such as EFO_0004611; several are separated by commas",
    UUID: "must be a UUID",
    SECRET_VERSION: "must hold 1 to 512 letters, digits and / _ . -",
}
TYPE_RULES = {
    "missing": "is required",
    "string_type": "must be a string",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} element",
    "too_long": "must have at most {max_length} elements",
    "literal_error": "must be {expected}",
}


def parse_launch(body: bytes | str) -> LaunchRequest:
    """Read a request body. Raises InvalidRequest naming each field and its rule."""
    try:
        return LaunchRequest.model_validate(_parse_json(body))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        problems = [problem for detail in details for problem in _problems_of(detail)]
        raise InvalidRequest(problems[:MAX_PROBLEMS]) from None  # the cause holds the input


def _problems_of(detail: ErrorDetails) -> list[tuple[str, str]]:
    context = detail.get("ctx", {})
    if detail["type"] == "across":
        return list(context["problems"])
    field = ".".join(str(part) for part in detail["loc"]) or "body"
    if detail["type"] == "value_error":
        return [(field, str(context["error"]))]
    if detail["type"] == "string_pattern_mismatch":
        return [(field, PATTERN_RULES[context["pattern"]])]
    rule = TYPE_RULES.get(detail["type"])
    return [(field, rule.format(**context) if rule else "is not valid")]


def _parse_json(body: bytes | str) -> Any:
    try:
        text = body.decode() if isinstance(body, bytes) else body
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=_whole, parse_constant=_no_number
        )
    except UnicodeDecodeError:
        raise _unreadable("must be UTF-8") from None
    except json.JSONDecodeError as error:
        rule = f"must be JSON: wrong at line {error.lineno}, column {error.colno}"
        raise _unreadable(rule) from None
    except RecursionError:
        raise _unreadable("must not be nested that deeply") from None


def _unreadable(rule: str) -> InvalidRequest:
    return InvalidRequest([("body", rule)])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _unreadable("must not hold a key twice in one object")
    return found


def _whole(digits: str) -> int | float:
    """Read an integer; one beyond 64 bits becomes a float, which no field takes."""
    return int(digits) if len(digits) <= len(str(INT64)) + 1 else float(digits)


def _no_number(_: str) -> NoReturn:
    raise _unreadable("must not hold NaN or Infinity")
