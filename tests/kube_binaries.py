"""A bare control plane for tests: etcd and kube-apiserver from a folder of binaries."""

import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kube_access import Access

START_SECONDS = 90
TOKEN = "test-token"


@contextmanager
def run_binaries(variables: Mapping[str, str]) -> Iterator[Access]:
    """Run an API server on loopback until the context ends; no controllers, no kubelet."""
    assets = Path(variables.get("KUBEBUILDER_ASSETS", ""))
    etcd = variables.get("TEST_ASSET_ETCD") or str(assets / "etcd")
    apiserver = variables.get("TEST_ASSET_KUBE_APISERVER") or str(assets / "kube-apiserver")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        client, peer, secure = (_free_port() for _ in range(3))
        _start(stack, folder / "etcd.log", _etcd_command(etcd, folder, client, peer))
        authority = _write_files(folder)
        _start(stack, folder / "api.log", _api_command(apiserver, folder, client, secure))
        access = _access(authority, secure)
        _await_ready(access, folder / "api.log")
        yield access


def _etcd_command(program: str, folder: Path, client: int, peer: int) -> list[str]:
    return [
        program,
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    ]


def _api_command(program: str, folder: Path, client: int, secure: int) -> list[str]:
    return [
        program,
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--tls-cert-file={folder / 'server.pem'}",
        f"--tls-private-key-file={folder / 'server.pem'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://localhost",
        f"--service-account-key-file={folder / 'accounts.pem'}",
        f"--service-account-signing-key-file={folder / 'accounts.pem'}",
        "--disable-admission-plugins=ServiceAccount",
    ]


def _write_files(folder: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "accounts.pem").write_bytes(key)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n', encoding="utf-8")
    return authority


def _access(authority: trustme.CA, port: int) -> Access:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return Access(f"https://127.0.0.1:{port}", headers, context, context)


def _start(stack: ExitStack, log: Path, command: list[str]) -> None:
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

    stack.callback(stop)


def _await_ready(access: Access, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = access.call("GET", "/api/v1/namespaces/default")
            if answer.get("kind") == "Namespace":
                return
        except (urllib.error.URLError, OSError, ValueError):
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the API server did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
