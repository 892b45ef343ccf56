"""PURE: how long results and records are kept. Results outlive their record, never the reverse.

Nothing here asks whether a Job lives: its caller has.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from pyvatti.models import Record, State
from pyvatti.settings import Settings


class Fate(StrEnum):
    """What becomes of a results bucket whose Job is gone."""

    KEEP = "keep"
    REMOVE = "remove"
    REMOVE_IF_EMPTY = "remove if empty"


def longest_life(settings: Settings) -> timedelta:
    """Give the longest time from the making of a job's buckets to its end, Kueue's queue apart."""
    graces = settings.hang_grace + settings.failed_grace + 2 * settings.complete_grace
    return settings.timeout_seconds + settings.deployed_timeout_seconds + graces


def results_fate(
    made_at: datetime | None, record: Record | None, now: datetime, settings: Settings
) -> Fate:
    """Say what becomes of a results bucket. `record` is this very job's and was read, or None.

    Without a record it may hold results of a success, written as late as a job can live; with
    Kueue nobody knows how late that is, so only what its lifecycle has emptied goes.
    """
    if made_at is None:
        return Fate.KEEP
    if record is not None and record.state is not State.SUCCEEDED:
        return Fate.REMOVE
    if record is not None:
        since = max(made_at, record.finished_at)
        return Fate.REMOVE if now >= since + settings.results_retention else Fate.KEEP
    if now < made_at + settings.results_retention + longest_life(settings):
        return Fate.KEEP
    return Fate.REMOVE_IF_EMPTY if settings.kueue_queue else Fate.REMOVE


def is_expired(made_at: datetime | None, now: datetime, settings: Settings) -> bool:
    """Tell whether a record has been kept for long enough; one of unknown age is kept."""
    return made_at is not None and now >= made_at + settings.record_retention_seconds
