"""What is done next, in which order; and that everything comes to its end."""

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import NAMES, T0, at, ended, job, pod, run, running, seen, settings
from hypothesis import given
from hypothesis import strategies as st

from pyvatti.jobs import add_notice
from pyvatti.labels import FINALIZER, FOREGROUND, INIT_CONTAINER
from pyvatti.models import (
    Attempt,
    Delivery,
    Event,
    Job,
    Notice,
    Pod,
    Presence,
    Remainder,
    Removal,
    RunStatus,
    State,
    Verdict,
)
from pyvatti.policy import (
    Observed,
    Progress,
    Slots,
    admit,
    decide,
    is_data_gone,
    proof,
    waiting_for,
    wake_times,
)
from pyvatti.policy import actions as act

SETTINGS = settings()
KUEUE = settings(kueue_queue="genomes")
WORK, RESULTS = NAMES.work_bucket, NAMES.results_bucket
BOTH = frozenset({WORK, RESULTS})
ACCEPTED = Progress(accepted=True)
QUEUED = job(State.REQUESTED, transitions={})
MARKED = job(State.REQUESTED, transitions={State.REQUESTED: T0})
FAILED = Verdict(state=State.FAILED, reason="Cancelled", message="m", trace_name="m", trace_exit=1)
SUCCESS = Verdict(state=State.SUCCEEDED, reason="RunSucceeded", message="done")
TOLD = (Notice(sequence=1, event=Event.FAILED, at=T0, delivery=Delivery.DELIVERED),)
UNTOLD = (Notice(sequence=1, event=Event.FAILED, at=T0),)
STOPPED = Progress(accepted=True, stop_sent=True, transfer_gone=True)
CLEAN = replace(STOPPED, strays_gone=True)


CLUSTER = proof.cluster_resources(NAMES)
HELD = pod(phase="Succeeded", deleting=True, finalizers=("example.com/hold",))
HELD_JOB = (FOREGROUND, FINALIZER)


def absent(*resources: str) -> tuple[Removal, ...]:
    return tuple(Removal(resource=name, removed_at=T0, proven_absent_at=T0) for name in resources)


def gone(*names: str) -> Progress:
    return replace(CLEAN, removals=absent(*(f"bucket/{name}" for name in names)))


def proven(*names: str) -> Progress:
    done = gone(*names)
    return replace(done, removals=(*done.removals, *absent(*CLUSTER)))


def left(resource: str, *, made: bool = True) -> Remainder:
    return Remainder(resource=resource, reason="its labels are not this job's", made=made)


def over(verdict: Verdict = FAILED, **changes) -> Job:
    base = {"verdict": verdict, "outbox": TOLD, "deleting_since": T0, "suspended": False}
    return job(verdict.state, **(base | changes))


ROWS = [
    ("an accept under way is left alone",
     seen(QUEUED, progress=Progress()), 5, []),
    ("an accept never completed is withdrawn after its grace",
     seen(QUEUED, progress=Progress()), 600, [act.Withdraw()]),
    ("a withdrawal that was cut off is finished",
     seen(replace(QUEUED, withdrawn=True, finalizers=())), 1, [act.Withdraw()]),
    ("nothing else happens to a Job whose withdrawal began",
     seen(replace(QUEUED, withdrawn=True), secret_stands=True, has_slot=True,
          run=run(RunStatus.SUCCEEDED)), 1, [act.Withdraw()]),
    ("nor when it is deleted meanwhile",
     seen(replace(QUEUED, withdrawn=True, deleting_since=T0)), 1, [act.Withdraw()]),
    ("a withdrawn Job that was let go is left to the cluster",
     seen(replace(QUEUED, withdrawn=True, deleting_since=T0, finalizers=())), 1, []),
    ("no run makes a Job that was not accepted succeed",
     seen(QUEUED, run=run(RunStatus.SUCCEEDED), has_slot=True, progress=Progress()), 5, []),
    ("nor does its release by somebody else make it one of ours",
     seen(replace(QUEUED, suspended=False), running(), progress=Progress()), 5, []),
    ("nor is a finalizer put back that it lost",
     seen(replace(QUEUED, finalizers=()), progress=Progress()), 5, []),
    ("a Job deleted before it was accepted goes silently",
     seen(replace(QUEUED, deleting_since=T0), progress=Progress()), 1, [act.Withdraw()]),
    ("one deleted after it was accepted is told",
     seen(replace(QUEUED, deleting_since=T0), secret_stands=True, progress=Progress()), 1,
     ["Cancelled"]),
    ("a job that left our sight is looked for before anything else",
     seen(replace(over(), presence=Presence.UNSEEN), progress=CLEAN), 1, [act.FindJob()]),
    ("a queued job without slot is marked as accepted once",
     seen(QUEUED, secret_stands=True), 1, [act.MarkQueued()]),
    ("a marked job without slot waits however long",
     seen(MARKED), 10**7, []),
    ("nor is a bucket made before it is marked",
     seen(QUEUED, secret_stands=True, has_slot=True), 1, [act.MarkQueued()]),
    ("a job with a slot gets buckets, credentials and its release, in this order",
     seen(MARKED, secret_stands=True, has_slot=True), 1,
     [act.MakeBucket(WORK), act.MakeBucket(RESULTS), act.MakeTransferSecret(), act.Release()]),
    ("buckets that are made are not made again",
     seen(MARKED, secret_stands=True, has_slot=True, progress=replace(ACCEPTED, buckets=BOTH)), 1,
     [act.MakeTransferSecret(), act.Release()]),
    ("a request that somebody deleted fails the job",
     seen(MARKED, has_slot=True), 1, ["RequestLost"]),
    ("a request deleted before the mark was written fails the job all the same",
     seen(QUEUED, has_slot=True), 1, ["RequestLost"]),
    ("a Job somebody released by hand is Created",
     seen(replace(MARKED, suspended=False)), 1, [act.NoteCreated()]),
    ("an image pull under way needs nothing",
     seen(job(), pod(), progress=replace(ACCEPTED, transfer_made=True)), 1, []),
    ("the transfer's credentials go when the main container runs",
     seen(job(), running(), run=run(RunStatus.SUBMITTED)), 1,
     [act.DeleteTransferSecret(), act.RemoveStagedFiles()]),
    ("so do the copies that the transfer left in the work bucket",
     seen(job(), running(), progress=replace(ACCEPTED, transfer_gone=True)), 1,
     [act.RemoveStagedFiles()]),
    ("both go only once",
     seen(job(), running(), progress=replace(ACCEPTED, transfer_gone=True, staged_gone=True)), 1,
     []),
    ("a transfer that ended well keeps them until the main container runs",
     seen(job(), pod(init_end=ended(INIT_CONTAINER, 0))), 1, []),
    ("an ended driver makes Seqera be asked at once",
     seen(job(State.DEPLOYED), running(main_running=False, main_end=ended(finished_at=at(9))),
          asked_at=T0), 9,
     [act.DeleteTransferSecret(), act.AskSeqera()]),
    ("what an ended driver said is kept",
     seen(job(State.DEPLOYED), running(main_running=False, main_end=ended(code=1)),
          progress=STOPPED), 1,
     [act.KeepWitness(running(main_running=False, main_end=ended(code=1)))]),
    ("a finished driver without Seqera's word: somebody looks for the report",
     seen(job(State.DEPLOYED, witness=running(main_end=ended())),
          running(main_running=False, main_end=ended()), progress=STOPPED), 300,
     [act.LookForReport()]),
    ("an edited state label is put back",
     seen(job(label="Nonsense")), 1, [act.Repair()]),
    ("a finalizer that was removed is put back",
     seen(job(finalizers=())), 1, [act.Repair()]),
    ("a Job let go while it is deleted is left alone",
     seen(over(finalizers=())), 1, []),
    ("a terminal job is stopped",
     seen(over(deleting_since=None)), 1, [act.StopJob()]),
    ("a run that succeeded lets its driver end by itself",
     seen(over(SUCCESS, deleting_since=None), running(),
          progress=replace(ACCEPTED, transfer_gone=True)), 599, []),
    ("a driver that hangs after its run's end is stopped",
     seen(over(SUCCESS, deleting_since=None), running(),
          progress=replace(ACCEPTED, transfer_gone=True)), 600, [act.StopJob()]),
    ("a cancelled driver is stopped at once",
     seen(over(FAILED, deleting_since=None), running()), 1, [act.StopJob()]),
    ("kubectl's Background deletion is followed by a Foreground one",
     seen(over(), running()), 1, [act.StopJob()]),
    ("nothing is removed while the garbage collector still works",
     seen(over(finalizers=(FOREGROUND, FINALIZER)), running(), progress=STOPPED), 1, []),
    ("a foreign finalizer does not hold up the clean-up",
     seen(over(finalizers=("other.example.org/x", FINALIZER)), progress=CLEAN), 1,
     [act.RemoveBucket(WORK)]),
    ("orphans are looked for before any bucket",
     seen(over(), progress=STOPPED), 1, [act.RemoveStrays()]),
    ("no bucket is touched while a pod may write",
     seen(over(), running(), progress=CLEAN), 1, []),
    ("work goes first",
     seen(over(), progress=CLEAN), 1, [act.RemoveBucket(WORK)]),
    ("after a failure the results go too",
     seen(over(), progress=gone(WORK)), 1, [act.RemoveBucket(RESULTS)]),
    ("a bucket whose absence no read has shown is removed again",
     seen(over(), progress=replace(CLEAN, removals=(
         Removal(resource=f"bucket/{WORK}", removed_at=T0),))), 1, [act.RemoveBucket(WORK)]),
    ("a bucket that it fails at does not hold up the other",
     seen(over(), progress=replace(CLEAN, stuck=(left(f"bucket/{WORK}"),))), 1,
     [act.RemoveBucket(RESULTS)]),
    ("of two that it fails at, the one tried last comes last",
     seen(over(), progress=replace(CLEAN, stuck=(left(f"bucket/{RESULTS}"),
                                                 left(f"bucket/{WORK}")))), 1,
     [act.RemoveBucket(RESULTS)]),
    ("what it fails at is tried until it is gone",
     seen(over(), progress=replace(gone(RESULTS), stuck=(left(f"bucket/{WORK}"),))), 1,
     [act.RemoveBucket(WORK)]),
    ("a bucket that is not ours any more is left, and said",
     seen(over(), progress=replace(CLEAN, remaining=(left(f"bucket/{WORK}"),))), 1,
     [act.RemoveBucket(RESULTS)]),
    ("after a success the results stay",
     seen(over(SUCCESS), progress=gone(WORK)), 1, [act.LookAgain(CLUSTER)]),
    ("Secrets and pods are looked for again after all else",
     seen(over(), progress=gone(WORK, RESULTS)), 1, [act.LookAgain(CLUSTER)]),
    ("a Secret that is not ours is not looked for for ever",
     seen(over(), progress=replace(gone(WORK, RESULTS), remaining=(left(CLUSTER[0]),))), 1,
     [act.LookAgain(CLUSTER[1:])]),
    ("once all is seen to be gone the record is written",
     seen(over(SUCCESS), progress=proven(WORK)), 1, [act.WriteRecord(), act.LetGo()]),
    ("clean-up does not wait for the backend",
     seen(over(outbox=UNTOLD), progress=gone(WORK, RESULTS)), 1, [act.LookAgain(CLUSTER)]),
    ("the record does",
     seen(over(outbox=UNTOLD), progress=proven(WORK, RESULTS)), 1, []),
    ("a record that is written is not written again",
     seen(over(), progress=replace(proven(WORK, RESULTS), recorded=True, recorded_outbox=TOLD)), 1,
     [act.LetGo()]),
    ("unless an event was settled since",
     seen(over(), progress=replace(proven(WORK, RESULTS), recorded=True, recorded_outbox=UNTOLD)),
     1, [act.WriteRecord(), act.LetGo()]),
    ("an ended pod that a finalizer holds keeps no data, whatever the garbage collector does",
     seen(over(finalizers=HELD_JOB), HELD, progress=CLEAN), 1, [act.RemoveBucket(WORK)]),
    ("nor credentials",
     seen(over(finalizers=HELD_JOB), HELD, progress=STOPPED), 1, [act.RemoveStrays()]),
    ("its Secrets are looked for though the pod object is there",
     seen(over(finalizers=HELD_JOB), HELD, progress=gone(WORK, RESULTS)), 1,
     [act.LookAgain(CLUSTER[:2])]),
    ("only letting go waits for the pod object",
     seen(over(finalizers=HELD_JOB), HELD, progress=replace(
         gone(WORK, RESULTS), removals=absent(f"bucket/{WORK}", f"bucket/{RESULTS}",
                                              *CLUSTER[:2]))), 1, []),
    ("a job that never had a pod waits for no garbage collector",
     seen(over(finalizers=HELD_JOB), progress=STOPPED), 1, [act.RemoveStrays()]),
    ("an outbox that an operator broke gets its event back",
     seen(over(outbox=())), 1, ["Cancelled"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "seconds", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_next_steps(observed: Observed, seconds: float, expected: list[act.Action | str]):
    steps = decide(observed, at(seconds), SETTINGS)

    named = [step.verdict.reason if isinstance(step, act.Enter) else step for step in steps]
    assert named == expected


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(seen(over(), progress=proven(WORK, RESULTS)), True, id="all seen to be gone"),
        pytest.param(seen(over(SUCCESS), progress=proven(WORK)), True, id="results may stay"),
        pytest.param(seen(over(), progress=proven(WORK)), False, id="a bucket is left"),
        pytest.param(seen(over(), progress=gone(WORK, RESULTS)), False, id="Secrets unseen"),
        pytest.param(
            seen(over(), HELD, progress=replace(gone(WORK, RESULTS), removals=absent(
                f"bucket/{WORK}", f"bucket/{RESULTS}", *CLUSTER[:2]))),
            True, id="a pod object holds no data"),
        pytest.param(
            seen(over(), running(), progress=proven(WORK, RESULTS)), False, id="a pod may write"),
        pytest.param(
            seen(over(), progress=replace(
                proven(RESULTS), remaining=(left(f"bucket/{WORK}"),))),
            False, id="a bucket is not ours any more"),
        pytest.param(
            seen(over(), progress=replace(
                proven(WORK), remaining=(left(f"bucket/{RESULTS}", made=False),))),
            True, id="a bucket was never ours"),
        pytest.param(
            seen(over(), progress=replace(proven(WORK, RESULTS), strays_gone=False)), False,
            id="nobody asked the API server for pods"),
    ],
)  # fmt: skip
def test_data_is_gone_when_everything_was_seen_to_be_gone(observed, expected):
    assert is_data_gone(observed) is expected


@pytest.mark.parametrize(
    ("observed", "on", "words"),
    [
        pytest.param(seen(over(), running()), "pods", "", id="a pod that may write"),
        pytest.param(
            seen(over(), HELD, progress=replace(CLEAN, stuck=(left(f"bucket/{WORK}"),))),
            "clean-up stuck", f"bucket/{WORK}: its labels", id="what it fails at"),
        pytest.param(seen(over(), HELD), "pod finalizer",
                     f"pod {HELD.name} has ended, held by example.com/hold", id="held pod"),
        pytest.param(seen(over(outbox=UNTOLD)), "backend", "", id="the backend"),
        pytest.param(seen(over()), "clean-up", "", id="work"),
    ],
)  # fmt: skip
def test_what_a_clean_up_waits_for_is_named(observed: Observed, on: str, words: str):
    waiting = waiting_for(observed)

    assert waiting is not None
    assert waiting.on == on
    assert words in waiting.message


def test_with_kueue_a_prepared_job_is_enqueued_and_never_released_by_us():
    ready = replace(ACCEPTED, buckets=BOTH)
    observed = seen(MARKED, secret_stands=True, has_slot=True, progress=ready)

    assert decide(observed, T0, KUEUE) == [act.MakeTransferSecret(), act.Enqueue()]


def test_a_job_that_kueue_preempted_gets_its_credentials_back():
    observed = seen(job(suspended=True), progress=STOPPED)
    noted = Attempt(number=2, evicted_at=T0)

    assert decide(observed, T0, KUEUE) == [act.NoteEviction(())]
    observed = seen(job(suspended=True, attempt=noted), progress=STOPPED)
    assert decide(observed, T0, KUEUE) == [act.PrepareAttempt(2)]


def test_entering_a_terminal_state_drops_an_undelivered_deployed():
    deployed = (Notice(sequence=1, event=Event.DEPLOYED, at=T0),)

    outbox = add_notice(job(State.DEPLOYED, outbox=deployed), SUCCESS, at(5))

    assert [(item.event, item.delivery) for item in outbox] == [
        (Event.DEPLOYED, Delivery.DROPPED),
        (Event.SUCCEEDED, Delivery.PENDING),
    ]


def test_an_outbox_never_holds_two_terminal_events():
    assert add_notice(job(State.DEPLOYED, outbox=TOLD), SUCCESS, at(5)) == TOLD


@pytest.mark.parametrize(
    ("jobs", "limit", "resting", "expected"),
    [
        pytest.param([], 2, [], [], id="no jobs"),
        pytest.param([("c", 3), ("a", 1), ("b", 2)], 2, [], ["a", "b"], id="oldest first"),
        pytest.param([("b", 1), ("a", 1)], 1, [], ["a"], id="same second: by name"),
        pytest.param([("a", 1), ("b", 2)], 1, ["a"], ["b"], id="a failing preparation yields"),
        pytest.param([("a", 1)], 1, ["a"], ["a"], id="but not when nobody else waits"),
    ],
)
def test_admission(jobs, limit, resting, expected):
    queued = [_queued(name, age) for name, age in jobs]

    assert admit(queued, limit, frozenset(resting)) == frozenset(expected)


def _queued(name: str, age: float) -> Job:
    return job(State.REQUESTED, names=replace(NAMES, base=name), accepted_at=at(age))


def test_fault_10_released_and_unfinished_jobs_count_against_the_limit():
    others = {"created": job(), "deployed": job(State.DEPLOYED), "over": over()}
    live = [replace(item, names=replace(NAMES, base=base)) for base, item in others.items()]

    assert admit([*live, _queued("a", 1), _queued("b", 2)], 3) == frozenset({"a"})


def test_admission_follows_each_change_of_a_job():
    slots = Slots()
    for name in ("a", "b"):
        slots.note(name, _queued(name, 1))
    first = slots.admitted(1)

    slots.note("a", job(names=replace(NAMES, base="a")))
    second = slots.admitted(1)
    slots.note("a", None)

    assert (first, second, slots.admitted(1)) == ({"a"}, frozenset(), {"b"})


# A model of the world: every action has its effect, and the world may do its worst in between.

Fate = st.sampled_from(
    ["nothing", "pod runs", "run fails", "run succeeds", "transfer fails", "driver dies",
     "deleted in background", "restart", "hour", "pod vanishes", "slot taken", "slot given"]
)  # fmt: skip


def befall(world: Observed, fate: str) -> Observed:  # noqa: C901 - one branch a fate
    released = not world.job.suspended and world.job.deleting_since is None
    if fate == "restart":
        return replace(world, progress=Progress())
    if fate == "deleted in background" and world.job.deleting_since is None:
        return replace(world, job=replace(world.job, deleting_since=T0))
    started = world.job.state in (State.CREATED, State.DEPLOYED)
    if fate == "slot taken" and started and released and world.job.ended is None:
        killed = tuple(replace(item, phase="Failed", deleting=True) for item in world.pods)
        return replace(world, pods=killed, job=replace(world.job, suspended=True))
    if fate == "slot given" and started and world.job.suspended:
        return replace(world, pods=(), job=replace(world.job, suspended=False))
    if fate == "pod vanishes":
        return replace(world, pods=(), vanished=world.pods[0] if world.pods else None)
    if fate == "run succeeds" and world.pods:
        return replace(world, run=run(RunStatus.SUCCEEDED))
    if fate == "run fails" and world.pods:
        return replace(world, run=run(RunStatus.FAILED, exit_status=14))
    pods: dict[str, Pod] = {
        "pod runs": running(),
        "transfer fails": pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1)),
        "driver dies": running(phase="Failed", main_running=False, main_end=ended(code=137)),
    }
    if fate in pods and released:
        ends = {"ended": "Failed", "ended_at": T0} if fate != "pod runs" else {}
        made = replace(pods[fate], uid=f"pod-{world.job.attempt.number}")
        return replace(world, pods=(made,), job=replace(world.job, **ends))
    return world


def perform(world: Observed, step: act.Action) -> Observed:  # noqa: C901, PLR0912 - one arm a step
    done, of = world.progress, world.job
    match step:
        case act.MarkQueued() | act.Repair():
            of = replace(of, transitions=of.transitions | {State.REQUESTED: T0}, label=of.state)
        case act.MakeBucket(name=name):
            done = replace(done, buckets=done.buckets | {name})
        case act.MakeTransferSecret():
            done = replace(done, transfer_made=True, transfer_gone=False)
        case act.Release() | act.NoteCreated():
            created = of.transitions | {State.CREATED: T0}
            of = replace(of, state=State.CREATED, suspended=False, transitions=created)
            of = replace(of, label=of.state)
        case act.NoteEviction(pods=killed):
            again = replace(of.attempt, evicted_at=T0, resumed_at=None)
            again = replace(again, former=(*again.former, *killed))
            of = replace(of, attempt=replace(again, number=again.number + 1), witness=None)
            world = replace(world, run=None)
        case act.PrepareAttempt(number=number):
            done = replace(done, prepared_for=number, transfer_made=True, transfer_gone=False)
        case act.NoteResumed():
            of = replace(of, attempt=replace(of.attempt, resumed_at=T0))
        case act.AskSeqera():
            return replace(world, asked_at=at(10**6))
        case act.LookForReport():
            done = replace(done, report_found=False)
        case act.KeepWitness(pod=kept):
            of = replace(of, witness=kept)
        case act.DeleteTransferSecret():
            done = replace(done, transfer_gone=True)
        case act.RemoveStagedFiles():
            done = replace(done, staged_gone=True)
        case act.Enter(verdict=verdict):
            assert not of.state.is_terminal or verdict.state is of.state
            entered = of.transitions | {verdict.state: T0}
            of = replace(
                of,
                outbox=add_notice(of, verdict, T0),
                state=verdict.state,
                verdict=verdict,
                transitions=entered,
                label=verdict.state,
            )
        case act.StopJob():
            world = replace(world, pods=())
            of = replace(of, deleting_since=T0)
            done = replace(done, stop_sent=True)
        case act.RemoveStrays():
            done = replace(done, strays_gone=True)
        case act.RemoveBucket(name=name):
            assert not any(item.is_live for item in world.pods)
            done = replace(done, removals=(*done.removals, *absent(f"bucket/{name}")))
        case act.LookAgain(resources=resources):
            done = replace(done, removals=(*done.removals, *absent(*resources)))
        case act.WriteRecord():
            done = replace(done, recorded=True, recorded_outbox=of.outbox)
        case act.LetGo() | act.Withdraw():
            of = replace(of, finalizers=())
        case _:
            raise AssertionError(step)
    return replace(world, job=of, progress=done)


def settle(world: Observed, now_seconds: float) -> Observed:
    """Act until at rest, the backend taking everything at once."""
    for _ in range(30):
        steps = decide(world, at(now_seconds), SETTINGS)
        if not steps:
            return world
        for step in steps:
            world = perform(world, step)
        told = tuple(replace(item, delivery=Delivery.DELIVERED) for item in world.job.outbox)
        world = replace(world, job=replace(world.job, outbox=told))
    raise AssertionError("does not come to rest")


@given(st.lists(Fate, max_size=8))
def test_every_job_ends_with_one_terminal_event_and_nothing_left(fates: list[str]):
    world = seen(QUEUED, secret_stands=True, has_slot=True)
    clock = 1.0
    for fate in fates:
        world = settle(world, clock)
        if fate == "hour":
            clock += 3600
        if FINALIZER in world.job.finalizers:
            world = befall(world, fate)
    world = befall(settle(world, clock), "slot given")
    clock += timedelta(days=3).total_seconds()

    world = settle(world, clock)

    assert world.job.finalizers == ()
    assert world.job.state.is_terminal
    assert [item.event is Event.DEPLOYED for item in world.job.outbox].count(False) == 1


@given(st.lists(Fate, max_size=4))
def test_at_rest_there_is_a_wake_time_or_an_outside_event_to_wait_for(fates: list[str]):
    world = seen(QUEUED, secret_stands=True, has_slot=True)
    for fate in fates:
        world = befall(settle(world, 1), fate)
    world = settle(world, 1)

    later = [moment for moment in wake_times(world, SETTINGS) if moment > at(1)]

    assert later or world.is_held or FINALIZER not in world.job.finalizers
