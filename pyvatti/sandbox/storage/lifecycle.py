"""Lifecycle rules and the end of soft deletion, applied to what the stand-in keeps.

Removes objects and unfinished uploads, never a bucket: as the service does.
"""

import contextlib
from datetime import datetime, timedelta

from pyvatti.sandbox.storage.state import Bucket, State
from pyvatti.sandbox.storage.wire import ApiError, Json


def apply(state: State) -> None:
    """Remove what has aged out by now."""
    now = state.now()
    for bucket in state.buckets.values():
        for rule in bucket.properties.get("lifecycle", {}).get("rule", []):
            _apply_rule(state, bucket, rule, now)
    state.soft_deleted = [kept for kept in state.soft_deleted if kept.until > now]


def _apply_rule(state: State, bucket: Bucket, rule: Json, now: datetime) -> None:
    action, condition = rule.get("action", {}).get("type"), rule.get("condition", {})
    if action == "AbortIncompleteMultipartUpload":
        for upload in list(bucket.uploads.values()):
            if _matches(condition, upload.name, upload.created, now, live=True):
                del bucket.uploads[upload.id]
    if action != "Delete":
        return
    for version in bucket.versions:
        live = version.noncurrent_since is None
        if _matches(condition, version.name, version.created, now, live=live):
            with contextlib.suppress(ApiError):  # held
                state.remove(bucket, version, keep_version=True)


def _matches(condition: Json, name: str, created: datetime, now: datetime, *, live: bool) -> bool:
    """Whether all conditions hold; one that is not known here never does."""
    if not condition or set(condition) - {"age", "isLive", "matchesPrefix", "matchesSuffix"}:
        return False
    return (
        now - created >= timedelta(days=int(condition.get("age", 0)))
        and condition.get("isLive", live) == live
        and name.startswith(tuple(condition.get("matchesPrefix", [""])))
        and name.endswith(tuple(condition.get("matchesSuffix", [""])))
    )
