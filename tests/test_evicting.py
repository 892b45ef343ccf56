"""A job whose slot was taken back: no verdict and no clock, and another attempt that is bounded."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders import NAMES, T0, UID, at, ended, job, pod, run, running, seen, settings

from pyvatti import labels
from pyvatti.jobs import evicted_patch, names_for, read_job, read_workload, resumed_patch
from pyvatti.labels import FINALIZER, INIT_CONTAINER
from pyvatti.lifecycle.restarting import Restarting
from pyvatti.lifecycle.trimming import merge
from pyvatti.lifecycle.writing import Wrote
from pyvatti.manifests.rendering import RUN_NAME
from pyvatti.models import (
    Attempt,
    Job,
    Pod,
    QueueWords,
    RunStatus,
    State,
)
from pyvatti.policy import Observed, Progress, decide, judge, waiting_for, wake_times
from pyvatti.policy import actions as act
from pyvatti.policy.evicting import is_taken_back
from pyvatti.policy.limits import released_at, state_limit

KUEUE = settings(kueue_queue="genomes")
LONG = 10**7  # seconds: longer than any limit
WAITS = Attempt(number=2, evicted_at=at(100), former=("pod-1",))
AGAIN = replace(WAITS, resumed_at=at(LONG))
ENDED = running(
    uid="pod-2", phase="Failed", main_running=False,
    main_end=ended(code=137, finished_at=at(LONG)),
)  # fmt: skip
UNSEEN = replace(AGAIN, former=())
READY = Progress(accepted=True, prepared_for=2)

QUEUED = job(State.REQUESTED, queue_name="genomes")
MADE: dict[str, Any] = {
    "buckets": frozenset({NAMES.work_bucket, NAMES.results_bucket}),
    "transfer_made": True,
}
STANDS: dict[str, Any] = {
    "secret_stands": True,
    "has_slot": True,
    "progress": Progress(accepted=True, **MADE),
}

KILLED = {"deleting": True, "phase": "Failed"}
PODS: dict[str, Pod] = {
    "pending": pod(),
    "cannot be scheduled": pod(unschedulable="0/3 nodes are available"),
    "cannot pull its image": pod(waiting=("transfer", "ImagePullBackOff", "no such image")),
    "transferring": pod(phase="Running", init_running=True),
    "killed while it transferred": pod(**KILLED, init_end=ended(INIT_CONTAINER, 143)),
    "without credentials": pod(**KILLED, init_end=ended(INIT_CONTAINER, 78)),
    "running": running(),
    "being stopped": running(deleting=True),
    "killed while it ran": running(**KILLED, main_running=False, main_end=ended(code=143)),
    "evicted from its node": pod(**KILLED, reason="Evicted", disruption="TerminationByKubelet"),
}


def held(state: State = State.CREATED, attempt: Attempt | None = None, **changes: Any) -> Job:
    """Make a released job whose Job is suspended again."""
    of = {"suspended": True, "queue_name": "genomes", "attempt": attempt or Attempt()}
    return job(state, **(of | changes))


def again(state: State = State.CREATED, attempt: Attempt = AGAIN, **changes: Any) -> Job:
    """Make a job that was evicted once and runs again, since long after."""
    names = names_for(NAMES.job_id, "intervene-dev", UID, attempt.number)
    return held(state, attempt, **({"suspended": False, "names": names} | changes))


@pytest.mark.parametrize("state", [State.CREATED, State.DEPLOYED])
@pytest.mark.parametrize("killed", PODS.values(), ids=PODS)
@pytest.mark.parametrize("status", [None, RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED])
def test_what_a_suspension_kills_gives_no_verdict_however_long_it_waits(state, killed, status):
    known = Progress(accepted=True, end_seen_at=T0, image_error_since=T0)
    row = None if status is None else run(status)
    observed = seen(held(state), killed, run=row, progress=known)

    assert judge(observed, at(LONG), KUEUE) is None
    assert decide(observed, at(LONG), KUEUE) == [act.NoteEviction(("pod-1",))]
    waits = replace(observed, job=held(state, WAITS))
    assert judge(waits, at(LONG), KUEUE) is None
    assert decide(waits, at(LONG), KUEUE) == [act.PrepareAttempt(2)]


ROWS: list[tuple[str, Observed, list[act.Action | str]]] = [
    ("an eviction before any pod was made is another attempt too",
     seen(held()), [act.NoteEviction(())]),
    ("one that began before anybody noted that it was released is held, too",
     seen(QUEUED, PODS["killed while it transferred"]), [act.NoteEviction(("pod-1",))]),
    ("once that is written it is prepared like any other that waits in the queue",
     seen(replace(QUEUED, attempt=WAITS), PODS["killed while it transferred"], **STANDS),
     [act.PrepareAttempt(2)]),
    ("and rests", seen(replace(QUEUED, attempt=WAITS), secret_stands=True, has_slot=True,
                       progress=replace(READY, **MADE)), []),
    ("until it is resumed",
     seen(replace(QUEUED, attempt=WAITS, suspended=False), secret_stands=True),
     [act.NoteResumed()]),
    ("a queued job without a pod is not held",
     seen(QUEUED, **STANDS), []),
    ("a transfer that failed before the Job was suspended is waited for",
     seen(QUEUED, pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1)), **STANDS), []),
    ("and judged with its Job",
     seen(replace(QUEUED, ended="Failed", ended_at=T0),
          pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1)), **STANDS), ["TransferFailed"]),
    ("without Kueue somebody suspended it by hand",
     seen(held(queue_name="")), [act.NoteEviction(())]),
    ("a pod that is seen late belongs to the former attempt",
     seen(held(attempt=WAITS), pod(uid="pod-2"), progress=READY), [act.NoteEviction(("pod-2",))]),
    ("and so does one that went before it was seen",
     seen(held(attempt=WAITS), vanished=pod(uid="pod-2"), progress=READY),
     [act.NoteEviction(("pod-2",))]),
    ("a second pod without a suspension that was seen: it was taken back and given again",
     seen(again(State.DEPLOYED, Attempt(), witness=running()), pod(uid="pod-2")),
     [act.NoteEviction(("pod-1",))]),
    ("also where both are there in the same second",
     seen(again(attempt=Attempt()), running(deleting=True), pod(uid="pod-2")),
     [act.NoteEviction(("pod-1",))]),
    ("a second pod that ended with its Job is judged",
     seen(again(State.DEPLOYED, Attempt(), witness=running(), ended="Failed", ended_at=T0),
          pod(uid="pod-2", phase="Failed", init_end=ended(INIT_CONTAINER, 78))),
     ["CredentialsMissing"]),
    ("one whose calculation began has its run's name, and is followed",
     seen(again(State.DEPLOYED, UNSEEN, witness=running()), running(uid="pod-2")),
     [act.DeleteTransferSecret(), act.RemoveStagedFiles()]),
    ("without a queue a second pod says nothing",
     seen(again(attempt=UNSEEN, queue_name=""), running(deleting=True), pod(uid="pod-2"),
          progress=READY), []),
    ("what another attempt needs is made at once",
     seen(held(attempt=WAITS)), [act.PrepareAttempt(2)]),
    ("then it waits", seen(held(attempt=WAITS), progress=READY), []),
    ("what is ready for an earlier attempt is not for this one",
     seen(held(attempt=replace(WAITS, number=3)), progress=READY), [act.PrepareAttempt(3)]),
    ("a label that was edited is put back meanwhile",
     seen(held(attempt=WAITS, label="Nonsense"), progress=READY), [act.Repair()]),
    ("its clock runs from the moment it is resumed",
     seen(again(attempt=WAITS), progress=READY), [act.NoteResumed()]),
    ("before that is written nothing is judged",
     seen(again(attempt=WAITS, state=State.DEPLOYED), PODS["killed while it ran"],
          run=run(RunStatus.FAILED)), [act.NoteResumed()]),
    ("a new replica looks whether the attempt has what it needs",
     seen(again(), pod(uid="pod-2")), [act.PrepareAttempt(2)]),
    ("but not once its transfer is over",
     seen(again(), running(uid="pod-2", main_started_at=at(LONG))),
     [act.DeleteTransferSecret(), act.RemoveStagedFiles()]),
    ("the second transfer's credentials go like the first's",
     seen(again(State.DEPLOYED, witness=running(uid="pod-2")), running(uid="pod-2"),
          progress=READY), [act.DeleteTransferSecret(), act.RemoveStagedFiles()]),
    ("its pod is written down once it runs, as the first's was with Deployed",
     seen(again(State.DEPLOYED), running(uid="pod-2"),
          progress=replace(READY, transfer_gone=True, staged_gone=True)),
     [act.KeepWitness(running(uid="pod-2"))]),
    ("how it ends is written down beside that",
     seen(again(State.DEPLOYED, witness=running(uid="pod-2")), ENDED, progress=replace(
         READY, transfer_gone=True, staged_gone=True, end_seen_at=at(LONG))),
     [act.KeepWitness(ENDED)]),
    ("so that another replica knows by it that its slot was taken back, whatever Seqera says",
     seen(again(State.DEPLOYED, witness=running(uid="pod-2")), pod(uid="pod-3"),
          run=run(RunStatus.FAILED, error_report="SIGTERM")), [act.NoteEviction(("pod-2",))]),
    ("the former attempt's pod says nothing after the resumption either",
     seen(again(State.DEPLOYED), PODS["killed while it ran"], progress=READY), []),
    ("nor when it went away",
     seen(again(State.DEPLOYED), vanished=PODS["killed while it ran"], progress=READY), []),
    ("nor where it was kept as a witness",
     seen(again(State.DEPLOYED, witness=PODS["killed while it ran"]), progress=READY), []),
    ("the new pod is judged as any other",
     seen(again(State.DEPLOYED), pod(uid="pod-2", phase="Failed",
                                     init_end=ended(INIT_CONTAINER, 1)), progress=READY),
     ["TransferFailed"]),
    ("though the former one is there still",
     seen(again(), PODS["running"], pod(uid="pod-2", phase="Failed",
                                        init_end=ended(INIT_CONTAINER, 1)), progress=READY),
     ["TransferFailed"]),
    ("a success that Seqera knows counts: the results are there",
     seen(held(State.DEPLOYED), running(), run=run(RunStatus.SUCCEEDED)), ["RunSucceeded"]),
    ("a driver that ended well before it could be killed completes its Job",
     seen(held(State.DEPLOYED), running(phase="Succeeded", main_running=False, main_end=ended())),
     []),
    ("one that failed before fails it",
     seen(held(), pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1))), []),
    ("and so it is judged once the Job has ended, suspended or not",
     seen(held(ended="Failed", ended_at=T0),
          pod(phase="Failed", init_end=ended(INIT_CONTAINER, 1))), ["TransferFailed"]),
    ("a job is cancelled while it waits",
     seen(held(attempt=WAITS, deleting_since=T0)), ["Cancelled"]),
    ("of one that goes nothing is prepared: Seqera is asked, and then it ends",
     seen(held(attempt=WAITS, deleting_since=T0), asked_at=None), [act.AskSeqera()]),
    ("nor of one whose namespace goes",
     seen(held(attempt=WAITS), asked_at=None, going_since=T0), [act.AskSeqera()]),
    ("a deleted Job is not evicted",
     seen(held(deleting_since=T0), running(deleting=True)), ["Cancelled"]),
    ("a finalizer that was removed comes first",
     seen(held(finalizers=())), [act.Repair()]),
    ("a terminal job is stopped, suspended or not",
     seen(held(State.FAILED, finalizers=(FINALIZER,))), [act.StopJob()]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_next_steps_of_a_job_whose_slot_was_taken_back(observed, expected):
    steps = decide(observed, at(LONG + 1), KUEUE)

    named = [step.verdict.reason if isinstance(step, act.Enter) else step for step in steps]
    assert named == expected


SILENT = running(deleting=True, due_at=at(400), silent_since=at(90))
GRACE = KUEUE.node_grace.total_seconds()


@pytest.mark.parametrize(
    ("of", "killed", "seconds", "reason"),
    [
        pytest.param(again(State.DEPLOYED), SILENT, LONG + GRACE, "NodeLost", id="after patience"),
        pytest.param(again(), SILENT, LONG + GRACE, "NodeLost", id="before it was Deployed"),
        pytest.param(again(), pod(deleting=True, due_at=at(400), init_running=True), LONG + GRACE,
                     "NodeLost", id="in its transfer, which leaves no mark"),
        pytest.param(again(), SILENT, LONG + GRACE - 1, None, id="within patience"),
        pytest.param(again(), running(deleting=True), LONG + GRACE, None, id="it is stopped still"),
        pytest.param(held(attempt=WAITS), SILENT, LONG + GRACE, None, id="while it waits"),
        pytest.param(replace(QUEUED, attempt=WAITS), SILENT, LONG + GRACE, None, id="queued"),
    ],
)  # fmt: skip
def test_a_killed_pod_whose_node_is_silent_lets_no_other_begin(of, killed, seconds, reason):
    """The Job controller makes none while one that is being deleted has not ended."""
    observed = seen(of, killed, progress=replace(READY, silent_seen_at=at(500)))

    verdict = judge(observed, at(seconds), KUEUE)

    assert (verdict and verdict.reason) == reason
    if reason:
        assert at(seconds) in set(wake_times(observed, KUEUE))
        early = replace(observed, asked_at=at(seconds - 1))
        assert judge(early, at(seconds), KUEUE) is None
        assert decide(early, at(seconds), KUEUE) == [act.AskSeqera()]


def test_the_next_pod_is_followed_although_the_killed_one_is_not_heard_of():
    observed = seen(
        again(), SILENT, pod(uid="pod-2"), progress=replace(READY, silent_seen_at=at(500))
    )

    assert judge(observed, at(LONG + GRACE), KUEUE) is None


@pytest.mark.parametrize(
    ("number", "most", "fails"), [(1, 0, True), (1, 1, False), (5, 5, False), (6, 5, True)]
)
def test_more_evictions_than_allowed_fail_the_job(number, most, fails):
    attempt = Attempt() if number == 1 else replace(AGAIN, number=number)
    observed = seen(held(State.DEPLOYED, attempt), running(uid="pod-2"))

    verdict = judge(observed, at(LONG), settings(kueue_queue="genomes", max_evictions=most))

    assert (verdict is not None) is fails
    if verdict is not None:
        times = "once" if number == 1 else f"{number} times"
        assert (verdict.state, verdict.reason) == (State.FAILED, "EvictedTooOften")
        assert verdict.message == f"the job was evicted {times} by Kueue; MAX_EVICTIONS is {most}"
        assert "new id" in verdict.next_step
        assert verdict.trace_name == verdict.message


def test_an_eviction_is_counted_once():
    last = replace(WAITS, number=6)  # the fifth, which is allowed, is written down

    assert judge(seen(held(attempt=last)), at(LONG), settings(max_evictions=5)) is None


@pytest.mark.parametrize(
    ("state", "limit"),
    [(State.CREATED, KUEUE.timeout_seconds), (State.DEPLOYED, KUEUE.deployed_timeout_seconds)],
)
def test_the_limits_of_another_attempt_begin_with_its_resumption(state, limit):
    observed = seen(again(state), progress=READY)
    end = at(LONG) + limit

    assert end in set(wake_times(observed, KUEUE))
    assert judge(observed, at(LONG + 1), KUEUE) is None
    verdict = judge(observed, end, KUEUE)
    assert verdict is not None
    assert verdict.reason == "TimedOut"


def test_a_calculation_of_another_attempt_is_limited_from_its_own_beginning():
    deployed = again(State.DEPLOYED, transitions={State.DEPLOYED: at(LONG + 3000)})

    assert state_limit(deployed, KUEUE) == (at(LONG + 3000), KUEUE.deployed_timeout_seconds)


@pytest.mark.parametrize("state", [State.CREATED, State.DEPLOYED])
def test_time_in_a_queue_has_no_limit(state):
    assert state_limit(held(state, WAITS), KUEUE) is None
    assert state_limit(again(state), KUEUE) is not None


def test_the_run_of_another_attempt_is_looked_for_since_the_eviction():
    assert (released_at(job()), released_at(again())) == (T0, at(100))


NOTHING = QueueWords()
SAYS = QueueWords(pending="ClusterQueue genomes is stopped")
EVICTED = "evicted by Kueue at 2026-11-23T12:01:40Z"
PREEMPTED = replace(WAITS, said="Preempted to accommodate a workload")


@pytest.mark.parametrize(
    ("of", "queue", "on", "message"),
    [
        pytest.param(job(State.REQUESTED, queue_name="genomes"), NOTHING, "Kueue",
                     "queue genomes has not admitted it yet", id="first time"),
        pytest.param(job(State.REQUESTED, queue_name="genomes"), SAYS, "Kueue",
                     "queue genomes has not admitted it yet: ClusterQueue genomes is stopped",
                     id="first time, with Kueue's words"),
        pytest.param(held(), None, "Kueue",
                     "evicted by Kueue; queue genomes has not admitted it again",
                     id="before it is written down"),
        pytest.param(held(attempt=PREEMPTED), SAYS, "Kueue",
                     f"{EVICTED} (Preempted to accommodate a workload);"
                     " queue genomes has not admitted it again: ClusterQueue genomes is stopped",
                     id="with both words"),
        pytest.param(held(State.DEPLOYED, WAITS), None, "Kueue",
                     f"{EVICTED}; queue genomes has not admitted it again", id="Deployed"),
        pytest.param(held(attempt=WAITS, queue_name=""), None, "resumption",
                     "evicted by somebody who suspended its Job at 2026-11-23T12:01:40Z;"
                     " nobody resumed it yet", id="by hand"),
        pytest.param(again(State.DEPLOYED), None, "pod",
                     f"the cluster has not made its pod yet (attempt 2, {EVICTED})",
                     id="admitted again"),
    ],
)  # fmt: skip
def test_what_it_waits_for_is_said_with_kueues_words(of: Job, queue, on: str, message: str):
    waiting = waiting_for(seen(of, queue=queue, has_slot=True), "genomes")

    assert waiting is not None
    assert (waiting.on, waiting.message) == (on, message)


def test_a_second_attempt_that_runs_waits_for_nothing():
    assert waiting_for(seen(again(State.DEPLOYED), running(uid="pod-2")), "genomes") is None


@pytest.mark.parametrize(
    ("conditions", "active", "evicted", "pending"),
    [
        ([], True, "", ""),
        ([("QuotaReserved", "False", "couldn't assign flavors:\n insufficient quota")], True,
         "", "couldn't assign flavors: insufficient quota"),
        ([("Evicted", "True", "Preempted to accommodate a workload"),
          ("QuotaReserved", "False", "Preempted")], True,
         "Preempted to accommodate a workload", "Preempted"),
        ([("QuotaReserved", "True", "reserved in lab"), ("Evicted", "False", "old")], True, "", ""),
        ([("Evicted", "True", "The workload is deactivated")], False,
         "The workload is deactivated", "its Workload is deactivated"),
    ],
)  # fmt: skip
def test_the_conditions_of_a_workload_are_read(conditions, active, evicted, pending):
    said = [{"type": kind, "status": status, "message": text} for kind, status, text in conditions]
    raw = {"spec": {"active": active}, "status": {"conditions": said}}

    assert read_workload(raw, str) == QueueWords(evicted=evicted, pending=pending)


@pytest.mark.parametrize(
    "raw", [{}, {"spec": None, "status": None}, {"status": {"conditions": [7]}}]
)
def test_a_workload_that_says_nothing_is_no_error(raw):
    assert read_workload(raw, str) == QueueWords()


RAW = {
    "metadata": {
        "name": NAMES.base, "namespace": "intervene-dev", "uid": UID, "resourceVersion": "10",
        "creationTimestamp": "2026-11-23T12:00:00Z", "finalizers": [FINALIZER],
        "annotations": {labels.TRANSITIONS: '{"Created": "2026-11-23T12:00:00Z"}'},
    },
    "spec": {"suspend": True},
}  # fmt: skip


def evicted(raw: dict[str, Any], when: datetime, *pods: str) -> dict[str, Any]:
    patch = evicted_patch(read_job(raw), "intervene-dev", when, "said", pods)
    assert patch is not None
    return merge(raw, patch)


def test_an_eviction_survives_in_the_annotations_alone():
    raw = evicted(RAW, at(5), "a")

    first = read_job(raw)
    assert first.attempt == Attempt(number=2, evicted_at=at(5), said="said", former=("a",))
    assert first.names.run_name == f"{NAMES.run_name}-a2"
    assert raw["metadata"]["annotations"][labels.RUN_NAME] == f"{NAMES.run_name}-a2"
    assert first.names.work_bucket == NAMES.work_bucket
    assert first.edited == ()

    resumed = resumed_patch(first, at(7))
    assert resumed is not None
    second = read_job(merge(raw, resumed))
    assert second.attempt == replace(first.attempt, resumed_at=at(7))

    third = read_job(evicted(merge(raw, resumed), at(9), "b"))
    assert third.attempt == Attempt(number=3, evicted_at=at(9), said="said", former=("a", "b"))
    assert third.names.run_name == f"{NAMES.run_name}-a3"


def test_an_eviction_that_is_written_down_is_not_counted_again():
    raw = evicted(RAW, at(5), "a")

    assert evicted_patch(read_job(raw), "intervene-dev", at(6), "other", ("a",)) is None
    late = read_job(evicted(raw, at(6), "b"))
    assert late.attempt == Attempt(number=2, evicted_at=at(5), said="said", former=("a", "b"))


def test_a_resumption_is_written_once():
    assert resumed_patch(again(), at(9)) is None
    assert resumed_patch(job(), at(9)) is None


def test_the_killed_pod_is_no_witness_any_more():
    raw = merge(RAW, {"metadata": {"annotations": {labels.WITNESS: "{}"}}})

    assert labels.WITNESS not in evicted(raw, at(5))["metadata"]["annotations"]


def test_the_pods_of_former_attempts_are_bounded():
    raw = RAW
    for turn in range(70):
        raw = evicted(raw, at(5), f"pod-{turn}")

    former = read_job(raw).attempt.former
    assert (len(former), former[-1]) == (64, "pod-69")


GOOD = {"number": 2, "evicted_at": "2026-11-23T12:00:05Z"}


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param("nonsense", id="no JSON"),
        pytest.param("[" * 10_000, id="deep"),
        pytest.param(json.dumps(GOOD | {"number": 0}), id="below the first"),
        pytest.param(json.dumps(GOOD | {"number": -2}), id="negative"),
        pytest.param(json.dumps(GOOD | {"number": 100}), id="more than any"),
        pytest.param(json.dumps(GOOD | {"number": 10**30}), id="huge"),
        pytest.param(json.dumps(GOOD | {"number": "x"}), id="no number"),
        pytest.param(json.dumps({"number": 2}), id="never evicted"),
        pytest.param(json.dumps(GOOD | {"number": 1}), id="a first one that was"),
        pytest.param(json.dumps({"resumed_at": "2026-11-23T12:00:05Z"}), id="a first one resumed"),
        pytest.param(json.dumps(GOOD | {"evicted_at": "0001-01-01T00:00:00Z"}), id="long ago"),
        pytest.param(json.dumps(GOOD | {"evicted_at": "2026-11-23T12:00:05"}), id="no zone"),
        pytest.param(json.dumps(GOOD | {"said": "x" * 2**15}), id="too long"),
        pytest.param(json.dumps(GOOD | {"former": ["a"] * 65}), id="too many pods"),
        pytest.param(json.dumps(GOOD | {"former": ["a b"]}), id="no uid"),
    ],
)
def test_an_attempt_that_somebody_wrote_counts_as_the_first_and_is_named(edited: str):
    read = read_job(merge(RAW, {"metadata": {"annotations": {labels.ATTEMPT: edited}}}))

    assert read.attempt == Attempt()
    assert read.broken == ("attempt",)
    assert read.names == NAMES


def test_what_an_attempt_says_is_cleaned():
    note = json.dumps(GOOD | {"said": "token tower-secret-1"})
    raw = merge(RAW, {"metadata": {"annotations": {labels.ATTEMPT: note}}})

    read = read_job(raw, clean=lambda text: text.replace("tower-secret-1", "(hidden)"))

    assert read.attempt.said == "token (hidden)"


@pytest.mark.parametrize("namespace", ["d", "intervene-dev", "n" * 39])
def test_the_run_name_of_every_attempt_is_valid_and_its_own(namespace: str):
    made = [names_for("INTP12345678901", namespace, UID, number) for number in range(1, 100)]

    assert len({names.run_name for names in made}) == 99
    assert all(RUN_NAME.fullmatch(names.run_name) for names in made)
    assert len({replace(names, run_name="") for names in made}) == 1


@pytest.mark.parametrize(
    ("before", "newest", "expected"),
    [
        (job(), held(), True),
        (job(), job(), False),
        (held(), held(), False),
        (job(), held(deleting_since=T0), False),
    ],
)
def test_a_verdict_on_what_was_taken_back_meanwhile_is_not_written(before, newest, expected):
    assert is_taken_back(before, newest) is expected


class Meeting:
    """A writer that meets a version of the Job that came meanwhile."""

    def __init__(self, newest: Job) -> None:
        self.newest = newest
        self.patch_built: dict[str, Any] = {}

    async def patch(self, _job: Job, build: Callable[[Job], dict[str, Any] | None]) -> Wrote:
        self.patch_built = build(self.newest) or {}
        return Wrote.WRITTEN if self.patch_built else Wrote.NOTHING

    def note(self, *_said: Any, **_more: Any) -> None:
        """Tell nobody."""


@pytest.mark.parametrize(
    ("before", "newest", "writes"),
    [
        pytest.param(held(attempt=WAITS), again(attempt=WAITS), False, id="resumed meanwhile"),
        pytest.param(QUEUED, replace(QUEUED, suspended=False), False, id="first released"),
        pytest.param(QUEUED, QUEUED, True, id="released and taken back"),
        pytest.param(held(attempt=WAITS), held(attempt=WAITS), True, id="it waits still"),
        pytest.param(held(queue_name=""), again(attempt=Attempt()), True, id="not written down"),
        pytest.param(again(attempt=WAITS), again(attempt=WAITS), True, id="missed"),
    ],
)
async def test_a_pod_that_is_seen_before_its_resumption_is_not_taken_for_a_killed_one(
    before: Job, newest: Job, *, writes: bool
):
    """Jobs and pods are watched apart: the next attempt's pod may be heard of first."""
    writer = Meeting(newest)
    doors = SimpleNamespace(settings=KUEUE, clock=lambda: at(LONG))
    restarting = Restarting(cast("Any", doors), cast("Any", writer))

    await restarting.note_eviction(replace(before, queue_name=""), ("pod-2",), READY)

    assert bool(writer.patch_built) is writes
