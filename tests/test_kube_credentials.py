"""Where the client finds the API server, and how it keeps being let in."""

import base64
import ssl
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from kube_scripted import (
    NAMESPACE,
    Scripted,
    answer,
    client_for,
    failure,
    job,
    kubeconfig,
    read_watch,
    scripted,
    stream,
)

from pyvatti.errors import (
    ConfigurationError,
    Denied,
    Unavailable,
)
from pyvatti.kube import JOBS, KubeClient
from pyvatti.kube.credentials import Credentials
from pyvatti.kube.generated import ApiClient, ApiException
from pyvatti.settings import Settings

# Configuration and credentials


async def test_connect_takes_the_kubeconfig_of_the_settings(tmp_path: Path):
    async with Scripted(GET=[answer(job("a", 1))]) as server:
        settings = Settings.model_construct(
            kubeconfig=kubeconfig(server.url, tmp_path), namespace="other"
        )
        client = await KubeClient.connect(settings)
        await client.get(JOBS, "a")
        await client.close()

    assert server.requests[0].path == "/apis/batch/v1/namespaces/other/jobs/a"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no file"),
        pytest.param("", id="empty"),
        pytest.param("a: [", id="not YAML"),
        pytest.param("- 1", id="a list"),
        pytest.param("current-context: x\nusers: []\nclusters: []\ncontexts: []", id="no context"),
    ],
)
async def test_bad_kubeconfig_is_a_configuration_error(tmp_path: Path, content: str | None):
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError, match="KUBECONFIG"):
        await KubeClient.open(Credentials(str(path)), NAMESPACE)


async def test_missing_certificate_file_is_a_configuration_error(tmp_path: Path):
    path = kubeconfig("https://x", tmp_path, **{"certificate-authority": "/nowhere/ca.crt"})

    with pytest.raises(ConfigurationError, match="KUBECONFIG"):
        await KubeClient.open(Credentials(path), NAMESPACE)


async def test_outside_a_pod_the_service_account_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="service account"):
        await KubeClient.open(Credentials(environ={}), NAMESPACE)


async def test_netrc_entry_of_the_host_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with scripted(tmp_path, GET=[answer(job("a", 1))]) as (server, client):
        await client.get(JOBS, "a")

    assert server.requests[0].token == "t0"


@pytest.mark.parametrize(("direct", "asked"), [("", ["a"]), ("api.invalid", [])])
async def test_proxy_of_the_environment_is_used_unless_it_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: str, asked: list[str]
):
    async with Scripted(GET=[answer(job("a", 1))]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", direct)
        async with client_for("http://api.invalid", tmp_path) as client:
            with suppress(Unavailable):
                await client.get(JOBS, "a")

    assert [request.path.rpartition("/")[2] for request in proxy.requests] == asked


async def test_token_that_no_header_can_carry_is_our_error(tmp_path: Path):
    async with scripted(tmp_path, user={"token": "two\nlines"}, GET=[]) as (server, client):
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")

    assert server.requests == []


async def test_what_the_library_itself_raises_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(*_args: object, **_options: object) -> None:
        raise ApiException(status=503, reason="as later versions of the library do")

    async with scripted(tmp_path, GET=[]) as (_, client):
        monkeypatch.setattr(ApiClient, "call_api", refuse)
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")


async def test_certificates_of_older_clusters_are_taken(tmp_path: Path):
    """Python 3.13 refuses authorities without a key identifier, which Go and 3.12 take."""
    configuration = await Credentials(kubeconfig("https://x", tmp_path)).load()

    assert configuration.disable_strict_ssl_verification
    assert configuration.verify_ssl


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_server_is_verified_by_the_authority_of_the_kubeconfig(
    tmp_path: Path, authority: trustme.CA, tls: ssl.SSLContext
):
    ours = base64.b64encode(authority.cert_pem.bytes()).decode()
    other = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
    async with Scripted(tls=tls, GET=[answer(job("a", 1))]) as server:
        name = {"certificate-authority-data": ours}
        async with client_for(server.url, tmp_path, **name) as client:
            assert await client.get(JOBS, "a") == job("a", 1)
        name = {"certificate-authority-data": other}
        async with client_for(server.url, tmp_path, **name) as client:
            with pytest.raises(Unavailable):
                await client.get(JOBS, "a")


async def test_rotated_service_account_token_is_used_without_a_restart(
    tmp_path: Path, authority: trustme.CA, tls: ssl.SSLContext
):
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first\n")
    ca.write_bytes(authority.cert_pem.bytes())
    async with Scripted(tls=tls, GET=[answer(job("a", 1))]) as server:
        host, _, port = server.url.removeprefix("https://").partition(":")
        credentials = Credentials(
            refresh_seconds=0,
            token_filename=str(token),
            cert_filename=str(ca),
            environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
        )
        client = await KubeClient.open(credentials, NAMESPACE)
        await client.get(JOBS, "a")
        token.write_text("second")
        await client.get(JOBS, "a")
        token.unlink()
        await client.get(JOBS, "a")
        await client.close()

    assert [request.token for request in server.requests] == ["first", "second", "second"]


@pytest.mark.parametrize("operation", ["POST", "WATCH"])
async def test_refused_token_is_read_again_and_the_call_repeated_once(
    tmp_path: Path, operation: str
):
    token = tmp_path / "token"
    token.write_text("old")
    steps = [failure(401, "Unauthorized"), stream(b'{"kind": "Job"}')]
    steps[1] = stream() if operation == "WATCH" else answer(job("a", 1))
    user = {"tokenFile": str(token)}
    async with scripted(tmp_path, user=user, **{operation: steps}) as (server, client):
        token.write_text("new")
        await (read_watch(client) if operation == "WATCH" else client.create(JOBS, {}))

    assert [request.token for request in server.requests] == ["old", "new"]


async def test_refused_token_without_another_is_denied_at_once(tmp_path: Path):
    async with scripted(tmp_path, GET=[failure(401, "Unauthorized")]) as (server, client):
        with pytest.raises(Denied):
            await client.get(JOBS, "a")

    assert len(server.requests) == 1


async def test_exec_plugin_is_asked_again_only_when_its_token_ends(tmp_path: Path):
    count, plugin = tmp_path / "count", tmp_path / "plugin"
    ends = ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"]
    plugin.write_text(
        f"""#!/bin/sh
echo x >> {count}
n=$(wc -l < {count})
end={ends[1]}; [ "$n" = 1 ] && end={ends[0]}
echo '{{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",'
echo '"status": {{"token": "token-'$n'", "expirationTimestamp": "'$end'"}}}}'
"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    api = "client.authentication.k8s.io/v1"
    user = {"exec": {"apiVersion": api, "command": str(plugin), "interactiveMode": "Never"}}
    async with Scripted(GET=[answer(job("a", 1))]) as server:
        path = kubeconfig(server.url, tmp_path, user)
        client = await KubeClient.open(Credentials(path, refresh_seconds=0), NAMESPACE)
        for _ in range(3):
            await client.get(JOBS, "a")
        await client.close()

    assert [request.token for request in server.requests] == ["token-2"] * 3
    assert count.read_text().count("x") == 2
