"""Who may call, and how much they may send. No routes here."""

import asyncio
import hmac
import re
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pyvatti.api.problems import Unauthorized
from pyvatti.settings import Settings

MOST_BYTES = 1024 * 1024
BODY_SECONDS = 10.0

_bearer = HTTPBearer(auto_error=False, description="One of API_TOKENS")


class Gate:
    """Lets requests in by bearer token."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = [token.get_secret_value().encode() for token in settings.api_tokens]

    async def __call__(
        self, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        """Raise Unauthorized unless the request carries an accepted token."""
        # a header is latin-1 text: this gives the very bytes that were sent
        given = credentials.credentials.encode("latin-1") if credentials else b""
        # every token is compared, in constant time, whichever matches
        matches = [hmac.compare_digest(given, token) for token in self._tokens]
        if not any(matches):
            raise Unauthorized("a bearer token is needed" if not given else "token not accepted")


def require_json(request: Request) -> None:
    """Raise HTTPException 415 for a body that is declared to be no JSON.

    So no page of another site can make a browser launch a job by a plain form. A missing type is
    let through: then the body has to show what it is.
    """
    declared = request.headers.get("content-type", "")
    kind = declared.partition(";")[0].strip().lower()
    if declared and not re.fullmatch(r"application/([a-z0-9.-]+\+)?json", kind):
        raise HTTPException(415, "the body must be application/json")


async def read_body(request: Request) -> bytes:
    """Read a body of at most 1 MiB within 10 s. Raises HTTPException 413 or 408."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > 20 or int(declared) > MOST_BYTES):
        raise HTTPException(413, "the body may have at most 1 MiB")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, "the body may have at most 1 MiB")
    except (TimeoutError, ClientDisconnect):  # who went away reads no answer: no fault of ours
        headers = {"Connection": "close"}
        raise HTTPException(408, "the body did not arrive in time", headers) from None
    return bytes(body)
