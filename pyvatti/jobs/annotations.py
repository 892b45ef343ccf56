"""PURE: the values a Job's annotations hold, as JSON: times, outbox, verdict, witness.

The record holds the same values in the same form.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pyvatti.models import Notice, Pod, State, Verdict

_T = TypeVar("_T")
TRANSITIONS: TypeAdapter[dict[State, datetime]] = TypeAdapter(dict[State, datetime])
OUTBOX: TypeAdapter[tuple[Notice, ...]] = TypeAdapter(tuple[Notice, ...])
VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)
WITNESS: TypeAdapter[Pod] = TypeAdapter(Pod)


def read_annotation(
    annotations: Mapping[str, str], key: str, adapter: TypeAdapter[_T]
) -> _T | None:
    """Read one annotation; None where it is absent or an operator broke it."""
    try:
        return adapter.validate_json(annotations[key])
    except (KeyError, ValidationError):
        return None


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
