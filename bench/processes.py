"""Child processes of the benchmark and what they use: CPU seconds and memory, as Linux counts them.

Nothing about what they do.
"""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import clock_gettime

import aiohttp

START_SECONDS = 60.0
STOP_SECONDS = 30.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")


def variables() -> Mapping[str, str]:
    """Give the environment of the benchmark itself."""
    return os.environ  # noqa: TID251 - a switch of the benchmark is no setting of the service


@asynccontextmanager
async def child(*arguments: str, log: Path, **environment: str) -> AsyncIterator[Process]:
    """Run `python ARGUMENTS` with this environment; its standard error goes to the log."""
    kept = {name: variables()[name] for name in PASSED_ON if name in variables()}
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments,
            stdin=PIPE, stdout=PIPE, stderr=errors, env=kept | environment, limit=2**24,
        )  # fmt: skip
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def line_of(process: Process, log: Path) -> bytes:
    """Give the next line a child prints."""
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS * 2):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process ended: {log.read_text(errors='replace')[-2000:]}")
    return line


class Service:
    """A running `pyvatti serve`."""

    def __init__(self, process: Process, url: str) -> None:
        self.pid = process.pid
        self.url = url

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far."""
        # Linux: the CPU-time clock of a process, see clock_getcpuclockid(3)
        return clock_gettime((~self.pid << 3) | 2)

    def memory(self, line: str = "VmRSS") -> float:
        """Resident memory in MiB; `VmHWM` is its highest so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return (
            next(int(row.split()[1]) for row in status.splitlines() if row.startswith(line)) / 1024
        )

    async def rest(self, seconds: float = 0.3, busy: float = 0.05, limit: float = 60.0) -> None:
        """Wait until it does hardly anything: less than a `busy` share of so many seconds."""
        async with asyncio.timeout(limit):
            while True:
                before = self.cpu_seconds
                await asyncio.sleep(seconds)
                if self.cpu_seconds - before < busy * seconds:
                    return


@asynccontextmanager
async def service(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Service]:
    """Run `pyvatti serve` and wait until it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "service.log"
    told = {"HOST": "127.0.0.1", "PORT": str(port)}
    async with child("-m", "pyvatti", "serve", log=log, **{**environment, **told}) as process:
        running = Service(process, f"http://127.0.0.1:{port}")
        await _ready(process, running.url, log)
        yield running


async def _ready(process: Process, url: str, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the service ended: {log.read_text(errors='replace')[-2000:]}")
