"""The JSON API's bucket calls: insert, get, list, patch, delete, with their rules.

No objects (cloud.google.com/storage/docs/json_api/v1/buckets).
"""

import ipaddress
import re
from datetime import timedelta
from typing import Any

from pyvatti.sandbox.storage.state import Bucket, State, forbidden
from pyvatti.sandbox.storage.wire import (
    Answer,
    ApiError,
    Call,
    Json,
    is_true,
    json_answer,
    merge,
    rfc3339,
    without_nulls,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS = 64
WEEK = int(timedelta(days=7).total_seconds())
LONGEST = int(timedelta(days=90).total_seconds())
DEFAULTS: Json = {
    "location": "US",
    "storageClass": "STANDARD",
    "iamConfiguration": {
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
    },
    "softDeletePolicy": {"retentionDurationSeconds": str(WEEK)},
}


def insert(state: State, call: Call) -> Answer:
    """Create a bucket with all properties of the body."""
    project = _project(state, call, "storage.buckets.create")
    body = without_nulls(call.json())
    name = str(body.pop("name", ""))
    _check_name(name)
    _check(body)
    existing = state.buckets.get(name)
    if existing is not None and existing.project == project:
        raise ApiError(
            409,
            "conflict",
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
    if existing is not None:
        raise ApiError(409, "conflict", "The requested bucket name is not available.")
    properties = without_nulls({})
    for layer in (DEFAULTS, body, state.organisation_policy):
        merge(properties, layer)
    bucket = Bucket(name, project, state.now(), properties)
    _normalise(bucket)
    state.buckets[name] = bucket
    return json_answer(resource(bucket, call.base))


def get(state: State, call: Call) -> Answer:
    """Give one bucket."""
    return json_answer(resource(state.bucket(call.bucket, "storage.buckets.get"), call.base))


def listing(state: State, call: Call) -> Answer:
    """List the project's buckets by prefix, in pages."""
    project = _project(state, call, "storage.buckets.list")
    if is_true(call.query.get("softDeleted")):
        return _deleted(state, call)
    prefix, after = call.query.get("prefix", ""), call.query.get("pageToken", "")
    size = max(1, min(int(call.query.get("maxResults", 1000)), 1000))
    names = [
        name
        for name, bucket in sorted(state.buckets.items())
        if bucket.project == project
        and name.startswith(prefix)
        and name > after
        and name not in state.unreachable
    ]
    value: Json = {"kind": "storage#buckets"}
    if names:
        value["items"] = [resource(state.buckets[name], call.base) for name in names[:size]]
    if len(names) > size:
        value["nextPageToken"] = names[size - 1]
    if state.unreachable:
        value["unreachable"] = [f"projects/_/buckets/{name}" for name in state.unreachable]
    return json_answer(value)


def _deleted(state: State, call: Call) -> Answer:
    """List the buckets that can be restored; few enough for one page."""
    prefix = call.query.get("prefix", "")
    rows = [
        {**resource(kept.whole, call.base), "hardDeleteTime": rfc3339(kept.until)}
        for kept in state.soft_deleted
        if kept.whole is not None and kept.bucket.startswith(prefix)
    ]
    return json_answer({"kind": "storage#buckets", **({"items": rows} if rows else {})})


def patch(state: State, call: Call) -> Answer:
    """Change properties by JSON merge patch."""
    bucket = state.bucket(call.bucket, "storage.buckets.update")
    require_metageneration(call, bucket.metageneration)
    body = call.json()
    _check(without_nulls(body))
    _require_unlocked(bucket, body)
    merge(bucket.properties, body)
    _normalise(bucket)
    bucket.metageneration += 1
    bucket.updated = state.now()
    return json_answer(resource(bucket, call.base))


def delete(state: State, call: Call) -> Answer:
    """Delete an empty bucket."""
    bucket = state.bucket(call.bucket, "storage.buckets.delete")
    require_metageneration(call, bucket.metageneration)
    state.drop_bucket(bucket)
    return Answer(status=204)


def resource(bucket: Bucket, base: str) -> Json:
    """Give a bucket as the JSON API does; 64-bit numbers are strings."""
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base}/storage/v1/b/{bucket.name}",
        "projectNumber": "123456789012",
        "metageneration": str(bucket.metageneration),
        "timeCreated": rfc3339(bucket.created),
        "updated": rfc3339(bucket.updated or bucket.created),
        "etag": f"CAE{bucket.metageneration}",
        **bucket.properties,
    }


def require_metageneration(call: Call, found: int) -> None:
    """Raise 412 if the caller asked for another metageneration."""
    wanted = call.query.get("ifMetagenerationMatch")
    if wanted is not None and wanted != str(found):
        raise precondition_failed()


def precondition_failed() -> ApiError:
    """Give the 412."""
    message = "At least one of the pre-conditions you specified did not hold."
    return ApiError(412, "conditionNotMet", message)


def _project(state: State, call: Call, permission: str) -> str:
    project = call.query.get("project")
    if not project:
        raise ApiError(400, "required", "Required parameter: project")
    if project != state.project:
        raise forbidden(permission, f"project {project}")
    state.require(permission, f"project {project}")
    return project


def _check_name(name: str) -> None:
    """Refuse a bad name (cloud.google.com/storage/docs/buckets#naming)."""
    if not NAME.fullmatch(name) or name.startswith("goog") or re.search("g[o0]{2}g[l1]e", name):
        raise _invalid(f"Invalid bucket name: '{name}'")
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return
    raise _invalid(f"Invalid bucket name: '{name}'")


def _check(body: Json) -> None:
    labels = body.get("labels", {})
    if len(labels) > MOST_LABELS:
        raise _invalid("Too many labels.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise _invalid(f"Invalid label key '{key}'.")
        if not LABEL_VALUE.fullmatch(str(value)):
            raise _invalid(f"Invalid value '{value}' for label '{key}'.")
    kept = body.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0)
    if not _is_soft_delete_duration(kept):
        raise _invalid("Soft delete policy retention duration must be 0 or 7 to 90 days.")


def _require_unlocked(bucket: Bucket, body: Json) -> None:
    """Raise 403 if a locked retention policy would end or become shorter."""
    policy = bucket.properties.get("retentionPolicy") or {}
    if not policy.get("isLocked") or "retentionPolicy" not in body:
        return
    wanted = (body["retentionPolicy"] or {}).get("retentionPeriod", 0)
    if int(wanted) < int(policy.get("retentionPeriod", 0)):
        raise ApiError(403, "forbidden", "Cannot reduce a locked retention policy.")


def _is_soft_delete_duration(value: Any) -> bool:
    return str(value).isdigit() and (int(value) == 0 or WEEK <= int(value) <= LONGEST)


def _normalise(bucket: Bucket) -> None:
    """Spell values as the service gives them back."""
    properties = bucket.properties
    properties["location"] = str(properties["location"]).upper()
    policy = properties.setdefault("softDeletePolicy", {"retentionDurationSeconds": "0"})
    policy["retentionDurationSeconds"] = str(policy.get("retentionDurationSeconds", WEEK))
    policy.setdefault("effectiveTime", rfc3339(bucket.created))


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid", message)
