"""When a deletion report is complete, how long results stay, when a person is needed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import NAMES, T0, at, job, seen, settings

from pyvatti.errors import (
    Conflict,
    Denied,
    NamespaceTerminating,
    NotOurs,
    Rejected,
    Unavailable,
    Undeletable,
)
from pyvatti.models import Record, Remainder, Removal, State, Verdict
from pyvatti.policy import Progress, is_stuck, judge, proof, retention
from pyvatti.policy import actions as act
from pyvatti.policy.retention import Fate
from pyvatti.storage.ownership import not_ours

WORK, RESULTS = f"bucket/{NAMES.work_bucket}", f"bucket/{NAMES.results_bucket}"
FOLDER = f"{WORK}/work/transfer"
CLUSTER = (f"secret/{NAMES.base}", f"secret/{NAMES.base}-transfer", f"pods/{NAMES.base}")
DAY = timedelta(days=1)
LIFE = retention.longest_life(settings())


def absent(*resources: str) -> tuple[Removal, ...]:
    return tuple(Removal(resource=name, proven_absent_at=at(9)) for name in resources)


def record(state: State = State.FAILED, **changes) -> Record:
    base = Record(
        version=1,
        job_id=NAMES.job_id,
        uid=NAMES.uid,
        state=state,
        accepted_at=T0,
        finished_at=at(5),
        removed_at=at(9),
        run_name=NAMES.run_name,
        removals=absent(*CLUSTER, FOLDER, WORK, RESULTS),
    )
    return replace(base, **changes)


def taken(resource: str, *, made: bool) -> tuple[Remainder, ...]:
    return (Remainder(resource=resource, reason="not ours", made=made),)


EVERYTHING = (*CLUSTER, FOLDER, WORK, RESULTS)


@pytest.mark.parametrize(
    ("said", "complete"),
    [
        pytest.param(record(), True, id="everything of a failure is seen to be gone"),
        pytest.param(
            record(State.SUCCEEDED, removals=absent(*CLUSTER, FOLDER, WORK)), True,
            id="a success keeps its results"),
        *(
            pytest.param(
                record(removals=absent(*(item for item in EVERYTHING if item != missing))), False,
                id=f"{missing.partition('/')[0]} never looked for: {missing[-12:]}")
            for missing in EVERYTHING
        ),
        *(
            pytest.param(
                record(removals=(
                    *absent(*(item for item in EVERYTHING if item != claimed)),
                    Removal(resource=claimed, removed_at=at(8)))), False,
                id=f"deleted, and nobody looked again: {claimed[-12:]}")
            for claimed in EVERYTHING
        ),
        pytest.param(
            record(removals=absent(*CLUSTER, RESULTS), remaining=taken(WORK, made=True)), False,
            id="the work bucket is not ours any more"),
        pytest.param(
            record(removals=absent(*EVERYTHING), remaining=taken("secret/x", made=True)), False,
            id="something else of it remains"),
        pytest.param(
            record(removals=absent(*CLUSTER, FOLDER, WORK), remaining=taken(RESULTS, made=False)),
            True, id="the results' name was never ours"),
        pytest.param(
            record(removals=absent(*CLUSTER, RESULTS), remaining=taken(WORK, made=False)), True,
            id="nor was the work bucket's, so neither its folder"),
        pytest.param(
            record(version=0, removals=absent(*CLUSTER, "bucket/old-name-work")), True,
            id="a record without version, of a bucket by an older name"),
        pytest.param(
            record(version=0, removals=(
                *absent(*CLUSTER), Removal(resource="bucket/old-name-work"))), False,
            id="the same, whose bucket was only said to be removed"),
        pytest.param(record(version=0, removals=()), False, id="the same, and it lists nothing"),
    ],
)  # fmt: skip
def test_a_report_is_complete_when_all_a_job_may_have_made_was_seen_to_be_gone(said, complete):
    assert proof.is_complete(said, NAMES) is complete


BUCKET_TAKEN = str(not_ours(NAMES.results_bucket, ["is in another project"]))
SECRET_TAKEN = f"Secret {NAMES.transfer_secret} belongs to somebody else: it says so"


def refusal(step: str, sentence: str) -> Verdict:
    """Give the verdict on a queued job whose step was refused so."""
    queued = seen(job(State.REQUESTED), progress=Progress(refusal=(f"{step}Refused", sentence)))
    verdict = judge(queued, at(1), settings())
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("verdict", "resource", "expected"),
    [
        pytest.param(None, RESULTS, False, id="nothing was refused"),
        pytest.param(refusal("MakeBucket", BUCKET_TAKEN), RESULTS, True, id="its name was taken"),
        pytest.param(refusal("MakeBucket", BUCKET_TAKEN), WORK, False, id="another name was"),
        pytest.param(refusal("MakeBucket", BUCKET_TAKEN), CLUSTER[1], False, id="no Secret's"),
        pytest.param(refusal("MakeBucket", f"create {NAMES.results_bucket}: 412"), RESULTS, False,
                     id="refused by a policy"),
        pytest.param(refusal("MakeTransferSecret", SECRET_TAKEN), CLUSTER[1], True,
                     id="its Secret's name was taken"),
        pytest.param(refusal("MakeTransferSecret", SECRET_TAKEN), CLUSTER[0], False,
                     id="not that of its request"),
        pytest.param(refusal("MakeTransferSecret", SECRET_TAKEN), RESULTS, False,
                     id="its buckets are made before"),
    ],
)  # fmt: skip
def test_only_a_refused_create_shows_that_a_name_was_never_ours(verdict, resource, expected):
    of = job(State.FAILED, verdict=verdict, started=False, suspended=True, transitions={})

    assert proof.was_never_made(of, resource) is expected


def test_of_one_resource_the_last_deletion_and_the_last_look_are_kept():
    counted = Removal(resource=WORK, removed_at=at(1), objects=5, bytes=9)
    looked = Removal(resource=WORK, proven_absent_at=at(3))
    again = Removal(resource=WORK, removed_at=at(7), objects=0, bytes=0, proven_absent_at=at(8))

    (once,) = proof.merged((counted,), looked)
    (twice,) = proof.merged((once,), again)

    assert once == replace(counted, proven_absent_at=at(3))
    assert twice == replace(counted, removed_at=at(7), proven_absent_at=at(8))


def test_the_work_bucket_takes_its_folder_along_and_the_results_bucket_does_not():
    work = Removal(resource=WORK, removed_at=at(1), objects=3, proven_absent_at=at(2))
    results = replace(work, resource=RESULTS)

    assert proof.with_folder(work, NAMES) == (
        work,
        Removal(resource=FOLDER, proven_absent_at=at(2)),
    )
    assert proof.with_folder(results, NAMES) == (results,)


KEPT = timedelta(days=14)
GOOD, BAD = record(State.SUCCEEDED), record(State.FAILED)
LATE = replace(GOOD, finished_at=T0 + 2 * DAY)


@pytest.mark.parametrize(
    ("said", "age", "changes", "fate"),
    [
        pytest.param(GOOD, KEPT, {}, Fate.KEEP, id="counted from the end, not from the bucket"),
        pytest.param(GOOD, KEPT + timedelta(seconds=5), {}, Fate.REMOVE, id="14 d after its end"),
        pytest.param(LATE, KEPT + DAY, {}, Fate.KEEP, id="a job that took two days"),
        pytest.param(
            replace(GOOD, finished_at=T0 - 400 * DAY), KEPT - DAY, {}, Fate.KEEP,
            id="a record that says it ended before its bucket was made"),
        pytest.param(
            GOOD, 3 * DAY, {"record_retention_seconds": 1}, Fate.KEEP, id="whatever its record's"),
        pytest.param(GOOD, 3 * DAY, {"results_retention": 86400}, Fate.REMOVE, id="kept for 1 d"),
        pytest.param(BAD, DAY, {}, Fate.REMOVE, id="results of a failure"),
        pytest.param(None, KEPT + DAY, {}, Fate.KEEP, id="no record: it may have ended late"),
        pytest.param(None, KEPT + LIFE, {}, Fate.REMOVE, id="no record, later than any end"),
        pytest.param(
            None, KEPT + LIFE - timedelta(seconds=1), {}, Fate.KEEP, id="no record, just before"),
        pytest.param(
            None, KEPT + LIFE, {"kueue_queue": "q"}, Fate.REMOVE_IF_EMPTY,
            id="no record, and Kueue may have kept it waiting"),
    ],
)  # fmt: skip
def test_results_outlive_their_record(said, age, changes, fate):
    found = retention.results_fate(T0, said, T0 + age, settings(**changes))

    assert found is fate


def test_a_bucket_of_unknown_age_stays_and_so_does_such_a_record():
    assert retention.results_fate(None, BAD, T0, settings()) is Fate.KEEP
    assert not retention.is_expired(None, T0 + 999 * DAY, settings())
    assert not retention.is_expired(T0, T0 + KEPT - timedelta(seconds=1), settings())
    assert retention.is_expired(T0, T0 + KEPT, settings())


@pytest.mark.parametrize(
    ("error", "failures", "stuck"),
    [
        pytest.param(Undeletable("hold"), 1, True, id="held fast"),
        pytest.param(NotOurs("taken"), 1, True, id="somebody else's record"),
        pytest.param(Rejected("422"), 1, True, id="refused"),
        pytest.param(NamespaceTerminating("gone"), 1, False, id="the namespace goes"),
        pytest.param(Unavailable("503"), 9, False, id="an outage"),
        pytest.param(Unavailable("503"), 10, True, id="an outage of minutes"),
        pytest.param(Denied("403"), 9, False, id="a 403 that may pass"),
        pytest.param(Denied("403"), 10, True, id="a 403 for ever"),
        pytest.param(Conflict("409"), 10, True, id="a conflict that never ends"),
    ],
)
def test_a_step_that_cannot_succeed_calls_a_person(error, failures, stuck):
    assert is_stuck(error, failures) is stuck


@pytest.mark.parametrize(
    ("step", "resource"),
    [
        (act.RemoveBucket(NAMES.work_bucket), WORK),
        (act.WriteRecord(), f"configmap/{NAMES.base}-record"),
        (act.LookAgain(CLUSTER[:1]), CLUSTER[0]),
        (act.RemoveStrays(), ", ".join(CLUSTER)),
        (act.StopJob(), f"job/{NAMES.base}"),
    ],
)
def test_each_step_of_a_clean_up_names_what_it_works_on(step, resource):
    assert proof.touched_by(step, NAMES) == resource


def test_what_is_not_ours_any_more_is_still_to_be_looked_for():
    names = (WORK, RESULTS)

    assert proof.unproven(names, (), taken(WORK, made=True)) == names
    assert proof.unproven(names, (), taken(WORK, made=False)) == (RESULTS,)
