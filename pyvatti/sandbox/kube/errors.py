"""Errors as the API server answers them (`kind: Status`).

Nothing here decides when an error applies.
"""

from typing import Any

Body = dict[str, Any]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    504: "Timeout",
}


class ApiError(Exception):
    """A refusal. `details` has the keys of StatusDetails (name, group, kind, causes)."""

    def __init__(
        self, code: int, message: str, *, reason: str | None = None, details: Body | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = REASONS.get(code, "") if reason is None else reason
        self.message = message
        self.details = details or {}
        self.metadata: Body = {}  # ListMeta of the Status

    def status(self) -> Body:
        """Give the Status object that is sent as the answer's body."""
        body: Body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return body


def not_found(group: str, plural: str, name: str) -> ApiError:
    """Give the 404 for an absent object."""
    return ApiError(
        404,
        f'{_qualified(plural, group)} "{name}" not found',
        details=_details(group, plural, name),
    )


def already_exists(group: str, plural: str, name: str, *, dying: bool) -> ApiError:
    """Give the 409 for a taken name."""
    prefix = "object is being deleted: " if dying else ""
    return ApiError(
        409,
        f'{prefix}{_qualified(plural, group)} "{name}" already exists',
        reason="AlreadyExists",
        details=_details(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    """Give the 409 for a failed precondition."""
    return ApiError(
        409,
        f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}',
        details=_details(group, plural, name),
    )


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """Give the 403 of an admission step."""
    return ApiError(
        403,
        f'{_qualified(plural, group)} "{name}" is forbidden: {why}',
        details=_details(group, plural, name),
    )


def invalid(group: str, kind: str, name: str, causes: list[tuple[str, str]]) -> ApiError:
    """Give the 422 for broken rules; `causes` are (field path, sentence) pairs."""
    joined = ", ".join(f"{field}: {text}" for field, text in causes)
    message = joined if len(causes) == 1 else f"[{joined}]"
    details: Body = (
        {"name": name, "group": group, "kind": kind}
        if group
        else {
            "name": name,
            "kind": kind,
        }
    )
    details["causes"] = [
        {"reason": _cause(text), "message": text, "field": field} for field, text in causes
    ]
    qualified = f"{kind}.{group}" if group else kind
    return ApiError(422, f'{qualified} "{name}" is invalid: {message}', details=details)


def expired(number: int, compacted: int) -> ApiError:
    """Give the 410 for a version that was compacted away."""
    return ApiError(410, f"too old resource version: {number} ({compacted})")


def _cause(text: str) -> str:
    for start, reason in (
        ("Required", "FieldValueRequired"),
        ("Forbidden", "FieldValueForbidden"),
        ("Unsupported", "FieldValueNotSupported"),
        ("Too long", "FieldValueTooLong"),
    ):
        if text.startswith(start):
            return reason
    return "FieldValueInvalid"


def _details(group: str, plural: str, name: str) -> Body:
    details = {"name": name, "kind": plural}
    return {**details, "group": group} if group else details


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural
