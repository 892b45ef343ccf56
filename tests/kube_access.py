"""How tests reach an API server: address, TLS and credentials, as a kubeconfig gives them."""

import base64
import os
import ssl as tls
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

Body = dict[str, Any]

LONGEST = 120.0  # seconds of waiting for one answer


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and who we are there.

    `bare_ssl` shows no client certificate; `kubeconfig` is the file it was read from.
    """

    url: str
    headers: dict[str, str]
    ssl: tls.SSLContext | None
    bare_ssl: tls.SSLContext | None = None
    kubeconfig: Path | None = None

    def call(self, method: str, path: str, body: Body | None = None) -> Body:
        """Make one blocking request; gives the answer's object, a Status for a refusal."""
        given: Body = orjson.loads(self.read(method, path, body))
        return given

    def read(self, method: str, path: str, body: Body | None = None) -> bytes:
        """Make one blocking request; gives the answer's bytes, whatever its status."""
        request = urllib.request.Request(  # noqa: S310 - the cluster under test
            self.url + path,
            method=method,
            headers={**self.headers, "Content-Type": "application/json"},
            data=None if body is None else orjson.dumps(body),
        )
        try:
            with urllib.request.urlopen(request, context=self.ssl, timeout=LONGEST) as answer:  # noqa: S310 - the same
                given: bytes = answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                given = exc.read()
        return given

    def poll(self, path: str, wanted: Callable[[Body], Any], seconds: float) -> bool:
        """Look until an object is as wanted, at most so long; blocking."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if wanted(self.call("GET", path)):
                return True
            time.sleep(0.2)
        return False


def read_kubeconfig(path: Path, context: str = "") -> Access:
    """Read a kubeconfig's context (default: the current one): certificates, token or plug-in."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = _named(config["contexts"], context or config["current-context"])["context"]
    cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
    user = _with_plugin(_named(config["users"], chosen["user"])["user"])
    url, folder = cluster["server"].rstrip("/"), path.parent
    tls = bare = None
    if url.startswith("https"):
        tls, bare = _tls(cluster, user, folder), _tls(cluster, {}, folder)
    return Access(url, _headers(user, folder), tls, bare, path)


def _named(items: list[Body], name: str) -> Body:
    return next(item for item in items if item["name"] == name)


def _with_plugin(user: Body) -> Body:
    """Give a user with what its exec plug-in says, an ExecCredential of client.authentication."""
    plugin = user.get("exec")
    if not plugin:
        return user
    info = {
        "apiVersion": plugin["apiVersion"],
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    own = {item["name"]: item["value"] for item in plugin.get("env") or []}
    done = subprocess.run(
        [plugin["command"], *(plugin.get("args") or [])],
        env=os.environ | own | {"KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()},
        check=True,
        stdout=subprocess.PIPE,
    )
    said = orjson.loads(done.stdout)["status"]
    pair = {
        "client-certificate-data": said.get("clientCertificateData"),
        "client-key-data": said.get("clientKeyData"),
    }
    encoded = {key: base64.b64encode(pem.encode()).decode() for key, pem in pair.items() if pem}
    return {**user, "token": said.get("token"), **encoded}


def _headers(user: Body, folder: Path) -> dict[str, str]:
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = (folder / user["tokenFile"]).read_text(encoding="utf-8").strip()
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user.get("username"):
        pair = base64.b64encode(f"{user['username']}:{user['password']}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


def _tls(cluster: Body, user: Body, folder: Path) -> tls.SSLContext:
    authority = _content(cluster, "certificate-authority", folder)
    context = tls.create_default_context(cadata=authority.decode() if authority else None)
    context.verify_flags &= ~tls.VERIFY_X509_STRICT  # as Go: of Python 3.13, for newer authorities
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    certificate = _content(user, "client-certificate", folder)
    key = _content(user, "client-key", folder)
    if certificate and key:
        # The ssl module reads client certificates from files only.
        with tempfile.TemporaryDirectory() as place:
            pair = Path(place) / "client.pem"
            pair.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(pair)
    return context


def _content(owner: Body, name: str, folder: Path) -> bytes:
    if owner.get(f"{name}-data"):
        return base64.b64decode(owner[f"{name}-data"])
    return (folder / owner[name]).read_bytes() if owner.get(name) else b""
