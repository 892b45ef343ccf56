"""Keeps an error nobody expected to the one object it met: counted, said once, survived.

Which work is guarded, and when it is tried again, is decided where the work is.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

OURS = Path(__file__).parent
MOST_SAID = 1000  # pairs of object and error remembered, so that each is said once
FRAMES = 3  # innermost places told of


class Guard:
    """Stands around the work of one part of the service, such as `gauges` or `actor`."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._said: set[tuple[str, str]] = set()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        """Survive what the work on the object of this name raises; what is well is forgotten."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - that is its purpose
            self.note(name, error)
        else:
            self.forget(name)

    def note(self, name: str, error: BaseException) -> None:
        """Count an error about an object, and say each kind once for each object."""
        kind = kind_of(error)
        metrics.unexpected.labels(self._part, kind).inc()
        if (name, kind) in self._said or len(self._said) >= MOST_SAID:
            return
        self._said.add((name, kind))
        log.error("unexpected error", part=self._part, name=name, kind=kind, where=where(error))

    def forget(self, name: str) -> None:
        """Let the next error about an object be said again: it had gone well since."""
        if self._said:
            self._said = {said for said in self._said if said[0] != name}


def kind_of(error: BaseException) -> str:
    """Give the type of an error; of a group, that of its first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def where(error: BaseException) -> str:
    """Name the places in our code an error came from, innermost first.

    Its words are left out: they may quote what a neighbour or a submitter wrote.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    places = [
        f"{Path(frame.filename).relative_to(OURS)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(OURS)
    ]
    return " < ".join(reversed(places[-FRAMES:]))
