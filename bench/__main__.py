"""`python -m bench`: measures, prints the table, exits with 1 if a limit is missed.

With PYVATTI_TEST_KUBECONFIG (and PYVATTI_TEST_CONTEXT, PYVATTI_TEST_IMAGE) on that cluster, in
namespaces of its own; otherwise on the sandbox. Seqera, storage and backend are the sandbox's.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from bench import accept, life, live
from bench.report import Figure, surroundings, table
from bench.site import api_server

Measurement = Callable[[], Awaitable[list[Figure]]]


async def run(*, quick: bool, only: str | None) -> int:
    """Make all measurements and print them; give the exit code."""
    measurements: dict[str, Measurement] = {
        "accept": lambda: accept.measure(6 if quick else 24),
        "live": lambda: live.measure(200 if quick else 1000, quick=quick),
        "life": lambda: life.measure(3 if quick else 10),
    }
    figures: list[Figure] = []
    for line in surroundings(await api_server()):
        print(line)
    for name, measure in measurements.items():
        if only in (None, name):
            began = time.monotonic()
            figures += await measure()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(f"\n{table(figures)}\n")
    print(
        "Ratios, counts, memory and CPU time hold on a busy machine too; seconds and rates do not."
    )
    return 0 if all(figure.is_met for figure in figures) else 1


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the service.")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds")
    parser.add_argument("--only", choices=("accept", "live", "life"), help="one measurement")
    given = parser.parse_args()
    sys.exit(asyncio.run(run(quick=given.quick, only=given.only)))


if __name__ == "__main__":
    main()
