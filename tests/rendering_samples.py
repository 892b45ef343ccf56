"""What the rendering tests share: settings with stand-in secrets, payloads, golden files.

No assertions. Run as a program it writes the golden files anew.
"""

import base64
import copy
import json
from pathlib import Path
from typing import Any

from pyvatti import __version__
from pyvatti.jobs import names_for
from pyvatti.launch import LaunchRequest, parse_launch
from pyvatti.manifests import Renderer
from pyvatti.models import Installation, Manifest, Names, State
from pyvatti.settings import Settings

PAYLOADS = Path(__file__).parent / "data" / "payloads"
GOLDEN = Path(__file__).parent / "data" / "golden"
ACCEPTED = sorted(path.stem for path in PAYLOADS.glob("launch-ok-*.json"))
GENOME = "pipeline_param.target_genomes.0"
SCORES = "pipeline_param.nxf_params_file"
VERSION_MARK = "@VERSION@"
OWNER_UID = "0b1c8a52-6d6c-4a5e-9f0e-2f9f3c1d7e11"
WHOSE = Installation(
    namespace="intervene-dev",
    namespace_uid="6f1d3c58-3b1f-4a53-9a0e-5d5a4a7f2b90",
    instance="pyvatti",
)

SECRETS = {
    "tower_token": "stand-in-tower-token",
    "globus_client_secret": "stand-in-globus-secret",
    "key_handler_token": "c3RhbmQtaW46a2V5LWhhbmRsZXI=",
    "key_handler_password": "stand-in-key-password",
    "notify_token": "c3RhbmQtaW46bm90aWZ5",
}


def settings(**changes: Any) -> Settings:
    """Settings of a small installation; any field may be changed."""
    values = {
        "namespace": "intervene-dev",
        "api_auth": "token",
        "api_tokens": "stand-in-api-token",
        "tower_workspace": 44,
        "globus_domain": "https://g-000000.data.example.org",
        "globus_client_id": "stand-in-client",
        "globus_scopes": "https://auth.example.org/scopes/stand-in/https",
        "key_handler_url": "https://example.com/key-handler",
        "gcp_project": "stand-in-project",
        "gcp_location": "europe-west2",
        "notify_url": "https://example.com/backend",
        **SECRETS,
    }
    return Settings(**{**values, **changes})


def body(name: str) -> dict[str, Any]:
    """A payload as parsed JSON."""
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def request(name: str = "launch-ok-trait-pfile") -> LaunchRequest:
    """An accepted payload."""
    return parse_launch((PAYLOADS / f"{name}.json").read_bytes())


def parse(value: Any) -> LaunchRequest:
    """Read a body given as JSON values."""
    return parse_launch(json.dumps(value))


def _place(value: Any, path: str) -> tuple[Any, Any]:
    *parents, last = path.split(".")
    for key in parents:
        value = value[int(key) if isinstance(value, list) else key]
    return value, int(last) if isinstance(value, list) else last


def put(value: Any, path: str, new: Any) -> Any:
    """A copy of a body with one field set."""
    changed = copy.deepcopy(value)
    place, key = _place(changed, path)
    place[key] = new
    return changed


def drop(value: Any, path: str) -> Any:
    """A copy of a body without one field."""
    changed = copy.deepcopy(value)
    place, key = _place(changed, path)
    del place[key]
    return changed


def names(of: LaunchRequest | None = None) -> Names:
    """Names of a request in the namespace of `settings()`."""
    return names_for((of or request()).job_id, "intervene-dev", OWNER_UID)


def files_of(secret: Manifest) -> dict[str, str]:
    """The contents of a rendered Secret as text."""
    return {
        key: base64.b64decode(value, validate=True).decode()
        for key, value in secret["data"].items()
    }


def every_manifest(renderer: Renderer, of: LaunchRequest) -> dict[str, Manifest]:
    """All four objects of one launch."""
    made = names(of)
    return {
        "job": renderer.job(of, WHOSE),
        "driver_secret": renderer.driver_secret(of, made, WHOSE),
        "transfer_secret": renderer.transfer_secret(made, WHOSE),
        "record": renderer.record(made, WHOSE, state=State.FAILED, data={"record.json": "{}"}),
    }


def readable(manifests: dict[str, Manifest]) -> dict[str, Manifest]:
    """The same with the data of Secrets as text, as golden files hold it."""
    return {
        name: {**manifest, "data": files_of(manifest)} if manifest["kind"] == "Secret" else manifest
        for name, manifest in manifests.items()
    }


def golden(name: str) -> dict[str, Manifest]:
    """What a payload must be rendered to."""
    text = (GOLDEN / f"{name}.json").read_text()
    return json.loads(text.replace(VERSION_MARK, __version__))


def write_golden() -> None:
    """Write all golden files; look at the difference before it is kept."""
    GOLDEN.mkdir(exist_ok=True)
    for name in ACCEPTED:
        made = readable(every_manifest(Renderer(settings()), request(name)))
        for manifest in made.values():
            for place in (manifest, manifest.get("spec", {}).get("template", {})):
                labels = place.get("metadata", {}).get("labels", {})
                if "app.kubernetes.io/version" in labels:
                    labels["app.kubernetes.io/version"] = VERSION_MARK
        (GOLDEN / f"{name}.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    write_golden()
