"""Seqera misbehaving: every cell of its part of docs/reliability.md, on the whole service."""

import json
from datetime import timedelta
from typing import Any

import pytest
from neighbour_lines import run
from neighbour_stage import BYSTANDER, HASTY, Neighbourhood, neighbourhood
from neighbours import (
    Cell,
    Fault,
    Harm,
    answers,
    at_once,
    common,
    documented,
    line_is,
    name_is_unknown,
    names_of,
    outlive_all,
    tell,
)
from stage import JOB

from pyvatti.sandbox.driver_plans import PLANS, Plan

SEQERA = "seqera"
LIST = r"/workflow\?"
HOST = "seqera.test"
RUN = f"intervene-dev-{JOB.lower()}"
LASTING: dict[str, Any] = {"moments": ("running",), "lasts": 0.8}
FAILS = Plan(run_seconds=10.0, outcome=PLANS["match_rate_too_low"].outcome, exit_status=14)
STRANGE: tuple[Any, ...] = (
    None,
    7,
    {"workflow": None},
    {"workflow": {"runName": RUN, "status": ["?"], "submit": "yesterday"}},
    {"workflow": {"runName": RUN, "status": "ASLEEP", "submit": None}},
    {"workflow": {"runName": 7, "status": "FAILED", "submit": "2020-01-01T00:00:00Z"}},
)


def lists_nothing_new(on: Neighbourhood) -> Harm:
    """Let the list be one that was kept from before the run began."""
    body = json.dumps({"workflows": [], "totalSize": None, "hasMore": False})
    rule = on.world.seqera.faults.add("GET", LIST, "status", status=200, body=body)

    async def end() -> None:
        on.world.seqera.faults.remove(rule)

    return Harm(lambda: rule.hits, end)


def is_disorderly(on: Neighbourhood) -> None:
    """Give short pages in no order, rows twice, and one of the same name from long ago."""
    seqera = on.world.seqera
    seqera.order, seqera.page_size = "random", 7
    for number in range(20):
        seqera.put_run(f"other-{number % 10}", "FAILED")
    seqera.put_run(RUN, "FAILED", submit=seqera.runs.now - timedelta(days=20))


def is_strange(on: Neighbourhood) -> None:
    """List what nobody can read before what is true."""
    on.world.seqera.strange = list(STRANGE)


def its_clock_is(seconds: float) -> Fault:
    return at_once(lambda on: on.world.seqera.advance(seconds))


CELLS = common(SEQERA, method="GET", path=LIST, **LASTING) | {
    # on its line the driver would hang as well
    "hang": Cell(fault=answers(SEQERA, "hang", path=LIST), limits=HASTY, **LASTING),
    "very slow answers": Cell(fault=answers(SEQERA, "slow", path=LIST, seconds=0.4), **LASTING),
    "duplicate and reordered rows": Cell(fault=at_once(is_disorderly), moments=("before",)),
    "a stale list": Cell(fault=lists_nothing_new, **LASTING),
    "rows that do not parse": Cell(fault=at_once(is_strange), moments=("created",)),
    "its clock 1 h ahead": Cell(fault=its_clock_is(3600), moments=("before",)),
    "its clock 1 h behind": Cell(fault=its_clock_is(-3600), moments=("before",)),
    "DNS failure": Cell(
        fault=name_is_unknown(SEQERA, HOST), hosts={SEQERA: HOST}, moments=("running",), lasts=0.5
    ),
    "away for 10 minutes": Cell(
        fault=line_is(SEQERA, "refuse"), lasts=4.0, hits=0, plan=FAILS, state="Failed"
    ),
}


@pytest.fixture(scope="module")
def outcomes(request):
    return run(outlive_all(request, CELLS))


@pytest.mark.parametrize("name", CELLS)
def test_a_job_outlives_seqera(outcomes, name):
    tell(outcomes, name)


def test_jobs_come_to_their_end_while_seqera_hangs():
    run(_end_without_seqera())


async def _end_without_seqera() -> None:
    """A driver that ends is judged by the cluster once the grace is over."""
    async with neighbourhood(limits=HASTY) as on:
        on.world.seqera.faults.add("GET", LIST, "hang")
        await on.launch()
        await on.launch(BYSTANDER)
        await on.ends_well(JOB, BYSTANDER)
        assert (await on.show())["verdict"]["reason"] == "SucceededUnconfirmed"


def test_every_cell_of_the_document_is_tested():
    assert documented("Seqera") == names_of(globals())
