"""The service in a process that looks at its own CPU time: `python -m bench.passes JOBS ROUNDS`.

Settings come from the environment, as for `pyvatti serve`. Prints the CPU seconds of each round, in
which every job's actor is woken, observes, decides and comes to rest again, as one line of JSON.
"""

import argparse
import asyncio
import json
import time

from pyvatti.app import run_service
from pyvatti.lifecycle.cache import Cache
from pyvatti.settings import load_settings
from pyvatti.telemetry import configure_logging, metrics

REST = 0.5  # seconds in which nothing must happen
QUIET = 0.1  # share of a core that heartbeats and gauges may take meanwhile


async def main(jobs: int, rounds: int) -> None:
    """Wait for all jobs to be known and quiet, then make the rounds."""
    settings = load_settings()
    configure_logging(settings)
    async with run_service(settings) as service:
        cache = service.doors.cache
        await _until_quiet(jobs)
        seconds = [await _round(cache, jobs) for _ in range(rounds)]
        print(json.dumps(seconds), flush=True)


def _passes() -> float:
    samples = next(iter(metrics.passes.collect())).samples
    return next(item.value for item in samples if item.name.endswith("_total"))


async def _until_quiet(least: float) -> None:
    """Wait until so many passes were made, no further ones are, and threads have ended their work.

    What the first passes begin (look at the folder of each transfer in Cloud Storage) goes on in
    threads for seconds.
    """
    while True:
        passes, spent = _passes(), time.process_time()
        await asyncio.sleep(REST)
        if _passes() == passes >= least and time.process_time() - spent < QUIET * REST:
            return


async def _round(cache: Cache, jobs: int) -> float:
    """Tell every Job as if it had changed, as the informers do now and then."""
    before, began = _passes(), time.process_time()
    for raw in cache.job_informer.items():
        cache._job_changed(raw, raw)
    while _passes() < before + jobs:
        await asyncio.sleep(0)
    spent = time.process_time() - began
    await _until_quiet(0)
    return spent


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs", type=int)
    parser.add_argument("rounds", type=int)
    given = parser.parse_args()
    asyncio.run(main(given.jobs, given.rounds))
