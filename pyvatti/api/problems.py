"""Errors as the caller sees them: application/problem+json (RFC 9457) with FastAPI's `detail`.

The only place that turns our errors into status codes.
"""

import math
import re
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from pyvatti.errors import (
    InvalidRequest,
    JobExists,
    JobFinished,
    JobNotFound,
    PermanentError,
    PyvattiError,
    RequestError,
    TransientError,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5  # seconds
METHODS = ("DELETE", "GET", "POST")
INDEX = re.compile(r"[0-9]{1,9}")  # a caller's own key may be made of any digits

STATUS_OF: tuple[tuple[type[PyvattiError], int], ...] = (
    (InvalidRequest, 422),
    (JobNotFound, 404),
    (JobExists, 409),
    (JobFinished, 409),
    (RequestError, 400),
    (TransientError, 503),
    (PermanentError, 503),
)


class FieldProblem(BaseModel):
    """One broken rule: `loc` is the path of the field, `msg` the rule."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """An error. `detail` is a sentence, or the broken rules field by field."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | list[FieldProblem]


class Unauthorized(RequestError):
    """No bearer token, or one that is not accepted."""


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Document the error answers of a route."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        code: {"description": HTTPStatus(code).phrase, "content": {MEDIA_TYPE: schema}}
        for code in codes
    }


def problem(
    status: int, detail: str | list[dict[str, Any]], headers: dict[str, str] | None = None
) -> JSONResponse:
    """Make an error answer."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        },
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def install_handlers(app: FastAPI) -> None:
    """Make every error of ours, FastAPI's and Starlette's a problem; see middleware for others."""
    app.add_exception_handler(PyvattiError, _ours)
    app.add_exception_handler(TimeoutError, _too_late)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def status_of(error: Exception) -> int:
    """Give the status that an error of a route is answered with."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, TimeoutError):
        return 503
    return next((code for kind, code in STATUS_OF if isinstance(error, kind)), 500)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Unauthorized):
        return problem(401, str(error), {"WWW-Authenticate": "Bearer"})
    if isinstance(error, InvalidRequest):
        return problem(422, [_field(field, rule) for field, rule in error.problems])
    status = status_of(error)
    headers = {}
    if status == 503:
        asked = error.retry_after if isinstance(error, TransientError) else None
        headers["Retry-After"] = str(max(1, math.ceil(asked or RETRY_AFTER)))
        log.warning("request refused", error=str(error), kind=type(error).__name__)
    return problem(status, str(error), headers)


def _field(field: str, rule: str) -> dict[str, Any]:
    path = [int(part) if INDEX.fullmatch(part) else part for part in field.split(".") if part]
    return {"loc": ["body", *path], "msg": rule, "type": "value_error"}


async def _too_late(_request: Request, _error: Exception) -> JSONResponse:
    log.warning("request timed out")
    text = "the cluster did not answer in time"
    return problem(503, text, {"Retry-After": str(RETRY_AFTER)})


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return problem(
        422,
        [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in found],
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else "error"
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return problem(status, detail, headers)


def _allowed(request: Request) -> list[str]:
    """Name the methods of a path; Starlette looks at its first route alone."""
    scope = {key: request.scope[key] for key in ("type", "path", "root_path", "headers")}
    routes = request.app.routes
    allowed = {
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))
