"""A proxy in front of an API server that counts what passes: no API server tells who wrote what."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import yaml
from aiohttp import web
from yarl import URL

from bench.site import Site

ASKED = ("Content-Type", "Accept", "User-Agent")
ANSWERED = ("Content-Type", "Retry-After", "Warning")
BODY_LIMIT = 4 * 2**20
FOR_EVER = aiohttp.ClientTimeout(total=None)


class CountingProxy:
    """Passes everything on. Counts by the name of the job: what was written, refused, told."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.writes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as the API server does, piece by piece."""
        body = await request.read()
        async with self._site.session.request(
            request.method,
            URL(self._site.access.url + request.raw_path, encoded=True),
            data=body or None,
            headers={name: request.headers[name] for name in ASKED if name in request.headers},
            timeout=FOR_EVER,
        ) as answer:
            headers = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
            if request.method != "GET":
                self._count(request, body, answer.status)
            passed = web.StreamResponse(status=answer.status, headers=headers)
            await passed.prepare(request)
            async for chunk in answer.content.iter_any():
                await passed.write(chunk)
        return passed

    def _count(self, request: web.Request, body: bytes, status: int) -> None:
        place = request.path.rpartition(f"/namespaces/{self._site.namespace}/")[2]
        kind, _, name = place.partition("/")
        if kind in ("jobs", "pods", "secrets", "configmaps"):
            counter = self.writes if status < 300 else self.refused
            counter[(name or _name_in(body))[:15]] += 1
        elif kind == "events":
            self.events[_name_in(body)[:15]] += 1


def _name_in(body: bytes) -> str:
    metadata: dict[str, Any] = orjson.loads(body)["metadata"]
    return str(metadata.get("name") or metadata.get("generateName"))


@asynccontextmanager
async def counted(site: Site) -> AsyncIterator[CountingProxy]:
    """Put the proxy into the kubeconfig of the site's services."""
    proxy = CountingProxy(site)
    application = web.Application(client_max_size=BODY_LIMIT)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        (site.folder / "kubeconfig").write_text(_kubeconfig(url))
        yield proxy
    finally:
        await runner.cleanup()


def _kubeconfig(url: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "clusters": [{"name": "proxy", "cluster": {"server": url}}],
            "users": [{"name": "nobody", "user": {}}],
        }
    )
