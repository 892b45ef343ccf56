"""Pods of a job whose owner or labels somebody edited: neither forgotten nor called gone."""

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
from builders import INSTALLATION, NAMES, T0, UID

from pyvatti import labels
from pyvatti.errors import NotOurs
from pyvatti.jobs import read_pod
from pyvatti.kube import Home
from pyvatti.lifecycle import removing
from pyvatti.lifecycle.cache import Cache
from pyvatti.models import Manifest

OTHER = "00000000-0000-4000-8000-00000000beef"
OWN = [{"kind": "Job", "name": NAMES.base, "uid": UID}]
EDITED = [{"kind": "ReplicaSet", "name": "web", "uid": OTHER}]


def pod(owners: list[dict[str, str]], phase: str = "Running", **changes: str) -> Manifest:
    marks = labels.identity(INSTALLATION, labels.DRIVER) | {
        labels.JOB_ID: NAMES.base,
        labels.CONTROLLER_UID: UID,
    }
    metadata = {"name": f"{NAMES.base}-a", "uid": "pod-1", "ownerReferences": owners}
    return {"metadata": metadata | {"labels": marks | changes}, "status": {"phase": phase}}


def cache() -> Cache:
    home = Home(cast("Any", None), INSTALLATION.instance)
    home._installation = INSTALLATION
    return Cache(cast("Any", None), home)


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(pod(EDITED), id="another owner"),
        pytest.param(pod([], **{labels.CONTROLLER_UID: OTHER}), id="another controller-uid"),
    ],
)
def test_a_pod_stays_that_of_the_job_it_was_believed_for(edited: Manifest):
    known = cache()
    known._pod_changed(None, pod(OWN))

    known._pod_changed(pod(OWN), edited)
    ended = copy.deepcopy(edited) | {"status": {"phase": "Succeeded"}}
    known._pod_changed(edited, ended)

    assert [(item.uid, item.job_uid, item.phase) for item in known.pods(UID)] == [
        ("pod-1", UID, "Succeeded")
    ]
    assert known.pods(OTHER) == ()
    known._pod_changed(ended, None)
    assert known.pods(UID) == ()
    assert not known._job_of


class Pods:
    """An API server that holds one pod, unless it was deleted."""

    def __init__(self, raw: Manifest) -> None:
        self._raw: Manifest | None = raw
        self.deleted: list[str] = []

    async def list_page(self, _: Any, *, selector: str) -> Any:
        key, _, value = selector.partition("=")
        fits = self._raw is not None and self._raw["metadata"]["labels"].get(key) == value
        return SimpleNamespace(items=[self._raw] if fits else [])

    async def get(self, _: Any, name: str) -> Manifest | None:
        return self._raw if self._raw and self._raw["metadata"]["name"] == name else None

    async def delete(self, _: Any, name: str, *, uid: str) -> None:
        assert self._raw is not None
        assert uid == self._raw["metadata"]["uid"]
        self.deleted.append(name)
        self._raw = None


def doors(kube: Pods, *known: Manifest) -> Any:
    pods = tuple(read_pod(raw) for raw in known)
    here = SimpleNamespace(pods=lambda _: pods)
    return SimpleNamespace(kube=kube, cache=here, installation=INSTALLATION, clock=lambda: T0)


async def test_a_pod_with_another_owner_that_nobody_knew_before_remains_and_is_named():
    kube = Pods(pod(EDITED))

    with pytest.raises(NotOurs, match=f"Pod {NAMES.base}-a .* belongs to ReplicaSet web"):
        await removing.clear_pods(doors(kube), NAMES)

    assert kube.deleted == []


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(pod(EDITED), id="another owner"),
        pytest.param(pod(EDITED, **{labels.CONTROLLER_UID: OTHER}), id="owner and controller-uid"),
    ],
)
async def test_a_pod_that_was_known_as_the_jobs_is_deleted_whatever_was_edited(edited: Manifest):
    kube = Pods(edited)
    here = doors(kube, pod(OWN))

    assert [item["metadata"]["uid"] for item in await removing.list_pods(here, NAMES)] == ["pod-1"]
    removal = await removing.clear_pods(here, NAMES)

    assert kube.deleted == [f"{NAMES.base}-a"]
    assert removal.proven_absent_at == T0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({labels.NAMESPACE_UID: "other"}, id="of another Namespace"),
        pytest.param({labels.JOB_ID: "intp1"}, id="of another job"),
        pytest.param({labels.COMPONENT: "web"}, id="of another component"),
    ],
)
async def test_a_pod_that_only_borrows_a_label_says_nothing(changes: dict[str, str]):
    removal = await removing.clear_pods(doors(Pods(pod(EDITED, **changes))), NAMES)

    assert removal.removed_at is None
