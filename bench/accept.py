"""How fast launches are accepted, compared with the same two writes by a bare client."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from statistics import median, quantiles

import aiohttp
import orjson

from bench import helm
from bench.objects import launch, names_of, parsed
from bench.processes import service
from bench.report import Figure
from bench.site import Site, open_site
from pyvatti.manifests import Renderer

CLIENTS = 16
SLICE = 0.8  # seconds of one kind of client: short, so that both meet the same machine
WHAT = f"accept: POST /launch, {CLIENTS} clients, ÷ the same two writes by a bare client"
# All queued jobs hold a slot and wait for their bucket's turn: accepting is all there is to do.
WAITING = {"MAX_CONCURRENT_JOBS": "1000000", "BUCKET_INTERVAL": "86400"}
OWNER = "11111111-2222-3333-4444-555555555555"  # as long as any uid
Work = Callable[[int], Awaitable[None]]


async def measure(rounds: int) -> list[Figure]:
    """Alternate between the two kinds of clients; each round gives a ratio."""
    bare_rates, rates = [], []
    async with open_site() as site:
        async with service(site.folder, site.environment(**WAITING)) as running:
            numbers = count(1)
            for _ in range(rounds + 1):
                bare_rates.append(await _rate(_bare_client(site), numbers))
                async with aiohttp.ClientSession(running.url) as session:
                    rates.append(await _rate(_launcher(session), numbers))
                await running.rest()
        del bare_rates[0], rates[0]  # the first round warms up
        ratios = [own / bare for own, bare in zip(rates, bare_rates, strict=True)]
        note = f"{median(rates):.0f}/s ÷ {median(bare_rates):.0f}/s; {_spread(ratios)}"
        ratio = Figure(WHAT, median(ratios), limit=0.5, at_least=True, note=note)
        return [ratio, await helm.measure(site, median(rates))]


def _spread(ratios: Sequence[float]) -> str:
    low, _, high = quantiles(ratios, n=4)
    return f"median of {len(ratios)} rounds, half of them {low:.2f} to {high:.2f}"


async def _rate(work: Work, numbers: Iterator[int]) -> float:
    """Give how often a second the clients get the work done."""
    done = 0
    began = time.monotonic()

    async def client() -> None:
        nonlocal done
        while time.monotonic() < began + SLICE:
            await work(next(numbers))
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    return done / (time.monotonic() - began)


def _bare_client(site: Site) -> Work:
    """Write the Job and the Secret the service would write; bodies are ready but for names."""
    whose = replace(site.installation, instance="somebody")  # not the service's
    renderer, names = Renderer(site.settings()), names_of(0, site.namespace, OWNER)
    job = orjson.dumps(renderer.job(parsed(0), whose))
    secret = orjson.dumps(renderer.driver_secret(parsed(0), names, whose))
    jobs, secrets = site.path("batch/v1", "jobs"), site.path("v1", "secrets")
    upper, lower = names.job_id.encode(), names.base.encode()

    async def write(number: int) -> None:
        own = names_of(number, site.namespace, OWNER)

        def body(text: bytes) -> bytes:
            return text.replace(lower, own.base.encode()).replace(upper, own.job_id.encode())

        made = await site.send("POST", f"{jobs}?fieldValidation=Strict", body(job))
        owned = body(secret).replace(OWNER.encode(), made["metadata"]["uid"].encode())
        await site.send("POST", f"{secrets}?fieldValidation=Strict", owned)

    return write


def _launcher(session: aiohttp.ClientSession) -> Work:
    async def post(number: int) -> None:
        body = orjson.dumps(launch(number))
        headers = {"Content-Type": "application/json"}
        async with session.post("/launch", data=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 201:
                raise RuntimeError(f"POST /launch: {answer.status} {text}")

    return post
