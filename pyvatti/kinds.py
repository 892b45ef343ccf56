"""The kinds of values that settings have: how each is read, and the rule it must keep.

No setting by name.
"""

import base64
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

LONGEST = timedelta(days=36500)  # what is added to a date must still give a date


def split(value: Any) -> Any:
    """Give the items of a list that is written with commas."""
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


def _bare_seconds(value: Any) -> Any:
    """Let "3600" mean seconds; pydantic's own forms (ISO 8601, hh:mm:ss) stay valid."""
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        return value


def _sane(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= LONGEST:
        raise ValueError("must be more than 0 seconds and at most 100 years")
    return value


def _strip(value: Any) -> Any:
    """Drop the line break that files and Secrets so often end with."""
    return value.strip() if isinstance(value, str) else value


def _signing_key(value: SecretStr) -> SecretStr:
    """Check the form of Standard Webhooks: base64 of 24 to 64 random bytes after `whsec_`."""
    text = value.get_secret_value()
    encoded = text.removeprefix("whsec_").rstrip("=")  # written with or without padding
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


def _one_line(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isprintable():
        raise ValueError("must not hold a line break or another control character")
    return value


def _base(url: str) -> str:
    try:
        is_address = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # brackets without an IPv6 address, a port beyond 65535
        is_address = False
    if not is_address:
        raise ValueError("must be an address such as https://host:443/path")
    return url.rstrip("/")


def is_exposed(url: str) -> bool:
    """Tell whether what is sent there can be read on the way: plain HTTP to another machine."""
    parts = urlsplit(url)
    try:
        is_here = ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_here = parts.hostname == "localhost"
    return parts.scheme != "https" and not is_here


Seconds = Annotated[timedelta, BeforeValidator(_bare_seconds), AfterValidator(_sane)]
# without user:password@, for addresses are logged
HttpBase = Annotated[str, Field(pattern=r"^https?://[^\s@]+$"), AfterValidator(_base)]
Token = Annotated[SecretStr, BeforeValidator(_strip), Field(min_length=1)]
SigningSecret = Annotated[Token, AfterValidator(_signing_key)]
HeaderToken = Annotated[Token, AfterValidator(_one_line)]
CallerToken = Annotated[HeaderToken, Field(min_length=16)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGT]|[KMGT]i)?$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
