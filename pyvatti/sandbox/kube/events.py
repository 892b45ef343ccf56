"""Events in their two forms: core/v1, in which they are kept, and events.k8s.io/v1.

Follows kubernetes pkg/apis/events/v1/conversion.go and pkg/apis/core/validation/events.go. Pure.
"""

from typing import Any

from pyvatti.sandbox.kube.errors import invalid
from pyvatti.sandbox.kube.kinds import modern_event
from pyvatti.sandbox.kube.resources import EVENTS, EVENTS_V1
from pyvatti.sandbox.kube.syntax import Causes, check_prefix, check_subdomain

Body = dict[str, Any]

TO_MODERN = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
TO_CORE = {modern: core for core, modern in TO_MODERN.items()}
DEPRECATED = {"firstTimestamp", "lastTimestamp", "count", "source"}


def to_modern(body: Body) -> Body:
    """Give a core/v1 Event as events.k8s.io/v1."""
    return {TO_MODERN.get(name, name): value for name, value in body.items()} | {
        "apiVersion": EVENTS_V1.api_version
    }


def to_core(body: Body) -> Body:
    """Give an events.k8s.io/v1 Event as core/v1."""
    return {TO_CORE.get(name, name): value for name, value in body.items()} | {
        "apiVersion": EVENTS.api_version
    }


def check_modern(body: Body) -> None:
    """Check what events.k8s.io/v1 asks of a new Event, in core form. Raises ApiError 422."""
    causes = _names(body.get("metadata", {}))
    if not body.get("eventTime"):
        causes.append(("eventTime", "Required value"))
    causes += modern_event(body)
    if body.get("type") not in ("Normal", "Warning"):
        causes.append(("type", f'Invalid value: "{body.get("type", "")}"'))
    series = body.get("series")
    if series is not None and series.get("count", 0) < 2:
        causes.append(("series.count", "Invalid value: should be at least 2"))
    if series is not None and not series.get("lastObservedTime"):
        causes.append(("series.lastObservedTime", "Required value"))
    causes += [(name, "Invalid value: needs to be unset") for name in DEPRECATED if body.get(name)]
    if causes:
        raise invalid(EVENTS_V1.group, "Event", body.get("metadata", {}).get("name", ""), causes)


def _names(metadata: Body) -> Causes:
    """Check the names: here they are DNS names, so that no generateName ends in a full stop."""
    causes = check_prefix(
        check_subdomain, "metadata.generateName", metadata.get("generateName", "")
    )
    name = metadata.get("name", "")
    return causes + (check_subdomain("metadata.name", name) if name else [])
