"""A runtime for the tiny `sh -c` programs of tests: nothing is executed on this machine.

Not a shell: no pipes, no substitution, no subshells, no arithmetic. What it does know behaves as
busybox's sh does as process 1 of a container, signals included.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from pyvatti.sandbox.kube.kubelet_commands import PROGRAMS, Shell, ShellExit
from pyvatti.sandbox.kube.kubelet_runtime import CommandNotFound, ContainerSpec
from pyvatti.sandbox.kube.kubelet_syntax import ShellSyntaxError, parse

SHELLS = ("sh", "ash", "bash", "dash")
SYNTAX_ERROR = 2


class ShellRuntime:
    """Interprets `sh -c SCRIPT` and the few programs such scripts use.

    `speed` divides every sleep.
    """

    def __init__(self, *, speed: float = 1.0) -> None:
        self._speed = speed

    async def run(
        self,
        container: ContainerSpec,
        pod: dict[str, Any],  # noqa: ARG002 - part of the runtime protocol
        log: Callable[[str], None],
        stop: asyncio.Event,
    ) -> int:
        """Run one container; see `Runtime.run`."""
        argv = container.argv
        if not argv:
            return await _image_default(container.image, stop)
        shell = Shell(
            env=container.env, files=container.files, log=log, stop=stop, speed=self._speed
        )
        name = argv[0].rpartition("/")[2]
        if name in SHELLS:
            return await _script(shell, argv[1:], log)
        if name not in PROGRAMS:
            raise CommandNotFound(argv[0])
        return await shell.program([name, *argv[1:]])


async def _image_default(image: str, stop: asyncio.Event) -> int:
    # An image's own program is unknown: the pause image waits, a shell without a terminal ends.
    if "pause" in image:
        await stop.wait()
    return 0


async def _script(shell: Shell, arguments: list[str], log: Callable[[str], None]) -> int:
    options = [item for item in arguments if item.startswith("-")]
    if not any(re.fullmatch(r"-[a-z]*c", item) for item in options):
        return 0
    text = next((item for item in arguments if not item.startswith("-")), "")
    try:
        program = parse(text)
    except ShellSyntaxError as error:
        log(f"sh: syntax error: {error}")
        return SYNTAX_ERROR
    async with asyncio.TaskGroup() as group:
        shell.group = group
        try:
            code = await shell.run(program)
        except ShellExit as ended:
            code = ended.code
        shell.kill_background()
    return code
