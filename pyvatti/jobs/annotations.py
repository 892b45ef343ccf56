"""PURE: the values a Job's annotations hold, as JSON: times, outbox, verdict, witness, attempt.

The record holds the same values in the same form.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import TypeAdapter

from pyvatti.jobs import bounds
from pyvatti.models import Attempt, Notice, Pod, State, Verdict

_T = TypeVar("_T")
TRANSITIONS: TypeAdapter[dict[State, datetime]] = TypeAdapter(dict[State, datetime])
OUTBOX: TypeAdapter[tuple[Notice, ...]] = TypeAdapter(tuple[Notice, ...])
VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)
WITNESS: TypeAdapter[Pod] = TypeAdapter(Pod)
ATTEMPT: TypeAdapter[Attempt] = TypeAdapter(Attempt)


class Unreadable(ValueError):
    """An annotation or a record says what no version of ours writes, or a newer one."""


def parse(text: str, adapter: TypeAdapter[_T], clean: Callable[[str], str] = str) -> _T:
    """Read what a text of ours holds, without what `clean` takes out. Raises Unreadable.

    Strict: known names, times with a zone between the years 2000 and 2200, bounded lengths and
    counts, events numbered from 1.
    """
    try:
        value = adapter.validate_json(text)
        bounds.check(value)
        if isinstance(value, tuple):
            bounds.check_outbox(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from None
    if clean(text) == text:
        return value
    cleaned: _T = bounds.with_clean_texts(value, clean)
    return cleaned


def read_annotation(
    annotations: Mapping[str, str],
    key: str,
    adapter: TypeAdapter[_T],
    clean: Callable[[str], str] = str,
) -> _T | None:
    """Read one annotation; None where it is absent. Raises Unreadable where somebody broke it."""
    text = annotations.get(key)
    return None if text is None else parse(text, adapter, clean)


def dump_outbox(outbox: tuple[Notice, ...]) -> str:
    """Write an outbox as JSON, as the Job's annotation and the record hold it."""
    return OUTBOX.dump_json(outbox, exclude_defaults=True).decode()


def dump_verdict(verdict: Verdict) -> str:
    """Write a verdict as JSON, as the Job's annotation and the record hold it."""
    return VERDICT.dump_json(verdict, exclude_defaults=True).decode()


def dump_transitions(transitions: Mapping[State, datetime]) -> str:
    """Write the times of all states as JSON, as the Job's annotation and the record hold it."""
    return TRANSITIONS.dump_json(dict(transitions)).decode()


def dump_witness(witness: Pod) -> str:
    """Write how a pod ended as JSON, as the Job's annotation holds it."""
    return WITNESS.dump_json(witness, exclude_defaults=True).decode()


def dump_attempt(attempt: Attempt) -> str:
    """Write which attempt this is as JSON, as the Job's annotation holds it."""
    return ATTEMPT.dump_json(attempt, exclude_defaults=True).decode()
