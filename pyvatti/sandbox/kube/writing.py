"""POST, PUT and PATCH of stored objects.

No deletions and no reads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyvatti.sandbox.kube import admission, apply, events, managers, patches, schema, strategy
from pyvatti.sandbox.kube.calls import Call, decode
from pyvatti.sandbox.kube.errors import ApiError, conflict, invalid, not_found
from pyvatti.sandbox.kube.managers import Manager
from pyvatti.sandbox.kube.resources import EVENTS, EVENTS_V1, LEASES, SERVICEACCOUNTS
from pyvatti.sandbox.kube.store import Store, timestamp

Body = dict[str, Any]

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY)
VERSION_REQUIRED = (LEASES, SERVICEACCOUNTS)
CREATED_BY_PUT = (LEASES, EVENTS)


@dataclass(frozen=True, slots=True)
class Written:
    """An object after a write, in its stored form."""

    body: Body
    created: bool


def create(store: Store, call: Call) -> Written:
    """Answer a POST of an object."""
    body = decode(call.data, call.media)
    _check_type(call, body)
    return _create(store, call, body)


def replace(store: Store, call: Call) -> Written:
    """Answer a PUT."""
    body = decode(call.data, call.media)
    _check_type(call, body)
    if body.get("metadata", {}).get("name", "") != call.name:
        raise ApiError(
            400,
            f"the name of the object ({body.get('metadata', {}).get('name', '')}) does not match"
            f" the name on the URL ({call.name})",
        )
    old = store.find(call.storage, call.namespace, call.name)
    if old is None:
        return _create_by_put(store, call, body)
    _check_put(call, body, old)
    _read_fields(call, body)

    def change(before: Body) -> Body:
        new = events.to_core(body) if call.resource is EVENTS_V1 else body
        return _owned(store, call, new, before)

    return Written(_update(store, call, change), created=False)


def patch(store: Store, call: Call) -> Written:
    """Answer a PATCH. Raises ApiError 415 for an unknown kind of patch."""
    media = call.media.partition(";")[0].strip()
    if media not in PATCHES:
        raise ApiError(
            415,
            "the body of the request was in an unknown format - accepted media types include:"
            f" {', '.join(PATCHES)}",
        )
    if media == APPLY:
        return _apply(store, call)
    content = decode(call.data, "application/json")

    def change(before: Body) -> Body:
        modern = call.resource is EVENTS_V1
        new = _patched(call, media, events.to_modern(before) if modern else before, content)
        _read_patched(call, new)
        new = events.to_core(new) if modern else new
        return _owned(store, call, new, store.get(call.storage, call.namespace, call.name))

    return Written(_update(store, call, change), created=False)


def _create(store: Store, call: Call, body: Body) -> Written:
    _read_fields(call, body)
    body.setdefault("metadata", {}).pop("managedFields", None)
    if call.resource is EVENTS_V1:
        body = events.to_core(body)
        body["metadata"].setdefault("namespace", call.namespace)
        events.check_modern(body)
    managers.note_update(schema.type_of(call.storage), body, None, _author(store, call, "Update"))
    new = store.create(call.storage, call.namespace, body, dry_run=call.dry_run)
    call.warnings += admission.warnings(store, call.storage, call.namespace, new)
    return Written(new, created=True)


def _create_by_put(store: Store, call: Call, body: Body) -> Written:
    metadata = body.get("metadata", {})
    if call.storage not in CREATED_BY_PUT or call.target.subresource:
        raise not_found(call.resource.group, call.resource.plural, call.name)
    if metadata.get("uid"):
        raise _uid_conflict(call, metadata["uid"], "")
    return _create(store, call, body)


def _check_put(call: Call, body: Body, old: Body) -> None:
    metadata = body["metadata"]
    if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
        raise _uid_conflict(call, metadata["uid"], old["metadata"]["uid"])
    if call.storage in VERSION_REQUIRED and not metadata.get("resourceVersion"):
        raise invalid(
            call.resource.group,
            call.resource.plural,
            call.name,
            [
                (
                    "metadata.resourceVersion",
                    "Invalid value: 0x0: must be specified for an update",
                )
            ],
        )


def _uid_conflict(call: Call, wanted: str, actual: str) -> ApiError:
    return conflict(
        call.resource.group,
        call.resource.plural,
        call.name,
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}",
    )


def _update(store: Store, call: Call, change: Callable[[Body], Body]) -> Body:
    return store.update(
        call.storage,
        call.namespace,
        call.name,
        change,
        subresource=call.target.subresource,
        dry_run=call.dry_run,
    )


def _patched(call: Call, media: str, before: Body, content: Any) -> Body:
    if media == JSON_PATCH:
        return patches.json_patch(before, content)
    if not isinstance(content, dict):
        raise ApiError(400, "error decoding patch: expected an object")
    if media == MERGE_PATCH:
        merged: Body = patches.merge(before, content)
        return merged
    return patches.strategic(schema.type_of(call.resource), before, content)


def _apply(store: Store, call: Call) -> Written:
    intent = decode(call.data, APPLY)
    _check_type(call, intent)
    _check_intent(call, intent)
    author = _author(store, call, "Apply")
    old = store.find(call.storage, call.namespace, call.name)
    kind = schema.type_of(call.storage)
    metadata = intent.setdefault("metadata", {})
    metadata.setdefault("name", call.name)
    if old is None:
        if metadata.get("uid"):
            cause = ("metadata.uid", f'Invalid value: "{metadata["uid"]}": no such object')
            raise invalid(call.resource.group, call.resource.kind, call.name, [cause])
        metadata.pop("resourceVersion", None)
        body = apply.apply(kind, {"metadata": {}}, intent, author, force=True)
        new = store.create(call.storage, call.namespace, body, dry_run=call.dry_run)
        return Written(new, created=True)

    def change(before: Body) -> Body:
        return apply.apply(kind, before, intent, author, force=call.flag("force"))

    return Written(_update(store, call, change), created=False)


def _check_intent(call: Call, intent: Body) -> None:
    if not call.query.get("fieldManager"):
        raise invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            [("fieldManager", "Required value: is required for apply patch")],
        )
    if intent.get("metadata", {}).get("managedFields") is not None:
        raise ApiError(400, "metadata.managedFields must be nil")
    unknown = schema.decode(call.resource, intent)
    if unknown:
        raise ApiError(
            500,
            f"failed to create typed patch object ({call.namespace}/{call.name};"
            f" {call.resource.api_version}, Kind={call.resource.kind}): .{unknown[0]}: field not"
            " declared in schema",
            reason="",
        )


def _author(store: Store, call: Call, operation: str) -> Manager:
    return Manager(
        call.manager,
        operation,
        call.target.subresource,
        call.resource.api_version,
        timestamp(store.now()),
    )


def _owned(store: Store, call: Call, new: Body, before: Body) -> Body:
    """Note in a changed body who changed what."""
    strategy.separate_status(call.storage, new, before, call.target.subresource)
    kind = schema.type_of(call.storage)
    managers.note_update(kind, new, before, _author(store, call, "Update"))
    return new


def _check_type(call: Call, body: Any) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
        raise ApiError(400, "couldn't get version/kind; json parse error: expected an object")
    wanted = (call.resource.api_version, call.resource.kind)
    given = (body.get("apiVersion", wanted[0]), body.get("kind", wanted[1]))
    if given != wanted:
        raise ApiError(
            400,
            f"the API version in the data ({given[0]}, Kind={given[1]}) does not match the expected"
            f" API version ({wanted[0]}, Kind={wanted[1]})",
        )


def _read_fields(call: Call, body: Body) -> None:
    """Check types and drop unknown fields. Raises ApiError 400."""
    unknown = schema.decode(call.resource, body)
    if unknown and _is_strict(call):
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise ApiError(
            400,
            f'{call.resource.kind} in version "{call.resource.version}" cannot be handled as a'
            f" {call.resource.kind}: strict decoding error: {listed}",
        )
    _warn(call, unknown)


def _read_patched(call: Call, body: Body) -> None:
    """Do the same after a patch, where the API server answers 422."""
    try:
        unknown = schema.decode(call.resource, body)
    except ApiError as exc:
        raise _bad_patch(exc.message) from exc
    if unknown and _is_strict(call):
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise _bad_patch(f"strict decoding error: {listed}")
    _warn(call, unknown)


def _bad_patch(why: str) -> ApiError:
    return ApiError(422, f' "" is invalid: patch: Invalid value: {why}')


def _is_strict(call: Call) -> bool:
    value = call.query.get("fieldValidation") or "Warn"
    if value not in ("Ignore", "Strict", "Warn"):
        raise ApiError(422, f'fieldValidation: Unsupported value: "{value}"')
    return value == "Strict"


def _warn(call: Call, unknown: list[str]) -> None:
    if call.query.get("fieldValidation") != "Ignore":
        call.warnings += [f'unknown field "{path}"' for path in unknown]
