"""GET: single objects and paged lists, now or at an older version.

No writes and no streams.
"""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import orjson

from pyvatti.sandbox.kube.calls import Call
from pyvatti.sandbox.kube.changes import Version
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.rendering import View, form_of
from pyvatti.sandbox.kube.selectors import compile_selectors
from pyvatti.sandbox.kube.store import Store

Body = dict[str, Any]

FUTURE_WAIT_SECONDS = 3.0


def view_of(store: Store, call: Call) -> View:
    """Give the form in which a call wants its answer."""
    include = call.query.get("includeObject", "Metadata")
    return View(call.resource, form_of(call.accept), include, store.now)


def match_of(call: Call) -> Callable[[Body], bool] | None:
    """Give the predicate of the call's selectors; None if everything matches."""
    return compile_selectors(
        call.storage, call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
    )


def get(store: Store, call: Call) -> bytes:
    """Answer a GET of one object."""
    view = view_of(store, call)
    return view.version(store.version(call.storage, call.namespace, call.name))


async def list_page(store: Store, call: Call) -> bytes:
    """Answer a LIST. Raises ApiError 400, 410 (compacted), 504 (future version)."""
    view, match = view_of(store, call), match_of(call)
    limit = call.number("limit") or 0
    token = call.query.get("continue", "")
    number, start = (None, None) if not token else _read_token(call, token)
    if not token:
        number, limit = await _wanted_version(store, call, limit)
    at = store.resource_version if number is None or number < 0 else number
    try:
        found = store.versions(call.storage, call.target.namespace or None, at)
    except ApiError as exc:
        raise exc if start is None else _expired(start) from exc
    chosen = [
        item
        for item in found
        if (start is None or _key(item) > start) and (match is None or match(item.body))
    ]
    metadata: Body = {"resourceVersion": str(at)}
    if limit and len(chosen) > limit:
        metadata["continue"] = _token(at, _key(chosen[limit - 1]))
        if match is None:
            metadata["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    return view.many(chosen, metadata)


async def _wanted_version(store: Store, call: Call, limit: int) -> tuple[int | None, int]:
    """Give the version to list at (None: the latest) and the limit that holds there."""
    text, match = call.query.get("resourceVersion", ""), call.query.get("resourceVersionMatch", "")
    if not text and match:
        raise ApiError(422, f'resourceVersionMatch: Forbidden: "{match}" needs a resourceVersion')
    number = parse_version(text)
    if number == 0:
        return None, 0  # served from the watch cache, which does not page
    if number > store.resource_version:
        if match == "NotOlderThan":
            await asyncio.sleep(FUTURE_WAIT_SECONDS)
        raise _too_large(number, store.resource_version)
    exact = match == "Exact" or (limit > 0 and match != "NotOlderThan")
    return (number if text and exact else None), limit


def parse_version(text: str) -> int:
    """Read a resourceVersion, "" is 0. Raises ApiError 400."""
    if text and not text.isdecimal():
        raise ApiError(400, f'resourceVersion: Invalid value: "{text}": strconv.ParseUint')
    # An absent version means the latest, which no number says.
    return int(text) if text else -1


def _key(version: Version) -> tuple[str, str]:
    metadata = version.body["metadata"]
    return (metadata.get("namespace", ""), metadata["name"])


def _token(number: int, start: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"rv": number, "start": start})).decode()


def _read_token(call: Call, token: str) -> tuple[int, tuple[str, str]]:
    if call.query.get("resourceVersion", "0") not in ("", "0"):
        raise ApiError(400, "specifying resource version is not allowed when using continue")
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(token))
        namespace, name = decoded["start"]
        return int(decoded["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError) as exc:
        raise ApiError(400, "continue key is not valid") from exc


def _expired(start: tuple[str, str]) -> ApiError:
    error = ApiError(
        410,
        "The provided continue parameter is too old to display a consistent list result. You can"
        " start a new list without the continue parameter, or use the continue token in this"
        " response to retrieve the remainder of the results.",
    )
    error.metadata["continue"] = _token(-1, start)
    return error


def _too_large(wanted: int, current: int) -> ApiError:
    message = f"Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(504, message, details={"causes": [cause], "retryAfterSeconds": 1})
