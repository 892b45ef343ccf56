"""Ages and durations in kubectl's words: `5s`, `3m12s`, `2d4h`.

Follows k8s.io/apimachinery pkg/util/duration. Pure.
"""

from datetime import datetime
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86_400


def age_of(body: dict[str, Any], now: datetime) -> str:
    """Give the age of an object."""
    return between(body["metadata"].get("creationTimestamp"), None, now) or "<unknown>"


def between(start: str | None, end: str | None, now: datetime) -> str:
    """Give the time from `start` to `end` (or now); "" without a start."""
    if not start:
        return ""
    last = datetime.fromisoformat(end) if end else now
    return human(int((last - datetime.fromisoformat(start)).total_seconds()))


def human(seconds: int) -> str:
    """Write a number of seconds."""
    if seconds < -1:
        return "<invalid>"
    if seconds < 2 * MINUTE:
        return f"{max(seconds, 0)}s"
    for limit, unit, smaller, words in (
        (10 * MINUTE, MINUTE, 1, "ms"),
        (3 * HOUR, MINUTE, 0, "m"),
        (8 * HOUR, HOUR, MINUTE, "hm"),
        (2 * DAY, HOUR, 0, "h"),
        (8 * DAY, DAY, HOUR, "dh"),
    ):
        if seconds < limit:
            rest = seconds % unit // smaller if smaller else 0
            return f"{seconds // unit}{words[0]}" + (f"{rest}{words[1]}" if rest else "")
    return f"{seconds // DAY}d"
