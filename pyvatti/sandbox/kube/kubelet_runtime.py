"""What a container is to its runtime, and what a runtime answers.

No pods and no store: the kubelet resolves both into a ContainerSpec first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

TERMINATION_LOG = "/dev/termination-log"
SIGKILLED = 137
SIGTERMED = 143


class CommandNotFound(Exception):
    """The container's program is not in its image."""


class OutOfMemory(Exception):
    """The kernel killed the container; `code` is 0 when only a child died."""

    def __init__(self, code: int = SIGKILLED) -> None:
        super().__init__(f"out of memory, exit {code}")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container, everything resolved.

    files: path -> content of every mounted volume; the container may add and change files, and
    what it writes to `/dev/termination-log` is its termination message.
    """

    name: str
    image: str
    command: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    init: bool = False

    @property
    def argv(self) -> list[str]:
        """The command with its arguments."""
        return [*self.command, *self.args]


class Runtime(Protocol):
    """Runs one container until it ends."""

    async def run(
        self,
        container: ContainerSpec,
        pod: dict[str, Any],
        log: Callable[[str], None],
        stop: asyncio.Event,
    ) -> int:
        """Give the exit code. `log` takes one line; `stop` is SIGTERM, cancellation SIGKILL.

        Raises CommandNotFound and OutOfMemory.
        """
