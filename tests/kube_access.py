"""How tests reach an API server: address, TLS and credentials, as a kubeconfig gives them."""

import base64
import ssl as tls
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
        request = urllib.request.Request(  # noqa: S310 - the cluster under test
            self.url + path,
            method=method,
            headers={**self.headers, "Content-Type": "application/json"},
            data=None if body is None else orjson.dumps(body),
        )
        try:
            with urllib.request.urlopen(request, context=self.ssl, timeout=30) as answer:  # noqa: S310 - the same
                given: Body = orjson.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                given = orjson.loads(exc.read())
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
    """Read a kubeconfig's context (default: the current one): certificates, token or password."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = _named(config["contexts"], context or config["current-context"])["context"]
    cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
    user = _named(config["users"], chosen["user"])["user"]
    url, folder = cluster["server"].rstrip("/"), path.parent
    tls = bare = None
    if url.startswith("https"):
        tls, bare = _tls(cluster, user, folder), _tls(cluster, {}, folder)
    return Access(url, _headers(user, folder), tls, bare, path)


def _named(items: list[Body], name: str) -> Body:
    return next(item for item in items if item["name"] == name)


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
