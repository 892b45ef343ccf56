"""Leftovers: what the sweeper finds and removes, and everything it must leave alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stage import FAST, JOB, Stage, service_on, stage

from pyvatti.sandbox.driver_plans import PLANS, by_job
from pyvatti.sandbox.kube.resources import JOBS, PODS, SECRETS
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

SWEEPING = {"SWEEP_INTERVAL": "0.3"}
LONG_AGO = datetime.now(UTC) - timedelta(hours=2)
OURS = {
    "managed-by": "pyvatti",
    "instance": "pyvatti",
    "job-id": "intp00000000777",
    "job-uid": "00000000-0000-4000-8000-000000000777",
}
NAME = "intervene-dev-intp00000000777-work-00000000"


def plant(on: Stage, name: str = NAME, created: datetime = LONG_AGO, **labels: str) -> str:
    """Put a bucket into the world as somebody left it."""
    ours = OURS | {"namespace-uid": on.world.namespace_uid}
    bucket = on.world.storage.add_bucket(name, labels=ours | labels)
    bucket.created = created
    return name


async def sweeps(on: Stage, count: int = 2) -> None:
    """Wait until so many further sweeps were made."""

    def listed() -> int:
        return sum(
            1 for item in on.world.storage.requests if item.method == "GET" and "/b?" in item.path
        )

    before = listed()
    await on.until(lambda: listed() >= before + count, "the sweeper sweeps")


async def test_a_bucket_of_ours_without_job_is_removed_with_its_objects():
    async with stage(**SWEEPING) as on:
        on.world.storage.put_object(plant(on), "data/genome.pgen", b"ACGT")

        await on.until(lambda: not on.world.storage.leftovers(), "it is removed")

        assert "pyvatti_swept_total" in (await on.client.get("/metrics")).text


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"managed-by": "somebody"}, id="managed by somebody else"),
        pytest.param({"instance": "other"}, id="of another installation"),
        pytest.param({"job-uid": ""}, id="without the uid of a job"),
    ],
)
async def test_a_bucket_that_is_not_ours_stays_whatever_its_name(labels: dict[str, str]):
    async with stage(**SWEEPING) as on:
        plant(on, **labels)

        await sweeps(on)

        assert list(on.world.storage.buckets) == [NAME]


async def test_a_young_bucket_stays_for_its_launch_may_be_under_way():
    async with stage(**SWEEPING) as on:
        plant(on, created=datetime.now(UTC))

        await sweeps(on)

        assert list(on.world.storage.buckets) == [NAME]


async def test_buckets_of_a_live_job_stay():
    async with stage("slow", **SWEEPING) as on:
        await on.launch()
        await on.until_state("Created")
        for bucket in on.world.storage.buckets.values():
            bucket.created = LONG_AGO

        await sweeps(on)

        assert len(on.world.storage.buckets) == 2


async def test_results_of_a_success_stay_as_long_as_their_record():
    async with stage(**SWEEPING) as on:
        await on.launch()
        await on.until_finished()
        for bucket in on.world.storage.buckets.values():
            bucket.created = LONG_AGO

        await sweeps(on)

        assert len(on.world.storage.buckets) == 1


async def test_a_failed_look_up_of_the_job_deletes_nothing():
    async with stage(**SWEEPING) as on:
        on.world.kube.faults.add("GET", "/jobs/intp00000000777", "status", status=500)
        plant(on)

        await sweeps(on)

        assert list(on.world.storage.buckets) == [NAME]


async def test_an_expired_record_goes_with_its_results():
    async with stage(RECORD_RETENTION_SECONDS="1", **SWEEPING) as on:
        await on.launch()
        await on.until_finished()

        await on.until(lambda: not on.world.storage.leftovers(), "the results are removed")
        record = f"{JOB.lower()}-record"
        await on.until(lambda: record not in on.world.objects("ConfigMap"), "the record is removed")

        assert (await on.client.get(f"/jobs/{JOB}")).status_code == 404


def strip(manifest: dict[str, Any], created: datetime = LONG_AGO) -> None:
    """Make an object as an Orphan deletion leaves it, some time later."""
    manifest["metadata"].pop("ownerReferences", None)
    manifest["metadata"]["creationTimestamp"] = f"{created:%Y-%m-%dT%H:%M:%SZ}"


LEFT = {
    "app.kubernetes.io/managed-by": "pyvatti",
    "hattivatti.geneticscores.org/instance": "pyvatti",
    "app.kubernetes.io/component": "driver",
    "hattivatti.geneticscores.org/job-id": "intp00000000777",
    "hattivatti.geneticscores.org/job-uid": OURS["job-uid"],
}


def plant_secret(
    on: Stage, name: str = "intp00000000777", created: datetime = LONG_AGO, **changes: str
) -> None:
    """Put a Secret into the cluster whose Job is gone."""
    secret = {
        "metadata": {"name": name, "labels": LEFT | changes},
        "data": {"tower-token": "c2VjcmV0"},
    }
    on.world.kube.store.create(SECRETS, "intervene-dev", secret)
    on.world.kube.store.mutate(SECRETS, "intervene-dev", name, lambda made: strip(made, created))


def plant_pod(on: Stage) -> None:
    """Put a pod into the cluster that was made just now and whose Job is gone."""
    container = {"name": "a", "image": "busybox", "command": ["/bin/sh", "-c", "sleep 600"]}
    pod = {
        "metadata": {
            "name": "intp00000000777-abcde",
            "labels": LEFT | {"batch.kubernetes.io/controller-uid": OURS["job-uid"]},
        },
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    on.world.kube.store.create(PODS, "intervene-dev", pod)


async def test_a_secret_of_ours_without_job_is_removed_and_never_read():
    async with stage(**SWEEPING) as on:
        plant_secret(on)

        await on.until(lambda: on.world.objects("Secret") == [], "it is removed")

        read = [item for item in on.world.kube.requests if item.resource == "secrets"]
        assert {item.verb for item in read} == {"list", "delete"}


async def test_a_young_secret_stays_for_its_launch_may_be_under_way():
    async with stage(**SWEEPING) as on:
        plant_secret(on, created=datetime.now(UTC))

        await sweeps(on)

        assert on.world.objects("Secret") == ["intp00000000777"]


async def test_a_secret_whose_id_belongs_to_a_later_job_is_removed():
    async with stage("slow", **SWEEPING) as on:
        await on.launch()
        await on.until_state("Created")
        plant_secret(on, "left", **{"hattivatti.geneticscores.org/job-id": JOB.lower()})

        await on.until(lambda: "left" not in on.world.objects("Secret"), "it is removed")

        assert JOB.lower() in on.world.objects("Secret")


async def test_a_secret_made_anew_while_the_leftover_of_its_name_is_removed_stays():
    async with stage(**SWEEPING) as on:
        store, requests = on.world.kube.store, on.world.kube.requests
        slow = on.world.kube.faults.add("DELETE", "/secrets", "slow", count=1, seconds=0.5)
        plant_secret(on)
        await on.until(lambda: slow.hits == 1, "it is to be removed")

        store.delete(SECRETS, "intervene-dev", "intp00000000777", propagation="Background")
        plant_secret(on, created=datetime.now(UTC))
        await sweeps(on)

        assert [item.status for item in requests if item.verb == "delete"] == [409]
        assert on.world.objects("Secret") == ["intp00000000777"]


async def test_a_bucket_stays_while_a_pod_of_its_job_may_still_write_into_it():
    async with stage(**SWEEPING) as on:
        plant_pod(on)
        plant(on)

        await sweeps(on)

        assert list(on.world.storage.buckets) == [NAME]


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"app.kubernetes.io/managed-by": "somebody"}, id="somebody else's"),
        pytest.param(
            {"hattivatti.geneticscores.org/instance": "other"}, id="of another installation"
        ),
        pytest.param({"hattivatti.geneticscores.org/job-uid": ""}, id="without the uid of a job"),
    ],
)
async def test_a_secret_that_is_not_ours_stays_whatever_its_name(labels: dict[str, str]):
    async with stage(**SWEEPING) as on:
        plant_secret(on, **labels)

        await sweeps(on)

        assert on.world.objects("Secret") == ["intp00000000777"]


async def test_secrets_and_pods_of_a_live_job_stay():
    async with stage("slow", **SWEEPING) as on:
        await on.launch()
        await on.until_state("Created")
        await on.until(lambda: on.world.objects("Pod") != [], "its pod is there")
        for kind in (SECRETS, PODS):
            for name in on.world.objects(kind.kind):
                on.world.kube.store.mutate(kind, "intervene-dev", name, strip)

        await sweeps(on)

        assert JOB.lower() in on.world.objects("Secret")
        assert len(on.world.objects("Pod")) == 1


async def test_a_job_whose_label_was_edited_while_nobody_looked_is_found(tmp_path: Path):
    async with World(plans=by_job({}, PLANS["slow"]), speed=20.0) as world:
        settings = Settings.model_validate(
            {
                name.lower(): value
                for name, value in (world.environment(tmp_path) | FAST | SWEEPING).items()
            }
        )
        async with service_on(world, settings) as on:
            await on.until_ready()
            await on.launch()
            await on.until_state("Created")
        world.kube.store.mutate(
            JOBS,
            "intervene-dev",
            JOB.lower(),
            lambda job: job["metadata"]["labels"].pop("app.kubernetes.io/managed-by"),
        )

        async with service_on(world, settings) as on:
            await on.until_ready()
            unseen = await on.client.get(f"/jobs/{JOB}")
            shown = await on.until_finished()

        assert unseen.status_code == 404
        assert shown["state"] == "Succeeded"
        assert on.told()[-1] == "succeeded"


async def test_a_job_that_does_not_wait_for_us_gets_no_label():
    container = {"name": "a", "image": "busybox", "command": ["/bin/sh", "-c", "sleep 600"]}
    labels = {name: value for name, value in LEFT.items() if "managed-by" not in name}
    job = {
        "metadata": {"name": "other", "labels": labels},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    async with stage(**SWEEPING) as on:
        on.world.kube.store.create(JOBS, "intervene-dev", job)

        await sweeps(on)

        kept = on.world.kube.store.get(JOBS, "intervene-dev", "other")
        assert kept["metadata"]["labels"] == labels
