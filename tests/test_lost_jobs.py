"""Jobs that leave our sight before we let go of them: forced away, or their labels edited."""

from pathlib import Path
from typing import Any, cast

import doors_stage
import pytest
from builders import job
from doors_stage import UID, finished, scene
from stage import JOB, Stage, launch_body, stage

from pyvatti.errors import JobFinished
from pyvatti.kube import Home
from pyvatti.labels import COMPONENT, FINALIZER, INSTANCE, JOB_UID, MANAGED_BY
from pyvatti.lifecycle.cache import Cache
from pyvatti.lifecycle.writing import JobWriter
from pyvatti.models import Presence
from pyvatti.policy import Progress
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS

BASE = JOB.lower()
HERE = (JOBS, "intervene-dev", BASE)


def force_away(on: Stage, propagation: str) -> None:
    """Delete the Job and strip its finalizers, as an impatient operator does."""

    def strip(manifest: dict[str, Any]) -> None:
        manifest["metadata"]["finalizers"] = []

    on.world.kube.store.delete(*HERE, propagation=propagation)
    on.world.kube.store.mutate(*HERE, strip)


@pytest.mark.parametrize("propagation", ["Background", "Orphan"])
@pytest.mark.parametrize("at", ["Requested", "Created", "Deployed"])
async def test_a_job_forced_away_is_cleaned_up_and_told_once(at: str, propagation: str):
    more = {"BUCKET_INTERVAL": "1"} if at == "Requested" else {}
    async with stage("slow", speed=40.0 if at == "Deployed" else 10.0, **more) as on:
        await on.launch()
        await on.until_state(at)

        force_away(on, propagation)

        shown = await on.until_finished()
        assert (shown["state"], shown["verdict"]["reason"]) == ("Failed", "Cancelled")
        assert on.told() == (["deployed", "failed"] if at == "Deployed" else ["failed"])
        assert on.leftovers() == []


async def test_what_the_backend_was_not_told_of_a_job_forced_away_is_told_later():
    async with stage() as on:
        on.world.backend.faults.add("PATCH", "/status", "status", status=503, count=None)
        await on.launch()
        await on.until_state("Succeeded")

        force_away(on, "Background")
        await on.until(lambda: BASE not in on.world.objects("Job"), "the Job is gone")
        on.world.backend.faults.clear()

        shown = await on.until_finished()
        assert shown["state"] == "Succeeded"
        assert on.told() == ["succeeded"]
        assert on.world.storage.leftovers() != []  # the results


async def test_an_id_is_not_taken_again_before_what_a_job_forced_away_left_is_removed():
    async with stage("slow", speed=40.0) as on:
        await on.launch()
        await on.until_state("Deployed")
        on.world.storage.faults.add("DELETE", "/b/", "status", status=503, count=None)
        force_away(on, "Background")
        await on.until_state("Failed")

        early = await on.client.post("/launch", json=launch_body())
        on.world.storage.faults.clear()
        await on.until_finished()
        late = await on.client.post("/launch", json=launch_body())

        assert (early.status_code, late.status_code) == (503, 409)
        assert on.told() == ["deployed", "failed"]
        assert on.leftovers() == []


@pytest.mark.parametrize("key", [MANAGED_BY, INSTANCE, COMPONENT])
@pytest.mark.parametrize("value", ["somebody", None])
async def test_a_job_whose_labels_were_edited_is_followed_to_its_end(key: str, value: str | None):
    async with stage("slow", speed=40.0) as on:

        def edit(job: dict[str, Any]) -> None:
            job["metadata"]["labels"].pop(key)
            if value is not None:
                job["metadata"]["labels"][key] = value

        await on.launch()
        await on.until_state("Deployed")
        before = on.world.kube.store.get(*HERE)["metadata"]["labels"]

        on.world.kube.store.mutate(*HERE, edit)
        await on.until(
            lambda: on.world.kube.store.get(*HERE)["metadata"]["labels"] == before, "it is mended"
        )

        shown = await on.until_finished()
        assert shown["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]


async def test_a_job_that_cannot_be_looked_up_is_not_believed_to_be_gone():
    async with stage("slow", speed=40.0) as on:
        await on.launch()
        await on.until_state("Deployed")
        on.world.kube.faults.add("GET", f"/jobs/{BASE}", "status", status=500, count=None)

        def edit(job: dict[str, Any]) -> None:
            job["metadata"]["labels"][MANAGED_BY] = "somebody"

        on.world.kube.store.mutate(*HERE, edit)
        asked = len([item for item in on.world.kube.requests if item.status == 500])
        await on.until(
            lambda: len([item for item in on.world.kube.requests if item.status == 500]) > asked,
            "it is looked for",
        )

        assert BASE in on.world.objects("Job")
        assert len(on.world.storage.buckets) == 2
        on.world.kube.faults.clear()
        assert (await on.until_finished())["state"] == "Succeeded"


def test_an_accept_whose_job_went_meanwhile_fails_by_its_own_error():
    cache, accepted = Cache(cast("Any", None), Home(cast("Any", None), "pyvatti")), job()

    def complete() -> None:
        with cache.accepting(accepted):
            cache._remove(accepted.names.base, accepted.uid)
            raise JobFinished("this id belongs to a finished job")

    with pytest.raises(JobFinished):
        complete()


async def test_only_a_record_of_ours_ends_a_job_that_left_our_sight(tmp_path: Path):
    base = doors_stage.BASE
    async with scene(tmp_path) as on:
        cache, writer = on.doors.cache, JobWriter(on.doors)
        metadata = {"name": base, "namespace": "intervene-dev", "uid": UID, "resourceVersion": "1"}
        cache._keep({"metadata": metadata | {"finalizers": [FINALIZER]}}, Presence.UNSEEN)
        lost = cache.job(base)
        assert lost is not None

        forged = on.put(CONFIGMAPS, f"{base}-record", metadata={"labels": {JOB_UID: UID}})
        await writer.find(lost)
        assert cache.job(base) is not None

        on.world.kube.store.delete(
            CONFIGMAPS, "intervene-dev", forged["metadata"]["name"], propagation="Background"
        )
        on.put_record(finished(), Progress())
        await writer.find(lost)
        assert cache.job(base) is None
