"""One reading of the proxy variables and of further authorities, for every door to a neighbour."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from kube_scripted import NAMESPACE, job, kubeconfig
from neighbour_settings import NOTIFY_TOKEN, TOWER_TOKEN, settings_for
from storage_builders import build_settings

from pyvatti.app import check
from pyvatti.backend import Answer, Backend
from pyvatti.cli.jobs import _asking
from pyvatti.errors import ConfigurationError, Unavailable
from pyvatti.kube import JOBS, KubeClient
from pyvatti.kube.credentials import Credentials
from pyvatti.lifecycle.clock import utc_now
from pyvatti.models import Event, Notice
from pyvatti.seqera import Seqera
from pyvatti.storage import Patience, Storage
from pyvatti.ways import proxy_for

NAMED = "http://proxy.invalid:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


# The reading


@pytest.mark.parametrize(
    ("url", "exceptions", "direct"),
    [
        pytest.param("https://api.invalid:6443", "", False, id="proxy"),
        pytest.param("https://127.0.0.1", "", True, id="this machine by address"),
        pytest.param("https://127.8.8.8:6443", "", True, id="this machine by another address"),
        pytest.param("https://[::1]:6443", "", True, id="this machine by IPv6 address"),
        pytest.param("https://localhost:6443", "", True, id="this machine by name"),
        pytest.param("https://10.96.0.1", "a.org,10.96.0.0/12", True, id="network"),
        pytest.param("https://10.96.0.1:443", " 10.96.0.0/12 ", True, id="network in blanks"),
        pytest.param("https://10.96.0.1", "10.96.0.1", True, id="address"),
        pytest.param("https://[fd00::1]:443", "fd00::/8", True, id="IPv6 network"),
        pytest.param("https://[fd00::1]:443", "[fd00::1]", True, id="IPv6 address"),
        pytest.param("https://192.0.2.1", "10.96.0.0/12", False, id="another network"),
        pytest.param("https://api.invalid", "10.96.0.0/12,nonsense/x", False, id="no network"),
        pytest.param("https://api.invalid", "a.org,api.invalid", True, id="name"),
        pytest.param("https://api.invalid", ".invalid", True, id="domain"),
        pytest.param("https://api.invalid", "pi.invalid", False, id="end of a name"),
        pytest.param("https://api.invalid", "api.invalid:443", True, id="name and port"),
        pytest.param("https://api.invalid", "api.invalid:444", False, id="another port"),
        pytest.param("https://api.invalid", "a.org,*", True, id="everything"),
        pytest.param("http://api.invalid", "", True, id="no proxy for the scheme"),
        pytest.param("https://[api", "", True, id="no address at all"),
    ],
)
def test_exceptions_from_the_proxy_are_those_of_programs_in_go(
    monkeypatch: pytest.MonkeyPatch, url: str, exceptions: str, *, direct: bool
):
    monkeypatch.setenv("https_proxy", NAMED)
    monkeypatch.setenv("all_proxy", "http://all.invalid")
    monkeypatch.setenv("no_proxy", exceptions)

    assert proxy_for(url) == (None if direct else NAMED)


def test_a_proxy_without_scheme_is_one_of_http_and_others_are_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("https_proxy", "proxy.invalid:3128")
    assert proxy_for("https://api.invalid") == NAMED

    monkeypatch.setenv("https_proxy", "socks5://user:secret@proxy.invalid")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        proxy_for("https://api.invalid")
    assert "secret" not in str(caught.value)


# Every door, by a real proxy and real TLS

Ask = Callable[[str, Path, str], Awaitable[object]]


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:pass/word@proxy.invalid:3128",
        "http://us er:password@proxy.invalid:3128",
        "http://proxy.invalid:port",
        "http://[::1",
        "http://:3128",
    ],
)
def test_a_proxy_that_is_no_address_is_named_without_its_password(proxy, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(ConfigurationError) as caught:
        Seqera(settings_for(tower_api_url="https://api.invalid"))

    assert str(caught.value) == "HTTPS_PROXY: must be the address of an HTTP proxy"


async def ask_kubernetes(url: str, home: Path, authorities: str) -> object:
    credentials = Credentials(kubeconfig(url, home))
    client = await KubeClient.open(credentials, NAMESPACE, authorities=authorities)
    try:
        return await client.get(JOBS, "a")
    finally:
        await client.close()


async def ask_seqera(url: str, _home: Path, authorities: str) -> object:
    door = Seqera(settings_for(tower_api_url=url, allow_http=True, extra_ca_file=authorities))
    try:
        return await door.runs({"name": datetime(2026, 1, 1, tzinfo=UTC)})
    finally:
        await door.close()


async def ask_the_backend(url: str, _home: Path, authorities: str) -> object:
    settings = settings_for(notify_url=url, extra_ca_file=authorities)
    door = Backend(settings, clock=utc_now)
    reply = await door.tell("INTP1", "u", Notice(sequence=1, event=Event.SUCCEEDED, at=utc_now()))
    await door.close()
    if reply.answer is not Answer.DELIVERED:
        raise Unavailable(reply.text)
    return reply


async def ask_storage(url: str, _home: Path, authorities: str) -> object:
    settings = build_settings(storage_emulator_host=url, extra_ca_file=authorities)
    door = Storage(settings, patience=Patience(pauses=()))
    try:
        return await door.list_buckets("a")
    finally:
        await door.close()


async def ask_the_service(url: str, _home: Path, _authorities: str) -> object:
    def ask() -> object:
        with _asking(url, TOWER_TOKEN) as client:
            return client.get("/jobs").raise_for_status()

    return await asyncio.to_thread(ask)


NEIGHBOURS = [
    pytest.param(ask_kubernetes, id="kubernetes"),
    pytest.param(ask_seqera, id="seqera"),
    pytest.param(ask_the_backend, id="backend"),
    pytest.param(ask_storage, id="storage"),
]
DOORS = [*NEIGHBOURS, pytest.param(ask_the_service, id="command line")]


@asynccontextmanager
async def neighbour(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answer what each door asks; give the port."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/jobs/a"):
            return web.json_response(job("a", 1))
        token = {"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}
        return web.json_response({"workflows": [], "kind": "storage#buckets"} | token)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Pass everything on to one port; give the proxy's address and the heads it was asked with."""
    heads: list[str] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            heads.append(head.decode())
            if head.startswith(b"CONNECT"):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                back.write(head)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
        server.close()


@pytest.mark.parametrize("ask", DOORS)
@pytest.mark.parametrize(
    ("host", "exceptions", "proxied"),
    [
        pytest.param("neighbour.invalid", "10.0.0.0/8,other.invalid", True, id="proxy"),
        pytest.param("0.0.0.0", "10.0.0.0/8,0.0.0.0/8", False, id="network"),
        pytest.param("127.0.0.1", "", False, id="this machine"),
    ],
)
async def test_every_door_goes_by_the_proxy_unless_it_is_excepted(
    ask: Ask,
    host: str,
    exceptions: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    proxied: bool,
):
    async with neighbour() as port, proxy(port) as (address, heads):
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("NO_PROXY", exceptions)
        assert await ask(f"http://{host}:{port}", tmp_path, "") is not None

    assert [f"http://{host}:{port}/" in head for head in heads] == ([True] if proxied else [])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize("ask", NEIGHBOURS)
@pytest.mark.parametrize("by_proxy", [False, True], ids=["direct", "by a proxy"])
async def test_every_neighbour_may_be_certified_by_a_further_authority(
    ask: Ask,
    bundle: str,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by_proxy: bool,
):
    host = "neighbour.invalid" if by_proxy else "localhost"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    async with neighbour(tls) as port, proxy(port) as (address, heads):
        monkeypatch.setenv("HTTPS_PROXY", address)
        url = f"https://{host}:{port}"
        with pytest.raises(Unavailable):
            await ask(url, tmp_path, "")
        heads.clear()
        assert await ask(url, tmp_path, bundle) is not None

    assert [head.split()[:2] for head in heads] == (
        [["CONNECT", f"{host}:{port}"]] if by_proxy else []
    )
    assert not any(secret in head for head in heads for secret in (TOWER_TOKEN, NOTIFY_TOKEN))


async def test_tokens_of_google_are_fetched_by_the_same_way(
    bundle: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hosts = ["oauth2.googleapis.com", "storage.googleapis.com"]
    user = dict.fromkeys(("client_id", "client_secret", "refresh_token", "quota_project_id"), "x")
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"type": "authorized_user"} | user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(tls)
    async with neighbour(tls) as port, proxy(port) as (address, heads):
        monkeypatch.setenv("HTTPS_PROXY", address)
        assert await ask_storage("", tmp_path, bundle) == []

    assert [head.split()[1] for head in heads] == [f"{host}:443" for host in hosts]


async def test_a_certificate_for_another_name_is_not_taken_from_a_further_authority(
    bundle: str, authority: trustme.CA, tmp_path: Path
):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.invalid").configure_cert(tls)
    async with neighbour(tls) as port:
        for ask in (ask_kubernetes, ask_seqera, ask_the_backend, ask_storage):
            with pytest.raises(Unavailable):
                await ask(f"https://localhost:{port}", tmp_path, bundle)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("", "PEM form"), ("no certificate", "PEM form")],
    ids=["missing", "empty", "no certificate"],
)
async def test_a_bundle_that_cannot_be_used_ends_the_start(
    tmp_path: Path, content: str | None, reason: str
):
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    settings: Any = settings_for(
        extra_ca_file=str(path), kubeconfig=kubeconfig("https://localhost:1", tmp_path)
    )

    with pytest.raises(ConfigurationError, match=f"EXTRA_CA_FILE .*{reason}"):
        await check(settings)
