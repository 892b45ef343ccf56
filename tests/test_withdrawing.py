"""Taking a launch back: through any number of conflicts, and only where its Secret never stood."""

import base64
from functools import partial
from typing import Any

import pytest
from accept_model import NAMES, Process, World, act, collect, delete, put
from builders import INSTALLATION, T0
from test_accept_model import ONE, OTHER, Rendered, doors, launching

from pyvatti import labels
from pyvatti.jobs import names_for, read_job
from pyvatti.kube import JOBS, SECRETS
from pyvatti.lifecycle.withdrawing import TRIES, is_stored, withdraw
from pyvatti.manifests.serialisers import to_json

UID = "Job-0"
MINE = "nonce-mine"
FIVE = ["get", "create", "get", "create", "get"]  # the calls of an accept


def made(**changes: Any) -> dict[str, Any]:
    """Give a Job that was just made."""
    raw = Rendered().job(ONE, INSTALLATION)
    raw["metadata"] |= {"uid": UID, "resourceVersion": "1", "namespace": INSTALLATION.namespace}
    raw["metadata"] |= {"creationTimestamp": T0.isoformat()} | changes
    raw["metadata"]["annotations"][labels.ACCEPT] = MINE
    return raw


def secret() -> dict[str, Any]:
    """Give the Secret that completes the accept."""
    names = names_for(NAMES.job_id, INSTALLATION.namespace, UID)
    raw = Rendered().driver_secret(ONE, names, INSTALLATION)
    raw["metadata"] |= {"uid": "Secret-0", "resourceVersion": "1"}
    return raw


def play(
    world: World, *, writes: int = 0, nonce: str | None = MINE
) -> tuple[World, str, list[str]]:
    """Withdraw while the Job controller writes before so many patches; give world, end, calls."""
    raw = world.read(JOBS)
    job = read_job(raw or {})
    process, calls = Process(partial(withdraw, doors(), job, nonce=nonce)), []
    node = process.begin
    while node.call is not None:
        found = world.read(JOBS)
        if node.call.verb == "patch" and writes and found is not None:
            writes, world = writes - 1, put(world, JOBS, found)
        calls.append(f"{node.call.verb} {node.call.kind.plural}")
        world, answer = act(world, node.call)
        node = process.step(node, answer)
    while (after := collect(world)) is not None:
        world = after
    return world, node.result, calls


def test_a_withdrawal_marks_looks_decides_and_deletes():
    world, end, calls = play(World().write(JOBS, made()))

    assert (world.job, end) == ("", "None")
    assert calls == ["patch jobs", "get secrets", "patch jobs", "delete jobs"]


@pytest.mark.parametrize("writes", range(1, TRIES))
def test_it_is_tried_again_after_each_conflict(writes: int):
    world, end, _ = play(World().write(JOBS, made()), writes=writes)

    assert (world.job, end) == ("", "None")


def test_a_job_that_changes_for_ever_is_left_to_the_acting_replica_with_an_error():
    world, end, _ = play(World().write(JOBS, made()), writes=10**6)

    assert end == "Conflict"
    assert world.job


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_job_whose_secret_stands_is_kept_as_it_was(writes: int):
    before = World().write(JOBS, made()).write(SECRETS, secret())

    world, _, calls = play(before, writes=writes)

    raw = world.read(JOBS)
    assert raw is not None
    assert labels.WITHDRAWN not in raw["metadata"]["annotations"]
    assert raw["metadata"]["finalizers"] == [labels.FINALIZER]
    assert "delete jobs" not in calls


@pytest.mark.parametrize(
    ("annotations", "nonce", "is_gone"),
    [
        pytest.param({}, "nonce-other", False, id="another request's"),
        pytest.param({}, None, True, id="the acting replica may"),
        pytest.param({labels.TRANSITIONS: f'{{"Requested":"{T0.isoformat()}"}}'}, None, False,
                     id="accepted"),
        pytest.param({labels.WITHDRAWN: labels.IN_DOUBT}, None, True, id="begun"),
        pytest.param({labels.WITHDRAWN: labels.DECIDED}, None, True, id="decided"),
    ],
)  # fmt: skip
def test_only_a_job_that_was_not_accepted_goes_and_only_by_who_may(annotations, nonce, is_gone):
    raw = made()
    raw["metadata"]["annotations"] |= annotations
    if labels.DECIDED in annotations.values():
        raw["metadata"]["finalizers"] = []

    world, _, calls = play(World().write(JOBS, raw), nonce=nonce)

    assert (world.job == "") is is_gone
    assert bool(calls) is is_gone


def test_what_is_decided_is_not_taken_back_though_its_secret_comes_late():
    raw = made(finalizers=[])
    raw["metadata"]["annotations"][labels.WITHDRAWN] = labels.DECIDED

    world, _, calls = play(World().write(JOBS, raw).write(SECRETS, secret()))

    assert (world.job, calls) == ("", ["delete jobs"])


def _strange(where: str) -> dict[str, Any]:
    raw = secret()
    metadata = raw["metadata"]
    match where:
        case "owner":
            metadata["ownerReferences"][0]["uid"] = "Job-former"
        case "installation":
            metadata["labels"][labels.NAMESPACE_UID] = "another"
        case "id":
            metadata["labels"][labels.JOB_ID] = "intp00000000001"
        case "request":
            other = base64.b64encode(to_json(OTHER.canonical()).encode()).decode()
            raw["data"]["request.json"] = other
        case "no text" | "no JSON":
            raw["data"]["request.json"] = "%%%" if where == "no text" else "AAAA"
        case _:
            pass
    return raw


@pytest.mark.parametrize(
    ("where", "is_proof"),
    [
        ("", True),
        ("owner", False),
        ("installation", False),
        ("id", False),
        ("request", False),
        ("no text", False),
        ("no JSON", False),
    ],
)
def test_only_the_secret_of_this_very_job_proves_an_accept(where: str, is_proof: bool):  # noqa: FBT001 - a row
    world = World().write(SECRETS, _strange(where))
    process = Process(partial(is_stored, doors(), read_job(made())))
    call = process.begin.call
    assert call is not None

    end = process.step(process.begin, act(world, call)[1])

    assert end.result == str(is_proof)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_no_launch_of_a_job_that_somebody_deletes_meanwhile_is_answered_201(propagation: str):
    process, world = Process(partial(launching, MINE, ONE)), World()
    node, verbs = process.begin, []
    while node.call is not None:
        verbs.append(node.call.verb)
        if len(verbs) == len(FIVE):
            world = delete(world, world.read(JOBS), propagation)[0]
        world, answer = act(world, node.call)
        node = process.step(node, answer)

    assert verbs == FIVE
    assert node.result == "Unavailable"


def test_a_mark_that_another_took_back_is_not_set_again():
    world = World().write(JOBS, made()).write(SECRETS, secret())
    process = Process(partial(withdraw, doors(), read_job(made()), nonce=MINE))
    node, marks = process.begin, 0
    while node.call is not None:
        raw = world.read(JOBS)
        assert raw is not None
        if labels.WITHDRAWN in raw["metadata"]["annotations"] and node.call.verb == "patch":
            del raw["metadata"]["annotations"][labels.WITHDRAWN]
            world = put(world, JOBS, raw)
        marks += node.call.verb == "patch" and labels.IN_DOUBT in node.call.body
        world, answer = act(world, node.call)
        node = process.step(node, answer)

    assert (marks, node.result) == (1, "None")
