"""PURE: what templates see: plain values, and no secret where none is needed.

No template and no file. Plain are text, numbers, None, and lists and mappings of them.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr

from pyvatti.driver_pod import DriverPod
from pyvatti.errors import ConfigurationError
from pyvatti.launch import LaunchRequest
from pyvatti.manifests.nextflow import spot_attempts
from pyvatti.manifests.serialisers import to_base64
from pyvatti.models import IdNames, Manifest
from pyvatti.settings import Settings

CREDENTIALS = ("globus_client_secret", "key_handler_token", "key_handler_password")
SAMPLE_CREDENTIALS = dict.fromkeys(CREDENTIALS, "sample")


def is_secret(annotation: Any) -> bool:
    """Tell whether a field of this type holds a secret."""
    return annotation is SecretStr or any(is_secret(part) for part in get_args(annotation))


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Give every setting that is no secret by its name, durations in seconds, and `nextflow`.

    One whose default depends on the version of Nextflow is given as it holds for it.
    """
    return {
        name: _plain(getattr(settings, name))
        for name, field in Settings.model_fields.items()
        if not is_secret(field.annotation)
    } | {"nextflow": settings.nextflow, "max_spot_attempts": spot_attempts(settings)}


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, DriverPod):
        return value.plain()
    return str(value) if isinstance(value, Path) else value


def plain_request(request: LaunchRequest) -> dict[str, Any]:
    """Give a request's fields as mappings, lists, text and numbers."""
    return request.model_dump(warnings=False)  # rendering refuses what has no form, not pydantic


def plain_names(names: IdNames) -> dict[str, Any]:
    """Give the names of everything a job makes: fields and properties, of which all are names."""
    return {name: getattr(names, name) for name in dir(names) if not name.startswith("_")}


def credentials(settings: Settings) -> dict[str, str]:
    """Give the credentials that the transfer's files need: plain text, for those alone."""
    return {name: getattr(settings, name).get_secret_value() for name in CREDENTIALS}


@cache
def mark(name: str) -> tuple[str, str]:
    """Give what a Secret's template sees in the place of a file's content, and that in base64."""
    text = f"(content of {name})"
    return text, to_base64(text)


def marks(files: Iterable[str]) -> dict[str, str]:
    """Give the mark of each file by its name."""
    return {name: mark(name)[0] for name in files}


def fill(template: str, manifest: Manifest, files: Mapping[str, str]) -> Manifest:
    """Put the files where their marks are, each under its own name in `data` or `stringData`.

    Raises ConfigurationError naming a file that has no such place.
    """
    encoded, plain = (_part(manifest, part) for part in ("data", "stringData"))
    for name, content in files.items():
        text, text_in_base64 = mark(name)
        if encoded.get(name) == text_in_base64:
            encoded[name] = to_base64(content)
        elif plain.get(name) == text:
            plain[name] = content
        else:
            raise ConfigurationError(f"{template}: does not give the file {name}, whole, in data")
    return manifest


def _part(manifest: Manifest, part: str) -> dict[str, Any]:
    found = manifest.get(part)
    return found if isinstance(found, dict) else {}
