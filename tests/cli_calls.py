"""Ways to run a command: in this process, in one of its own, until something happened."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patience import PATIENCE
from typer.testing import CliRunner

from pyvatti.cli import app


def invoke(*words: str, given: bytes | None = None, **environment: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    result = CliRunner(env=environment).invoke(app, list(words), input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


async def run(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command in a process of its own: exit code, standard output, standard error."""
    async with running(*words, **environment) as process, asyncio.timeout(PATIENCE):
        said, complained = await process.communicate()
    return process.returncode or 0, said.decode(), complained.decode()


@asynccontextmanager
async def running(
    *words: str, program: tuple[str, ...] = ("-m", "pyvatti"), **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command in a process of its own, which is ended at the latest with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, *words),
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
