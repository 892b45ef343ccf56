"""Runs schemathesis over the OpenAPI document of a running service.

Knows no test framework, so that a longer run can be made from elsewhere.
"""

import asyncio
import sys
from pathlib import Path

# Rules across fields (exactly one kind of score, names that match) are no matter of a JSON schema.
# A cancelled job can still be shown: its record is what is left of it.
NOT_CHECKED = "positive_data_acceptance,use_after_free"


async def fuzz(
    url: str, folder: Path, *, token: str = "", examples: int = 5, seed: int = 1
) -> tuple[int, str]:
    """Send generated requests to every route: no 5xx, no undocumented answer, no open door.

    `folder` is where schemathesis may write; `examples` bounds the requests per route and phase.
    Gives its exit code, 0 where nothing was found, and its report.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--no-color"]
    command += ["--request-timeout", "20", "--exclude-checks", NOT_CHECKED]
    command += ["--header", f"Authorization: Bearer {token}"] if token else []
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")
