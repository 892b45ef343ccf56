"""The JSON API's bucket calls: insert, get, list, patch, delete, with their rules.

No objects (cloud.google.com/storage/docs/json_api/v1/buckets).
"""

from pyvatti.sandbox.storage import rules
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

DEFAULTS: Json = {
    "location": "US",
    "storageClass": "STANDARD",
    "iamConfiguration": {
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
    },
    "softDeletePolicy": {"retentionDurationSeconds": str(rules.WEEK)},
}

CONSTRAINTS = {
    "location": "constraints/gcp.resourceLocations",
    "softDeletePolicy": "constraints/storage.softDeletePolicySeconds",
    "iamConfiguration": "constraints/storage.publicAccessPrevention",
}


def insert(state: State, call: Call) -> Answer:
    """Create a bucket with all properties of the body."""
    project = _project(state, call, "storage.buckets.create")
    body = without_nulls(call.json())
    name = str(body.pop("name", ""))
    rules.check_name(name)
    body = _checked(body)
    existing = state.buckets.get(name)
    if existing is not None and existing.project == project:
        raise ApiError(
            409,
            "conflict",
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
    if existing is not None:
        raise ApiError(409, "conflict", "The requested bucket name is not available.")
    _require_allowed(state, {**DEFAULTS, **body})
    properties: Json = {}
    for layer in (DEFAULTS, body, state.made_otherwise):
        merge(properties, layer)
    bucket = Bucket(name, project, state.now(), properties)
    _normalise(bucket)
    state.buckets[name] = bucket
    return json_answer(resource(bucket, call.base))


def get(state: State, call: Call) -> Answer:
    """Give one bucket."""
    bucket = state.bucket(call.bucket, "storage.buckets.get")
    require_metageneration(call, bucket.metageneration)
    return json_answer(resource(bucket, call.base))


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
    for key in rules.FIXED:
        found = resource(bucket, call.base)[key]
        if str(body.pop(key, None) or found).lower() != found.lower():
            raise rules.invalid(f"The {key} of a bucket cannot be changed.")
    body = {key: value for key, value in body.items() if key not in rules.OUTPUT}
    checked = _checked(without_nulls(body))
    _require_unlocked(bucket, body)
    _require_allowed(state, checked)
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


def _checked(body: Json) -> Json:
    """Give the fields that a caller may set. Raises 400 for what is not known or not possible."""
    settable = {key: value for key, value in body.items() if key not in rules.OUTPUT}
    rules.check_bucket(settable)
    return settable


def _require_allowed(state: State, body: Json) -> None:
    """Raise 412 where an organisation's policy wants another value: it changes none itself."""
    for key, wanted in state.organisation_policy.items():
        asked = body.get(key, wanted)
        if isinstance(wanted, dict) and isinstance(asked, dict):
            asked = {field: asked.get(field) for field in wanted}
        if str(asked).lower() != str(wanted).lower():
            message = f"Request violates constraint '{CONSTRAINTS.get(key, key)}'"
            raise ApiError(412, "conditionNotMet", message)


def _require_unlocked(bucket: Bucket, body: Json) -> None:
    """Raise 403 if a locked retention policy would end or become shorter."""
    policy = bucket.properties.get("retentionPolicy") or {}
    if not policy.get("isLocked") or "retentionPolicy" not in body:
        return
    wanted = (body["retentionPolicy"] or {}).get("retentionPeriod", 0)
    if int(wanted) < int(policy.get("retentionPeriod", 0)):
        raise ApiError(403, "forbidden", "Cannot reduce a locked retention policy.")


def _normalise(bucket: Bucket) -> None:
    """Spell values as the service gives them back."""
    properties = bucket.properties
    properties["location"] = str(properties["location"]).upper()
    policy = properties.setdefault("softDeletePolicy", {"retentionDurationSeconds": "0"})
    policy["retentionDurationSeconds"] = str(policy.get("retentionDurationSeconds", rules.WEEK))
    policy.setdefault("effectiveTime", rfc3339(bucket.created))
