"""Buckets as the project's own list gives them, read for two uses.

PURE. `Seen` is strict, for what is decided about one bucket; `BucketInfo` takes what there is, so
that one odd bucket does not spoil the list.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInfo:
    """A bucket of the project's own list, as far as the server says what it is.

    `created_at` is in UTC, None if not said; `location` in upper case, empty if not said.
    """

    name: str
    labels: dict[str, str]
    created_at: datetime | None
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One bucket of the project's own list.

    `soft_delete_seconds` is None where the server says nothing; `changed_at` is the time (UTC) of
    the last change of its properties, None if there was none since it was made. `lifecycle` are
    its rules as the JSON API spells them.
    """

    name: str
    metageneration: int
    labels: dict[str, str]
    location: str
    soft_delete_seconds: int | None
    is_uniform: bool
    public_access: str
    is_versioned: bool
    lifecycle: tuple[dict[str, Any], ...]
    is_retained: bool
    is_held_by_default: bool
    changed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorable:
    """A deleted bucket that can be restored, objects included, until `until` (UTC; None: unsaid).

    `labels` are empty where they cannot be read.
    """

    labels: dict[str, str]
    until: datetime | None


def read_info(raw: dict[str, Any]) -> BucketInfo:
    """Read what is there of a listed bucket. Raises ValueError for one without a name."""
    return BucketInfo(
        name=name_of(raw),
        labels=_labels(raw),
        created_at=_time(raw.get("timeCreated")),
        location=str(raw.get("location") or "").upper(),
    )


def read_seen(raw: dict[str, Any]) -> Seen:
    """Read a bucket; one of another shape raises ValueError, TypeError, LookupError or so."""
    access = raw.get("iamConfiguration") or {}
    seconds = (raw.get("softDeletePolicy") or {}).get("retentionDurationSeconds")
    metageneration = int(raw["metageneration"])
    return Seen(
        name=name_of(raw),
        metageneration=metageneration,
        labels=_labels(raw),
        location=str(raw.get("location") or "").upper(),
        soft_delete_seconds=None if seconds is None else int(seconds),
        is_uniform=(access.get("uniformBucketLevelAccess") or {}).get("enabled") is True,
        public_access=str(access.get("publicAccessPrevention")),
        is_versioned=bool((raw.get("versioning") or {}).get("enabled")),
        lifecycle=tuple((raw.get("lifecycle") or {}).get("rule") or ()),
        is_retained=bool(raw.get("retentionPolicy") or raw.get("objectRetention")),
        is_held_by_default=bool(raw.get("defaultEventBasedHold")),
        changed_at=_time(raw.get("updated")) if metageneration > 1 else None,
    )


def read_restorable(raw: dict[str, Any]) -> Restorable:
    """Read what is there of a listed bucket that was deleted."""
    return Restorable(labels=_labels(raw), until=_time(raw.get("hardDeleteTime")))


def name_of(raw: dict[str, Any]) -> str:
    """Give the name of a listed bucket. Raises ValueError where there is none."""
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a bucket without a name")
    return name


def _labels(raw: dict[str, Any]) -> dict[str, str]:
    found = raw.get("labels")
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None
