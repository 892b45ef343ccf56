"""Records: whose they are, what they say, and that one nobody can read exists all the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import INSTALLATION, T0, settings
from doors_stage import BASE, UID, finished, scene

from pyvatti import labels
from pyvatti.errors import NotOurs
from pyvatti.jobs import id_names, names_for
from pyvatti.lifecycle import records
from pyvatti.manifests import Renderer
from pyvatti.models import Delivery, Event, Manifest, Notice, Remainder, Removal, State, Verdict
from pyvatti.policy import Progress
from pyvatti.sandbox.kube.resources import CONFIGMAPS

RECORD = f"{BASE}-record"
SUCCESS = finished(
    verdict=Verdict(state=State.SUCCEEDED, reason="RunSucceeded", message="done"),
    outbox=(Notice(sequence=1, event=Event.SUCCEEDED, at=T0, delivery=Delivery.DELIVERED),),
)
LATER = finished(uid="5", names=names_for(BASE, "intervene-dev", "5"))
RENDERER = Renderer(settings())


def manifest(**said: Any) -> Manifest:
    """Make the record of a success as the API server gives it; `said` changes its content."""
    made = records.build(RENDERER, SUCCESS, INSTALLATION, Progress(), T0)
    made["metadata"] |= {"creationTimestamp": "2026-11-23T12:00:00Z", "resourceVersion": "7"}
    content = json.loads(made["data"]["record.json"]) | said
    made["data"]["record.json"] = json.dumps(
        {key: value for key, value in content.items() if value is not ...}
    )
    return made


def labelled(**changes: str) -> Manifest:
    made = manifest()
    own = made["metadata"]["labels"]
    keys = {"job_id": labels.JOB_ID, "job_uid": labels.JOB_UID, "state": labels.STATE,
            "managed_by": labels.MANAGED_BY, "instance": labels.INSTANCE,
            "namespace_uid": labels.NAMESPACE_UID, "component": labels.COMPONENT}  # fmt: skip
    for key, value in changes.items():
        own[keys[key]] = value
    return made


OLD: dict[str, Any] = {"version": ..., "namespace_uid": ..., "remaining": ...}
"""What a record of the form without version does not hold."""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="of this version"),
        pytest.param(OLD, id="without version"),
        pytest.param(OLD | {"outbox": ..., "removals": ..., "verdict": ...}, id="and without more"),
    ],
)
def test_a_record_of_this_or_an_older_form_is_read(said: dict[str, Any]):
    found = records.read(manifest(**said), INSTALLATION)

    assert found is not None
    assert (found.unreadable, found.resource_version) == ("", "7")
    assert found.record.results_bucket == f"intervene-dev-{BASE}-results"
    assert found.record.version == (1 if not said else 0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param({"version": 2}, "newer pyvatti (form 2)", id="a newer form"),
        pytest.param({"version": 2, "state": "Paused"}, "newer", id="a newer form, another state"),
        pytest.param({"kept": "x"}, "kept", id="a field"),
        pytest.param({"state": "Paused"}, "state", id="a state"),
        pytest.param({"version": -1}, "version", id="an impossible form"),
        pytest.param({"accepted_at": "2026-11-23T12:00:00"}, "zone", id="a time without zone"),
        pytest.param(
            {"transitions": {"Failed": "2026-11-23T12:00:00"}}, "zone", id="deep inside"),
        pytest.param({"verdict": {"state": "Succeeded", "reason": "r", "message": "m", "evidence": [
            {"witness": "batch", "said": "s", "at": "2026-11-23T12:00:00Z"}]}},
            "witness", id="a witness"),
        pytest.param({"removals": [{"resource": "bucket/x", "kept": 1}]}, "kept", id="deep field"),
        pytest.param({"job_id": "INTP00000000001"}, "job_id", id="another job's content"),
        pytest.param({"job_id": ".."}, "job_id", id="a path for an id"),
        pytest.param({"uid": "other"}, "uid", id="another Job's of this id"),
        pytest.param({"state": "Failed"}, "state", id="another end than its label's"),
        pytest.param({"namespace_uid": "other"}, "namespace_uid", id="another installation's"),
        pytest.param({"namespace_uid": ...}, "namespace_uid", id="of nobody"),
    ],
)  # fmt: skip
def test_what_is_ours_by_name_and_labels_exists_though_it_cannot_be_read(
    said: dict[str, Any], words: str
):
    found = records.read(manifest(**said), INSTALLATION)

    assert found is not None
    assert words in found.unreadable
    assert (found.record.job_id, found.record.uid) == (BASE.upper(), UID)
    assert found.record.state is State.SUCCEEDED
    assert found.record.results_bucket is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"version": "2"}', "[" * 5000])
def test_content_that_is_no_record_makes_no_error(text: str):
    made = manifest()
    made["data"]["record.json"] = text

    found = records.read(made, INSTALLATION)

    assert found is not None
    assert found.unreadable


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(labelled(namespace_uid="other"), id="of another cluster, or restored"),
        pytest.param(labelled(namespace_uid=""), id="four labels and no namespace"),
        pytest.param(labelled(instance="other"), id="of another installation"),
        pytest.param(labelled(managed_by="helm"), id="of another program"),
        pytest.param(labelled(component="driver"), id="no record"),
        pytest.param(labelled(job_id="intp00000000001"), id="of another name"),
        pytest.param(labelled(job_id="INTP_x.Y"), id="of no job"),
        pytest.param(labelled(job_uid=""), id="of no Job"),
        pytest.param({"metadata": {"name": RECORD}}, id="without labels"),
    ],
)
def test_what_is_not_ours_by_name_and_labels_is_not_believed(made: Manifest):
    assert records.read(made, INSTALLATION) is None


def test_a_copy_under_another_name_is_not_believed():
    made = manifest()
    made["metadata"]["name"] = "kube-root-ca.crt"

    assert records.read(made, INSTALLATION) is None


def test_a_record_says_in_its_metadata_that_something_remains():
    left = Remainder(resource="bucket/x", reason="not ours")
    marks = [
        records.build(RENDERER, SUCCESS, INSTALLATION, done, T0)["metadata"]["annotations"]
        for done in (Progress(), Progress(remaining=(left,)), Progress(removals=_all_absent()))
    ]

    assert [bool(item[labels.REMAINS]) for item in marks] == [True, True, False]


def _all_absent() -> tuple[Removal, ...]:
    names = SUCCESS.names
    resources = (
        f"secret/{BASE}", f"secret/{BASE}-transfer", f"pods/{BASE}",
        f"bucket/{names.work_bucket}/work/transfer", f"bucket/{names.work_bucket}",
    )  # fmt: skip
    return tuple(Removal(resource=name, proven_absent_at=T0) for name in resources)


# Writing, against the stand-in


async def _store(on: Any, of: Any = SUCCESS) -> None:
    made = records.build(on.doors.renderer, of, on.doors.installation, Progress(), T0)
    await records.store(on.doors.kube, made, on.doors.installation)


def _content(on: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(on.get(CONFIGMAPS, RECORD)["data"]["record.json"])
    return said


async def test_records_are_written_over_only_where_they_are_this_very_jobs(tmp_path: Path):
    def newer(made: Manifest) -> None:
        made["data"]["record.json"] = json.dumps({"version": 2, "verdict": "as later ones say"})

    def broken(made: Manifest) -> None:
        made["data"]["record.json"] = "{"

    def restored(made: Manifest) -> None:
        made["metadata"]["labels"][labels.NAMESPACE_UID] = "another"

    async with scene(tmp_path) as on:
        store = on.world.kube.store

        def clear() -> None:
            store.delete(CONFIGMAPS, on.world.namespace, RECORD, propagation="Background")

        await _store(on)
        await _store(on, finished(verdict=Verdict(state=State.SUCCEEDED, reason="X", message="m")))
        assert _content(on)["verdict"]["reason"] == "X"
        clear()
        on.put_record(SUCCESS, Progress(), change=broken)
        await _store(on)
        assert _content(on)["uid"] == UID
        clear()
        on.put_record(SUCCESS, Progress(), change=newer)
        await _store(on)
        assert _content(on)["verdict"] == "as later ones say"
        clear()
        for of, change in ((SUCCESS, restored), (LATER, broken)):
            planted = on.put_record(of, Progress(), change=change)
            with pytest.raises(NotOurs, match="somebody else's"):
                await _store(on)
            assert on.get(CONFIGMAPS, RECORD) == planted
            clear()


async def test_a_record_is_changed_by_compare_and_swap_and_one_unread_is_left(tmp_path: Path):
    names = id_names(BASE, "intervene-dev")
    async with scene(tmp_path) as on:
        on.put_record(SUCCESS, Progress())
        kube, whose = on.doors.kube, on.doors.installation
        tries: list[int] = []

        def change(newest: Any) -> Any:
            if not tries:  # somebody writes between our reading and our writing
                on.world.kube.store.mutate(
                    CONFIGMAPS,
                    on.world.namespace,
                    RECORD,
                    lambda raw: raw["metadata"]["annotations"].update(seen="yes"),
                )
            tries.append(1)
            return _with_left(newest)

        changed = await records.update(kube, names, whose, change)
        assert changed is not None
        assert len(tries) == 2
        assert _content(on)["remaining"][0]["resource"] == "bucket/x"
        assert on.get(CONFIGMAPS, RECORD)["metadata"]["annotations"]["seen"] == "yes"

        on.world.kube.store.mutate(
            CONFIGMAPS,
            on.world.namespace,
            RECORD,
            lambda raw: raw["data"].update({"record.json": '{"version": 9}'}),
        )
        await records.update(kube, names, whose, _with_left)
        assert _content(on) == {"version": 9}


def _with_left(newest: Any) -> Any:
    return replace(newest, remaining=(Remainder(resource="bucket/x", reason="r"),))
