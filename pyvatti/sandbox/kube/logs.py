"""What the containers of the stand-in's pods print: kept per container, streamed to followers.

No HTTP; the kubelet appends, the API server reads.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime

LIMIT_BYTES = 1 << 20


class _ContainerLog:
    """The lines of one container, oldest dropped beyond 1 MiB (a node rotates at 10 MiB)."""

    def __init__(self) -> None:
        self.lines: deque[tuple[datetime, bytes]] = deque()
        self.dropped = 0
        self.size = 0
        self.ended = False
        self.changed = asyncio.Event()

    def append(self, line: bytes, moment: datetime) -> None:
        self.lines.append((moment, line))
        self.size += len(line)
        while self.size > LIMIT_BYTES and len(self.lines) > 1:
            self.size -= len(self.lines.popleft()[1])
            self.dropped += 1
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class PodLogs:
    """All container logs, by pod uid and container name."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, str], _ContainerLog] = {}

    def append(
        self, pod_uid: str, container: str, text: str, moment: datetime | None = None
    ) -> None:
        """Add output; every line becomes one line of the log."""
        log = self._logs.setdefault((pod_uid, container), _ContainerLog())
        for line in text.splitlines():
            log.append(line.encode() + b"\n", moment or datetime.now(UTC))

    def end(self, pod_uid: str, container: str) -> None:
        """Note that the container prints no more: followers are let go."""
        log = self._logs.setdefault((pod_uid, container), _ContainerLog())
        log.ended = True
        log.wake()

    def forget(self, pod_uid: str) -> None:
        """Drop the logs of a pod that is gone; followers are let go."""
        for key in [key for key in self._logs if key[0] == pod_uid]:
            self.end(*key)
            del self._logs[key]

    def text(self, pod_uid: str, container: str) -> str:
        """Give everything kept of one container."""
        log = self._logs.get((pod_uid, container))
        return b"".join(line for _, line in log.lines).decode() if log else ""

    async def stream(
        self,
        pod_uid: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        timestamps: bool = False,
        since: datetime | None = None,
    ) -> AsyncIterator[bytes]:
        """Give the lines, with `follow` until the container has ended."""
        log = self._logs.setdefault((pod_uid, container), _ContainerLog())
        kept = len(log.lines)
        position = log.dropped + (0 if tail_lines is None else max(kept - tail_lines, 0))
        while True:
            waiter = log.changed
            start = max(position - log.dropped, 0)
            position = log.dropped + len(log.lines)
            chunk = [
                _stamp(moment, line) if timestamps else line
                for moment, line in list(log.lines)[start:]
                if since is None or moment >= since
            ]
            if chunk:
                yield b"".join(chunk)
            if log.dropped + len(log.lines) > position:
                continue
            if not follow or log.ended:
                return
            await waiter.wait()


def _stamp(moment: datetime, line: bytes) -> bytes:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line
