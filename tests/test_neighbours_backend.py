"""The backend misbehaving: every cell of its part of docs/reliability.md, on the whole service."""

from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from neighbour_lines import run
from neighbour_stage import Neighbourhood
from neighbours import (
    Cell,
    Harm,
    answers,
    common,
    documented,
    line_is,
    name_is_unknown,
    names_of,
    others_go_on,
    outlive_all,
    tell,
)
from stage import JOB

from pyvatti.lifecycle.clock import utc_now
from pyvatti.sandbox.driver_plans import PLANS

BACKEND = "backend"
HOST = "backend.test"
LASTING: dict[str, Any] = {"moments": ("running",), "lasts": 0.8}


def asks_by_its_own_clock(on: Neighbourhood) -> Harm:
    """Ask for a second of patience as a date, by a clock that is an hour ahead."""
    there = utc_now() + timedelta(hours=1)
    headers = {
        "Date": format_datetime(there, usegmt=True),
        "Retry-After": format_datetime(there + timedelta(seconds=1), usegmt=True),
    }
    rule = on.world.backend.faults.add(
        "PATCH", ".*", "status", status=429, headers=headers, count=2
    )

    async def end() -> None:
        on.world.backend.faults.remove(rule)

    return Harm(lambda: rule.hits, end)


CELLS = common(BACKEND, method="PATCH", **LASTING) | {
    # a 200 is a 200 whatever it says, unless a login page says it
    "a page instead of an answer": Cell(fault=answers(BACKEND, "html", status=200), **LASTING),
    "404 of a gateway": Cell(
        fault=answers(BACKEND, "status", status=404, body="default backend - 404"), **LASTING
    ),
    "very slow answers": Cell(fault=answers(BACKEND, "slow", seconds=0.4), **LASTING),
    "an answer that is lost": Cell(fault=answers(BACKEND, "after"), **LASTING, repeats=True),
    "reset in mid-body": Cell(fault=answers(BACKEND, "reset_body"), **LASTING, repeats=True),
    "its clock 1 h ahead": Cell(fault=asks_by_its_own_clock, **LASTING),
    "DNS failure": Cell(
        fault=name_is_unknown(BACKEND, HOST),
        hosts={BACKEND: HOST},
        moments=("running",),
        lasts=0.5,
    ),
    "away for 10 minutes": Cell(
        fault=line_is(BACKEND, "refuse"),
        lasts=4.0,
        hits=0,
        plan=PLANS["match_rate_too_low"],
        state="Failed",
        moments=("created",),
    ),
}
del CELLS["an object that does not parse"]


@pytest.fixture(scope="module")
def outcomes(request):
    return run(outlive_all(request, CELLS))


@pytest.mark.parametrize("name", CELLS)
def test_a_job_outlives_the_backend(outcomes, name):
    tell(outcomes, name)


def test_other_jobs_go_on_while_calls_about_one_job_hang():
    run(others_go_on(answers(BACKEND, "hang", path=JOB), "running"))


def test_every_cell_of_the_document_is_tested():
    assert documented("Backend") == names_of(globals())
