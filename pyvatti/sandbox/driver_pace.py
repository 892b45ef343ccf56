"""How time passes for a simulated driver: in steps, so that a busy machine slows it down too."""

import asyncio
from collections.abc import Awaitable, Callable

STEPS = 200  # at most so many for one wait
SHORTEST_STEP = 0.005  # seconds
SLOWEST = 3.0
HEARTBEAT = 60.0  # seconds; Seqera's patience is not scaled either


async def passed(seconds: float, stop: asyncio.Event, beat: Callable[[], Awaitable[None]]) -> bool:
    """Wait, with a heartbeat a minute; False if it was told to stop before.

    A step that is late counts less than it took: where the loop has no time for whoever follows a
    run, the run takes longer as well, up to SLOWEST times.
    """
    loop = asyncio.get_running_loop()
    left, silent = seconds, 0.0
    step = min(max(left / STEPS, SHORTEST_STEP), HEARTBEAT)
    while left > 0:
        began = loop.time()
        try:
            async with asyncio.timeout(min(left, step)):
                await stop.wait()
            return False
        except TimeoutError:
            passed_now = max(step, (loop.time() - began) / SLOWEST)
            left, silent = left - passed_now, silent + passed_now
        if silent >= HEARTBEAT and left > 0:
            silent = 0.0
            await beat()
    return True
