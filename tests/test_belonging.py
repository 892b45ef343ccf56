"""Whose a Pod or a Secret is: name, labels and owner must agree."""

from typing import Any

import pytest
from builders import INSTALLATION, NAMES

from pyvatti import labels
from pyvatti.jobs import (
    why_left_pod_not_ours,
    why_left_secret_not_ours,
    why_not_ours,
    why_pod_not_of,
    why_secret_not_of,
)
from pyvatti.models import Manifest

BASE, UID = NAMES.base, NAMES.uid
OWN = labels.identity(INSTALLATION, labels.DRIVER) | {labels.JOB_ID: BASE}
POD, SECRET = OWN | {labels.CONTROLLER_UID: UID}, OWN | {labels.JOB_UID: UID}
JOB = [{"kind": "Job", "name": BASE, "uid": UID}]
LATER = [{"kind": "Job", "name": BASE, "uid": "later"}]
SOMEBODY = [{"kind": "ReplicaSet", "name": "web", "uid": "rs"}]
DISGUISED = [{"kind": "ReplicaSet", "name": "web", "uid": UID}]


def thing(
    name: str, marks: dict[str, str], owners: list[dict[str, str]], **changes: Any
) -> Manifest:
    metadata: dict[str, Any] = {"name": name, "labels": marks | changes.pop("labels", {})}
    return {"metadata": metadata | ({"ownerReferences": owners} if owners else {})}


OTHERS = {
    "of another cluster": {labels.NAMESPACE_UID: "other"},
    "without a namespace": {labels.NAMESPACE_UID: ""},
    "of another installation": {labels.INSTANCE: "other"},
    "of another program": {labels.MANAGED_BY: "helm"},
    "of another id than its name's": {labels.JOB_ID: "intp00000000778"},
}


HASHED = {labels.REQUEST_HASH: "0" * 64}
ACCEPTED = {labels.TRANSITIONS: '{"Requested": "2026-01-01T00:00:00Z"}'}


@pytest.mark.parametrize(
    ("changes", "annotations", "is_ours"),
    [
        pytest.param({}, HASHED, True, id="launched"),
        pytest.param({}, ACCEPTED, True, id="accepted, its hash edited away"),
        pytest.param({}, ACCEPTED | {labels.REQUEST_HASH: "x"}, True, id="accepted, an odd hash"),
        pytest.param({}, {}, False, id="without a word of a launch"),
        pytest.param({}, {labels.REQUEST_HASH: "x"}, False, id="an odd hash alone"),
        *(
            pytest.param(changes, HASHED | ACCEPTED, False, id=what)
            for what, changes in OTHERS.items()
        ),
    ],
)
def test_whose_job_it_is(changes, annotations, is_ours):
    job = {
        "metadata": {
            "name": BASE,
            "namespace": INSTALLATION.namespace,
            "uid": UID,
            "resourceVersion": "1",
            "labels": OWN | changes,
            "annotations": annotations,
        }
    }
    assert (not why_not_ours(job, INSTALLATION)) is is_ours


@pytest.mark.parametrize(
    ("pod", "is_ours"),
    [
        pytest.param(thing(f"{BASE}-x", POD, JOB), True, id="its Job's"),
        pytest.param(thing("x", {}, JOB), True, id="its Job's, whatever was edited"),
        pytest.param(thing(f"{BASE}-x", POD, []), True, id="orphaned"),
        pytest.param(thing(f"{BASE}-x", POD, SOMEBODY), False, id="somebody else's"),
        pytest.param(thing(f"{BASE}-x", POD, DISGUISED), False, id="owned by no Job"),
        pytest.param(thing(f"{BASE}-x", POD, LATER), False, id="a later Job's"),
        pytest.param(thing("web-1", POD, []), False, id="of another name"),
        pytest.param(thing(BASE, POD, []), False, id="with the name of the Job"),
        pytest.param(
            thing(f"{BASE}-x", POD | {labels.CONTROLLER_UID: "later"}, []), False,
            id="of a later uid"),
        pytest.param(
            {"metadata": {"name": f"{BASE}-x", "labels": {labels.CONTROLLER_UID: UID}}}, False,
            id="one label alone"),
        *(
            pytest.param(thing(f"{BASE}-x", POD | changes, []), False, id=f"orphaned, {what}")
            for what, changes in OTHERS.items()
        ),
    ],
)  # fmt: skip
def test_whose_pod_it_is(pod, is_ours):
    assert (not why_pod_not_of(pod, NAMES, INSTALLATION)) is is_ours


@pytest.mark.parametrize(
    ("secret", "is_ours"),
    [
        pytest.param(thing(BASE, SECRET, JOB), True, id="its Job's"),
        pytest.param(thing(f"{BASE}-transfer", {}, JOB), True, id="its Job's, whatever was edited"),
        pytest.param(thing(f"{BASE}-transfer", SECRET, []), True, id="orphaned or restored"),
        pytest.param(
            thing(f"{BASE}-transfer", SECRET | {labels.JOB_UID: "earlier"}, []), True,
            id="restored from an earlier job of this id"),
        pytest.param(thing(BASE, SECRET, SOMEBODY), False, id="somebody else's"),
        pytest.param(thing(BASE, SECRET, LATER), False, id="a later Job's"),
        pytest.param(thing("left", SECRET, JOB), False, id="of another name"),
        pytest.param({"metadata": {"name": BASE}}, False, id="without labels"),
        *(
            pytest.param(thing(BASE, SECRET | changes, []), False, id=f"orphaned, {what}")
            for what, changes in OTHERS.items()
        ),
    ],
)  # fmt: skip
def test_whose_secret_it_is(secret, is_ours):
    assert (not why_secret_not_of(secret, NAMES, INSTALLATION)) is is_ours


@pytest.mark.parametrize(
    ("pod", "is_ours"),
    [
        pytest.param(thing(f"{BASE}-x", POD, JOB), True, id="of a Job"),
        pytest.param(thing(f"{BASE}-x", POD, []), True, id="orphaned"),
        pytest.param(thing(f"{BASE}-x", POD, SOMEBODY), False, id="owned by somebody"),
        pytest.param(thing(f"{BASE}-x", OWN, []), False, id="of no Job"),
        pytest.param(thing("x.y-x", POD | {labels.JOB_ID: "x.y"}, []), False, id="of an odd id"),
        *(
            pytest.param(thing(f"{BASE}-x", POD | changes, JOB), False, id=what)
            for what, changes in list(OTHERS.items())[:4]
        ),
    ],
)  # fmt: skip
def test_which_pods_are_swept(pod, is_ours):
    assert (not why_left_pod_not_ours(pod, INSTALLATION)) is is_ours


@pytest.mark.parametrize(
    ("secret", "is_ours"),
    [
        pytest.param(thing(BASE, SECRET, []), True, id="orphaned"),
        pytest.param(thing(BASE, SECRET, SOMEBODY), False, id="owned by somebody"),
        pytest.param(thing(BASE, OWN, []), False, id="of no Job"),
        pytest.param(thing("x.y", SECRET | {labels.JOB_ID: "x.y"}, []), False, id="of an odd id"),
        *(
            pytest.param(thing(BASE, SECRET | changes, JOB), False, id=what)
            for what, changes in list(OTHERS.items())[:4]
        ),
    ],
)  # fmt: skip
def test_which_secrets_are_swept(secret, is_ours):
    assert (not why_left_secret_not_ours(secret, INSTALLATION)) is is_ours
