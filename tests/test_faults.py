"""docs/faults.md is complete and true: 49 faults, each held by tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(
    r"^\| (\d+) \| .+ \| (.*) \|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE
)


def test_all_49_faults_are_listed_in_order():
    assert [int(number) for number, _ in ROWS] == list(range(1, 50))


@pytest.mark.parametrize(("number", "named"), ROWS, ids=[f"fault {row[0]}" for row in ROWS])
def test_a_fault_is_held_by_tests_that_exist(number: str, named: str):
    tests = re.findall(r"`(\w+)::(\w+)`", named)

    assert tests, f"fault {number} is held by nothing"
    for module, name in tests:
        source = (ROOT / "tests" / f"{module}.py").read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{module}::{name}"
