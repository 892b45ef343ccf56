"""PURE: bounds of what annotations and records may say: times, lengths, counts.

Whoever may write a Job or a ConfigMap may write anything into it; what is out of bounds is no
value of ours.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyvatti.models import Attempt, Notice, Record, Verdict

YEARS = range(2000, 2201)  # a sum with any setting stays a date
LONGEST = 2**14  # characters of a text
MOST = 64  # parts of a list, among them the events of an outbox
MOST_ATTEMPTS = 99  # of a job, so that the name of its run has its bound
WHOLE = 2**63  # of a number, without sign
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_time(text: str | None) -> datetime | None:
    """Read a timestamp (RFC 3339, UTC where it names no zone) as UTC; None where it is no time."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None
    if moment is None or moment.year not in YEARS:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def read_word(value: object) -> str:
    """Read a reason or phase, empty where there is none; what is no single word is "Unknown"."""
    if value is None or value == "":
        return ""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else "Unknown"


def check(value: Any) -> None:
    """Raise ValueError if anything inside a value is out of bounds, or a time names no zone."""
    for part in _leaves(value):
        if isinstance(part, datetime):
            if part.tzinfo is None or part.year not in YEARS:
                raise ValueError("a time without a zone, or one too far away")
        elif isinstance(part, str):
            if len(part) > LONGEST:
                raise ValueError("a text that is too long")
        elif isinstance(part, int) and abs(part) >= WHOLE:
            raise ValueError("a number that is too large")


def _leaves(value: Any) -> Iterator[Any]:
    parts: list[Any]
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, tuple):
        parts = list(value)
    elif is_dataclass(value):
        _check_numbers(value)
        parts = [getattr(value, field.name) for field in fields(value)]
    else:
        yield value
        return
    if len(parts) > MOST:
        raise ValueError("too many parts")
    for part in parts:
        yield from _leaves(part)


def _check_numbers(value: Any) -> None:
    if isinstance(value, Verdict | Notice):
        code = value.trace_exit
        if code is not None and not 0 <= code <= 127:
            raise ValueError("an exit code the backend cannot hold")
    if isinstance(value, Notice) and (value.attempts < 0 or value.sequence < 1):
        raise ValueError("a number below its least")
    if isinstance(value, Record):
        check_outbox(value.outbox)
    if isinstance(value, Attempt):
        _check_attempt(value)


def _check_attempt(attempt: Attempt) -> None:
    """Raise ValueError unless it was evicted before it is another one than the first."""
    is_first = attempt.number == 1
    if not 1 <= attempt.number <= MOST_ATTEMPTS or is_first is not (attempt.evicted_at is None):
        raise ValueError("a number of attempts that is none")
    if is_first and attempt.resumed_at is not None:
        raise ValueError("a first attempt that was resumed")
    if not all(_WORD.fullmatch(uid) for uid in attempt.former):
        raise ValueError("a pod's uid that is none")


def check_outbox(outbox: tuple[Notice, ...]) -> None:
    """Raise ValueError unless the events count from 1, each one more."""
    if [notice.sequence for notice in outbox] != list(range(1, len(outbox) + 1)):
        raise ValueError("events that do not count from 1")


def with_clean_texts(value: Any, clean: Callable[[str], str]) -> Any:
    """Give a value whose every text went through `clean`; enumerations and times stay."""
    if type(value) is str:
        return clean(value)
    if isinstance(value, tuple):
        return tuple(with_clean_texts(part, clean) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{key: with_clean_texts(part, clean) for key, part in parts.items()})
    return value
