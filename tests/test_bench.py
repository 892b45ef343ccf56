"""The programs beside the service start from the project's root, with nothing else on the path."""

import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", ["bench.__main__", "chaos.__main__"])
def test_program_starts(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )

    assert (done.returncode, done.stderr) == (0, "")
