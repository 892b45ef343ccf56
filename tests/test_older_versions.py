"""What an older version left: its records stay readable, its Jobs are announced, no bucket goes.

The record is the one that the version before this one wrote.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import INSTALLATION, NAMES, UID
from doors_stage import DAYS_AGO, LONG_AGO, Scene, scene

from pyvatti import labels
from pyvatti.errors import JobNotFound
from pyvatti.jobs import why_record_not_ours
from pyvatti.lifecycle import gauges, records
from pyvatti.lifecycle.orphans import OF_BEFORE
from pyvatti.lifecycle.reading import Reader
from pyvatti.lifecycle.strangers import Strangers
from pyvatti.models import Delivery, State
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS

BEFORE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "record_of_before.json").read_text()
)
MARKS = {
    labels.MANAGED_BY: labels.MANAGER,
    labels.INSTANCE_BEFORE: "pyvatti",
    labels.COMPONENT: labels.DRIVER,
    labels.JOB_ID: NAMES.base,
}


def put_record(on: Scene, created: Any = LONG_AGO) -> None:
    raw = copy.deepcopy(BEFORE)
    name = raw["metadata"].pop("name")
    on.put(CONFIGMAPS, name, created, metadata=raw["metadata"], data=raw["data"])


def test_a_record_of_before_is_read():
    found = records.read(BEFORE, INSTALLATION)

    assert found is not None
    assert not found.unreadable
    assert (found.record.job_id, found.record.uid) == (NAMES.job_id, UID)
    assert (found.record.state, found.record.version) == (State.SUCCEEDED, 0)
    assert [notice.delivery for notice in found.record.outbox] == [Delivery.DEAD]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(labels.INSTANCE_BEFORE, "another", id="another release's"),
        pytest.param(labels.INSTANCE_BEFORE, None, id="nobody's"),
        pytest.param(labels.NAMESPACE_UID, "other", id="of another Namespace"),
        pytest.param(labels.NAMESPACE_UID, "", id="of no Namespace"),
        pytest.param(labels.MANAGED_BY, "helm", id="managed by others"),
        pytest.param(labels.COMPONENT, "driver", id="no record"),
        pytest.param(labels.JOB_ID, "intp1", id="under another job's name"),
        pytest.param(labels.JOB_UID, None, id="of no Job"),
    ],
)
def test_what_does_not_fit_in_all_respects_is_no_record_of_before(key: str, value: str | None):
    raw = copy.deepcopy(BEFORE)
    raw["metadata"]["labels"].pop(key, None)
    if value is not None:
        raw["metadata"]["labels"][key] = value

    assert why_record_not_ours(raw, INSTALLATION)


async def test_records_of_before_are_shown_and_listed(tmp_path: Path):
    async with scene(tmp_path) as on:
        put_record(on)
        on.doors.cache.job_informer._synced.set()
        on.doors.cache.pod_informer._synced.set()
        reader = Reader(on.doors)

        shown = await reader.show(NAMES.job_id)
        page = await reader.list_jobs(None, 10, "")
        lost = await reader.list_jobs(State.SUCCEEDED, 10, "", only_lost=True)
        report = await reader.deletion(NAMES.job_id)

        assert (shown.state, shown.results_bucket) == (State.SUCCEEDED, NAMES.results_bucket)
        assert [line.id for line in page.jobs] == [line.id for line in lost.jobs] == [NAMES.job_id]
        assert not report.complete  # nobody looked for its pods then
        on.doors.home._installation = replace(on.doors.installation, instance="another")
        with pytest.raises(JobNotFound):
            await reader.show(NAMES.job_id)


async def test_an_expired_record_of_before_goes_and_no_bucket_of_its_job(tmp_path: Path):
    async with scene(tmp_path) as on:
        put_record(on, DAYS_AGO)
        old = {labels.BUCKET_MANAGED_BY: labels.MANAGER, labels.BUCKET_INSTANCE: "pyvatti"}
        old |= {labels.BUCKET_JOB_ID: NAMES.base, labels.BUCKET_JOB_UID: UID}
        buckets = [NAMES.results_bucket, f"intervene-dev-{NAMES.base}-work", NAMES.work_bucket]
        for name in buckets:
            on.world.storage.add_bucket(name, labels=old).created = DAYS_AGO

        await on.sweep()

        assert f"{NAMES.base}-record" not in on.world.objects("ConfigMap")
        assert on.buckets == buckets


async def test_a_record_of_before_stays_for_its_time(tmp_path: Path):
    async with scene(tmp_path) as on:
        put_record(on)

        await on.sweep()

        assert f"{NAMES.base}-record" in on.world.objects("ConfigMap")
        assert "SetAside" not in [reason for reason, _ in on.events()]


async def test_a_job_of_before_is_announced_and_left_alone(tmp_path: Path):
    async with scene(tmp_path) as on:
        pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "busybox"}]}
        spec = {"suspend": True, "template": {"spec": pod}}
        ours = {"labels": MARKS, "finalizers": [labels.FINALIZER]}
        on.put(JOBS, NAMES.base, metadata=ours, spec=spec)
        on.put(JOBS, "intp1", metadata={"labels": MARKS}, spec=spec)  # let go: at rest

        await on.sweep()
        gauges._tell_foreign_jobs(on.doors, Strangers(on.doors.events))

        assert [(job.name, job.why) for job in on.doors.cache.foreign()] == [
            (NAMES.base, OF_BEFORE)
        ]
        assert on.events() == [("SetAside", NAMES.base)]
        metadata = on.get(JOBS, NAMES.base)["metadata"]
        assert {key: metadata[key] for key in ours} == ours
        assert "deletionTimestamp" not in metadata
