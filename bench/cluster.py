"""The sandbox's API server as a process of its own: prints a kubeconfig as one line of JSON.

Run as `python -m bench.cluster`; ends with SIGTERM or when its standard input is closed.
"""

import argparse
import asyncio
import gc
import json
import sys
from contextlib import AsyncExitStack

from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.jobcontroller import JobController
from pyvatti.sandbox.kube.kubelet import Kubelet

SPEED = 10.0  # of the sandbox's controllers and containers


async def serve(*, controllers: bool) -> None:
    """Run the API server, with Job controller and kubelet if asked, until nobody wants it."""
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeStandIn(speed=SPEED))
        if controllers:
            await stack.enter_async_context(JobController(kube.store, speed=SPEED))
            await stack.enter_async_context(Kubelet(kube.store, kube.logs, speed=SPEED))
        print(json.dumps(kube.kubeconfig()), flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--controllers", action="store_true")
    gc.disable()  # a full collection stops the stand-in for longer than a round of a measurement
    asyncio.run(serve(controllers=parser.parse_args().controllers))
