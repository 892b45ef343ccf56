"""Pods die in many ways: what a kubelet writes, read as it is kept, and what is told of it."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from builders import NAMES, T0, UID, at, job, pod, run, running, seen, settings

from pyvatti import foreign, labels
from pyvatti.jobs import read_pod
from pyvatti.labels import FINALIZER, FOREGROUND
from pyvatti.lifecycle.actor import JobActor
from pyvatti.lifecycle.trimming import slim_pod
from pyvatti.models import (
    Delivery,
    Event,
    Notice,
    Pod,
    Remainder,
    Removal,
    RunStatus,
    State,
    Verdict,
)
from pyvatti.policy import Observed, Progress, decide, judge, waiting_for, wake_times
from pyvatti.policy import actions as act

SETTINGS = settings()
OVER = job(ended="Failed", ended_reason="BackoffLimitExceeded", ended_at=T0)
NEW_ID = "under a new id"


def stopped(name: str, code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """Write the status of a container that ended."""
    end = {"exitCode": code, "reason": reason, "finishedAt": "2026-11-23T12:00:00Z"}
    return {"name": name, "state": {"terminated": end | ({"message": message} if message else {})}}


def waits(name: str, reason: str, message: str = "") -> dict[str, Any]:
    """Write the status of a container that waits."""
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


def runs(name: str) -> dict[str, Any]:
    """Write the status of a container that runs."""
    return {"name": name, "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}


def condition(kind: str, status: str, **more: str) -> dict[str, str]:
    """Write a condition of a pod, of T0."""
    moment = "2026-11-23T12:00:00Z"
    return {"type": kind, "status": status, "lastTransitionTime": moment} | more


def told(
    phase: str = "Failed",
    *,
    inits: tuple[dict[str, Any], ...] = (),
    mains: tuple[dict[str, Any], ...] = (),
    deletion: str = "",
    **status: Any,
) -> Pod:
    """Read a driver Pod as it is kept in memory."""
    metadata: dict[str, Any] = {
        "name": f"{NAMES.base}-x",
        "uid": "pod-1",
        "labels": {labels.CONTROLLER_UID: UID},
    }
    metadata |= {"deletionTimestamp": deletion} if deletion else {}
    states = {"initContainerStatuses": list(inits), "containerStatuses": list(mains)}
    raw = {"metadata": metadata, "spec": {}, "status": {"phase": phase} | states | status}
    return read_pod(slim_pod(raw), clean_cluster=foreign.without_secrets)


DONE = stopped("transfer", 0, "Completed")
KILLED = stopped("calculation", 137)
PENDING = waits("calculation", "PodInitializing")
DISRUPTED = condition("DisruptionTarget", "True", reason="TerminationByKubelet", message="low")
OWN_POD = "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. "
OWN_CONTAINER = 'Container calculation exceeded its local ephemeral storage limit "10Gi". '
OTHERS_LIMIT = 'Container istio-proxy exceeded its local ephemeral storage limit "1Gi". '
VOLUME = 'Usage of EmptyDir volume "vault-secrets" exceeds the limit "1Mi". '
LOW = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 0. "
AFFINITY = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match"

# (id, pod, reason, part of the next step, parts of what is told)
ENDS = [
    ("own limit of the pod", told(inits=(DONE,), mains=(KILLED,), reason="Evicted",
     message=OWN_POD), "DriverOutOfStorage", "DRIVER_STORAGE", (OWN_POD.strip(),)),
    ("own limit of a container", told(inits=(DONE,), mains=(KILLED,), reason="Evicted",
     message=OWN_CONTAINER), "DriverOutOfStorage", "DRIVER_STORAGE", (OWN_CONTAINER.strip(),)),
    ("own limit while the data is transferred", told(inits=(stopped("transfer", 137),),
     mains=(PENDING,), reason="Evicted", message=OWN_POD),
     "DriverOutOfStorage", "DRIVER_STORAGE", (OWN_POD.strip(), "container transfer")),
    ("limit of an added container", told(inits=(DONE,), mains=(KILLED,), reason="Evicted",
     message=OTHERS_LIMIT), "DriverOutOfStorage", "container istio-proxy", ("istio-proxy",)),
    ("limit of an added volume", told(inits=(DONE,), mains=(KILLED,), reason="Evicted",
     message=VOLUME), "DriverOutOfStorage", '"vault-secrets"', (VOLUME.strip(),)),
    ("a node short of disk", told(inits=(DONE,), mains=(KILLED,), reason="Evicted", message=LOW,
     conditions=[DISRUPTED]), "Evicted", NEW_ID, (LOW.strip(), "TerminationByKubelet")),
    ("a node that is not the one it asks for", told(reason="NodeAffinity", message=AFFINITY),
     "NodeAffinity", NEW_ID, ("The node refused the driver pod: Predicate NodeAffinity",)),
    ("a node without room", told(reason="OutOfcpu", message="Pod was rejected: Node didn't"),
     "OutOfcpu", NEW_ID, ("Node didn't",)),
    ("a reason that nobody has heard of", told(reason="Novel", message="because"),
     "Novel", NEW_ID, ("because",)),
    ("a reason without a message", told(reason="Novel"), "Novel", NEW_ID, ("(Novel)",)),
    ("a disruption and its words", told(inits=(DONE,), mains=(KILLED,), conditions=[
        condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="for x")]),
     "PreemptionByScheduler", NEW_ID, ("for x", "container calculation ended with exit code 137")),
    ("an added init container fails", told(inits=(stopped("mesh-init", 3, message="iptables"),
     waits("transfer", "PodInitializing")), mains=(PENDING,)),
     "AddedContainerFailed", "mesh-init", ("container mesh-init", "iptables", "exit 3")),
    ("an added init container lacks memory", told(inits=(stopped("vault", 137, "OOMKilled"),
     waits("transfer", "PodInitializing")), mains=(PENDING,)),
     "AddedContainerFailed", "vault", ("ran out of memory",)),
    ("the transfer's heap is too small", told(inits=(stopped("transfer", 3,
     message="Terminating due to java.lang.OutOfMemoryError: Java heap space"),), mains=(PENDING,)),
     "TransferOutOfMemory", "DRIVER_MEMORY", ("Java heap space",)),
    ("the driver's heap is too small", told(inits=(DONE,), mains=(stopped("calculation", 3),)),
     "DriverOutOfMemory", "DRIVER_MEMORY", ("exit code 3",)),
    ("the driver's heap is too small and it says so", told(inits=(DONE,), mains=(
        stopped("calculation", 1, message="java.lang.OutOfMemoryError: Metaspace"),)),
     "DriverOutOfMemory", "DRIVER_MEMORY", ("Metaspace",)),
    ("beside the driver a sidecar ends too", told(inits=(DONE,), mains=(KILLED,
     stopped("istio-proxy", 143))), "DriverKilled", NEW_ID,
     ("istio-proxy ended with exit code 143",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "reason", "step", "words"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_why_a_pod_failed_is_kept_and_says_what_helps(
    of: Pod, reason: str, step: str, words: tuple[str, ...]
):
    verdict = judge(seen(OVER, of), at(240), SETTINGS)

    assert verdict is not None
    said = " ".join([verdict.message, *(item.said for item in verdict.evidence)])
    assert (verdict.state, verdict.reason) == (State.FAILED, reason)
    assert step in verdict.next_step
    assert [part for part in words if part not in said] == []
    assert 1 <= (verdict.trace_exit or 0) <= 127


def test_what_failed_before_the_calculation_began_is_judged_at_once():
    failed = told(inits=(stopped("mesh-init", 1),), mains=(PENDING,))

    assert judge(seen(job(), failed, asked_at=None), at(1), SETTINGS) is not None


@pytest.mark.parametrize("code", [1, 137])
def test_a_driver_that_ended_well_is_not_failed_by_what_was_added_to_its_pod(code: int):
    beside = (stopped("calculation", 0, "Completed"), stopped("istio-proxy", code))
    observed = seen(OVER, told(inits=(DONE,), mains=beside), progress=Progress(report_found=True))

    verdict = judge(observed, at(300), SETTINGS)

    assert verdict is not None
    assert verdict.reason == "SucceededUnconfirmed"


WAITS = [
    ("an added init container without image",
     told("Pending", inits=(waits("vault", "ImagePullBackOff", "not found"),), mains=(PENDING,)),
     "image", ("vault", "not found")),
    ("an added init container without configuration",
     told("Pending", inits=(waits("vault", "CreateContainerConfigError", "secret x"),)),
     "configuration", ("vault", "secret x")),
    ("an added sidecar that dies again and again",
     told("Pending", inits=(waits("proxy", "CrashLoopBackOff", "back-off"),), mains=(PENDING,)),
     "container", ("proxy", "CrashLoopBackOff")),
    ("an added init container that does not end",
     told("Pending", inits=(runs("vault"), waits("transfer", "PodInitializing"))),
     "container", ("vault",)),
    ("no node", told("Pending", conditions=[condition(
        "PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: 3 Insufficient cpu")]),
     "node", ("0/3 nodes: 3 Insufficient cpu",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "on", "words"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS]
)
def test_what_a_pod_waits_for_names_the_container(of: Pod, on: str, words: tuple[str, ...]):
    waiting = waiting_for(seen(job(), of))

    assert waiting is not None
    assert waiting.on == on
    assert [part for part in words if part not in waiting.message] == []


def test_a_time_out_tells_what_every_container_said():
    stuck = told("Pending", inits=(waits("vault", "CrashLoopBackOff", "no route"),))

    verdict = judge(seen(job(), stuck), at(3600), SETTINGS)

    assert verdict is not None
    assert verdict.reason == "TimedOut"
    assert "vault: CrashLoopBackOff: no route" in verdict.message
    assert "vault: CrashLoopBackOff: no route" in verdict.evidence[-1].said


def test_an_added_container_without_image_fails_the_job_only_before_the_calculation():
    beside = waits("istio-proxy", "ImagePullBackOff", "not found")
    pulling = Progress(image_error_since=T0)
    before = told("Pending", inits=(beside,), mains=(PENDING,))
    after = told("Running", inits=(DONE,), mains=(runs("calculation"), beside))

    verdict = judge(seen(job(), before, progress=pulling), at(120), SETTINGS)

    assert verdict is not None
    assert "istio-proxy" in verdict.message
    assert "NEXTFLOW_IMAGE" not in verdict.next_step
    deployed = seen(job(State.DEPLOYED), after, progress=pulling, run=run(RunStatus.RUNNING))
    assert judge(deployed, at(120), SETTINGS) is None


# --- a node that does not answer

READY = condition("Ready", "True")
NOT_READY = condition("Ready", "False")
CONTAINERS = condition("ContainersReady", "True")
MAIN = {"inits": (DONE,), "mains": (runs("calculation"),)}
SILENT = told("Running", **MAIN, conditions=[NOT_READY, CONTAINERS])
DYING = told("Running", **MAIN, deletion="2026-11-23T12:00:00Z")


@pytest.mark.parametrize(
    ("conditions", "phase", "silent"),
    [
        pytest.param([NOT_READY, CONTAINERS], "Running", True, id="the node controller's mark"),
        pytest.param([READY, CONTAINERS], "Running", False, id="ready"),
        pytest.param([NOT_READY, condition("ContainersReady", "False")], "Running", False,
                     id="a container is not ready"),
        pytest.param([NOT_READY], "Running", False, id="nothing of the containers"),
        pytest.param([condition("Ready", "False", reason="ReadinessGatesNotReady"), CONTAINERS],
                     "Running", False, id="somebody's readiness gate"),
        pytest.param([condition("Ready", "Unknown"), CONTAINERS], "Running", False, id="unknown"),
    ],
)  # fmt: skip
def test_a_silent_node_is_recognised(conditions: list[dict[str, str]], phase: str, *, silent: bool):
    of = told(phase, **MAIN, conditions=conditions)

    for state in (State.CREATED, State.DEPLOYED):
        waiting = waiting_for(seen(job(state), of))
        assert (waiting is not None and waiting.on == "silent node") is silent
    assert (of.silent_since == T0) is silent


def test_a_silent_node_is_said_with_its_time_and_of_a_finished_job_too():
    over = job(State.FAILED, verdict=VERDICT)

    for of in (job(State.DEPLOYED), over):
        waiting = waiting_for(seen(of, SILENT))
        assert waiting is not None
        assert waiting.message == f"its node has not answered since {T0.isoformat()}"
        assert waiting.since == T0


KNOWN = Progress(accepted=True, silent_seen_at=T0, transfer_gone=True, staged_gone=True)
DEPLOYED = job(State.DEPLOYED)
RUNNING = run(RunStatus.RUNNING)
VERDICT = Verdict(state=State.FAILED, reason="DriverFailed", message="no")
PATIENCE_OF_NODE = SETTINGS.node_grace.total_seconds()
LOST = [
    ("within the patience nothing happens",
     seen(DEPLOYED, SILENT, progress=KNOWN, run=RUNNING), PATIENCE_OF_NODE - 1, None),
    ("after the patience the job fails, Seqera saying RUNNING",
     seen(DEPLOYED, SILENT, progress=KNOWN, run=RUNNING), PATIENCE_OF_NODE, "NodeLost"),
    ("Seqera is asked once more before it",
     seen(DEPLOYED, SILENT, progress=KNOWN, asked_at=at(PATIENCE_OF_NODE - 1)),
     PATIENCE_OF_NODE, None),
    ("a run that ended well is a success",
     seen(DEPLOYED, SILENT, progress=KNOWN, run=run(RunStatus.SUCCEEDED)),
     PATIENCE_OF_NODE, "RunSucceeded"),
    ("a node that answers again is none",
     seen(DEPLOYED, told("Running", **MAIN, conditions=[READY, CONTAINERS]), progress=KNOWN,
          run=RUNNING), PATIENCE_OF_NODE, None),
    ("a pod that ended needs no node",
     seen(DEPLOYED, told("Failed", **MAIN, conditions=[NOT_READY, CONTAINERS]), progress=KNOWN,
          run=RUNNING), PATIENCE_OF_NODE, None),
    ("a deleted pod that lives on after its grace",
     seen(DEPLOYED, DYING, progress=KNOWN, run=RUNNING), PATIENCE_OF_NODE, "NodeLost"),
    ("a transfer on a silent node needs no Seqera",
     seen(job(), told("Pending", inits=(runs("transfer"),), deletion="2026-11-23T12:00:00Z"),
          progress=KNOWN, asked_at=None), PATIENCE_OF_NODE, "NodeLost"),
    ("a calculation that was seen to end is judged by its end",
     seen(DEPLOYED, told("Running", inits=(DONE,), mains=(stopped("calculation", 1),),
          conditions=[NOT_READY, CONTAINERS]), progress=KNOWN, run=RUNNING),
     PATIENCE_OF_NODE, "DriverFailed"),
    ("and after its own grace",
     seen(DEPLOYED, told("Running", inits=(DONE,), mains=(stopped("calculation", 1),),
          conditions=[NOT_READY, CONTAINERS]), run=RUNNING,
          progress=replace(KNOWN, silent_seen_at=at(-PATIENCE_OF_NODE))), 1, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "seconds", "reason"), [row[1:] for row in LOST], ids=[row[0] for row in LOST]
)
def test_a_job_fails_with_its_node(observed: Observed, seconds: float, reason: str | None):
    verdict = judge(observed, at(seconds), SETTINGS)

    assert (verdict and verdict.reason) == reason
    if verdict is not None and reason == "NodeLost":
        assert T0.isoformat() in verdict.message
        assert "not observed" in verdict.message
        assert verdict.evidence[0].at == T0


def test_a_node_that_answers_between_two_silences_begins_its_patience_anew():
    actor = JobActor(*cast("list[Any]", [None] * 3), job(), lambda: None)
    back = told("Running", **MAIN, conditions=[READY, CONTAINERS])
    times = []

    for of, seconds in ((SILENT, 1), (SILENT, 2), (back, 3), (SILENT, 4)):
        actor._note_times(seen(DEPLOYED, of), at(seconds))
        times.append(actor.progress.silent_seen_at)

    assert times == [at(1), at(1), None, at(4)]


def test_a_silent_node_is_looked_at_again_when_the_patience_is_over():
    observed = seen(DEPLOYED, SILENT, progress=KNOWN, run=RUNNING, asked_at=at(1))
    patient = settings(node_grace=700)

    assert at(700) in set(wake_times(observed, patient))
    assert decide(observed, at(700), patient) == [act.AskSeqera()]
    assert T0 + timedelta(seconds=60) in set(wake_times(seen(DEPLOYED, DYING), SETTINGS))


TOLD = (Notice(sequence=1, event=Event.FAILED, at=T0, delivery=Delivery.DELIVERED),)
GONE = job(
    State.FAILED,
    verdict=Verdict(state=State.FAILED, reason="NodeLost", message="lost"),
    transitions={State.FAILED: T0},
    deleting_since=T0,
    finalizers=(FINALIZER, FOREGROUND),
    outbox=TOLD,
)
FORGOTTEN = Progress(accepted=True, stop_sent=True)  # as a replica that takes over knows it


def test_the_driver_of_a_lost_node_is_not_given_time_to_end_by_itself():
    still = replace(GONE, deleting_since=None, finalizers=(FINALIZER,))

    assert decide(seen(still, SILENT, progress=KNOWN), at(1), SETTINGS) == [act.StopJob()]


def test_data_goes_and_the_job_is_let_go_although_the_pod_stays():
    unseen = Remainder(
        resource=f"pods/{NAMES.base}",
        reason=f"pod {NAMES.base}-x: its node has not answered since {T0.isoformat()};"
        " that its containers ended was not observed",
    )
    found = [f"secret/{NAMES.base}", f"secret/{NAMES.transfer_secret}"]

    strays = decide(seen(GONE, SILENT, progress=FORGOTTEN), at(1), SETTINGS)
    bare = Progress(accepted=True, stop_sent=True, strays_gone=True)
    buckets = decide(seen(GONE, SILENT, progress=bare), at(1), SETTINGS)
    gone = tuple(
        Removal(resource=name, removed_at=T0, proven_absent_at=T0)
        for name in (*found, f"bucket/{NAMES.work_bucket}", f"bucket/{NAMES.results_bucket}")
    )
    clean = Progress(accepted=True, stop_sent=True, strays_gone=True, removals=gone)
    last = decide(seen(GONE, SILENT, progress=clean), at(1), SETTINGS)

    assert strays == [act.RemoveStrays(frozenset({"pod-1"}))]
    assert buckets == [act.RemoveBucket(NAMES.work_bucket)]
    assert last == [act.WriteRecord((unseen,)), act.LetGo()]


@pytest.mark.parametrize("reason", ["Cancelled", "TimedOut", "DriverFailed"])
def test_the_data_of_a_job_that_ended_otherwise_waits_for_a_silent_node_as_long(reason: str):
    verdict = Verdict(state=State.FAILED, reason=reason, message="no")
    over = replace(GONE, verdict=verdict)
    known = Progress(accepted=True, stop_sent=True, silent_seen_at=T0)

    early = decide(seen(over, DYING, progress=known), at(PATIENCE_OF_NODE - 1), SETTINGS)
    late = decide(seen(over, DYING, progress=known), at(PATIENCE_OF_NODE), SETTINGS)

    assert early == []
    assert late == [act.RemoveStrays(frozenset({"pod-1"}))]


def test_a_pod_that_may_write_is_waited_for_beside_a_lost_one():
    other = running(uid="pod-2")
    bare = Progress(accepted=True, stop_sent=True, strays_gone=True)

    assert decide(seen(GONE, SILENT, other, progress=bare), at(1), SETTINGS) == []


def test_nobody_is_told_to_use_the_same_id_again():
    """A finished id gets 409: whoever submits again needs a new one."""
    package = Path(__file__).parent.parent / "pyvatti"
    advice = re.compile(r"submit (?:it )?again(?!,? (?:\w+,? )?under a new id)", re.IGNORECASE)

    found = [
        (path.name, line.strip())
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text().splitlines()
        if advice.search(line)
    ]

    assert found == []


def test_a_pod_pending_for_a_node_still_has_its_hour():
    held = pod(unschedulable="0/3 nodes are available")

    assert judge(seen(job(), held), at(3000), SETTINGS) is None
