"""Objects of other people under a job's own names: never changed, never deleted."""

from pathlib import Path
from typing import Any

from stage import FAST, JOB, Stage, launch_body, service_on, stage

from pyvatti.sandbox.driver_plans import PLANS, Plan, by_job
from pyvatti.sandbox.kube.resources import CONFIGMAPS, SECRETS
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

BASE = JOB.lower()


def _plant(on: Stage, kind: Any, name: str) -> dict[str, Any]:
    body = {"metadata": {"name": name, "labels": {"owner": "somebody-else"}}}
    made: dict[str, Any] = on.world.kube.store.create(kind, on.world.namespace, body)
    return made


async def test_a_secret_of_somebody_else_fails_the_job_and_stays():
    async with stage() as on:
        planted = _plant(on, SECRETS, f"{BASE}-transfer")
        await on.launch()
        shown = await on.until_finished()

        assert shown["state"] == "Failed"
        assert on.told() == ["failed"]
        assert on.world.kube.store.get(SECRETS, on.world.namespace, f"{BASE}-transfer") == planted


async def test_a_configmap_of_somebody_else_is_not_made_the_record_and_the_job_waits_for_its_name():
    async with stage(Plan(run_seconds=40)) as on:
        await on.launch()
        await on.until_state("Created", "Deployed")
        planted = _plant(on, CONFIGMAPS, f"{BASE}-record")
        store, namespace = on.world.kube.store, on.world.namespace
        refused = on.world.kube.requests
        await on.until(
            lambda: any(item.method == "POST" and item.status == 409 for item in refused),
            "the record is refused",
        )

        assert not on.world.work_bucket(BASE)
        assert BASE in on.world.objects("Job")
        assert store.get(CONFIGMAPS, namespace, f"{BASE}-record") == planted

        store.delete(CONFIGMAPS, namespace, f"{BASE}-record", propagation="Background")
        await on.until(lambda: BASE not in on.world.objects("Job"), "the job is let go")
        assert f"{BASE}-record" in on.world.objects("ConfigMap")


async def test_another_installation_in_the_namespace_keeps_its_jobs_to_itself(tmp_path: Path):
    async with World(plans=by_job({}, PLANS["slow"]), speed=40.0) as world:
        both = [
            Settings.model_validate(
                {name.lower(): value for name, value in (environment | FAST).items()}
            )
            for instance in ("pyvatti", "other")
            for environment in [world.environment(tmp_path) | {"INSTANCE": instance}]
        ]
        async with (
            service_on(world, both[0]) as on,
            service_on(world, both[1]) as beside,
        ):
            for each in (on, beside):
                await each.until_ready()
            other = beside.client
            await on.launch()
            await on.until_state("Deployed")
            live = [
                await other.post("/launch", json=launch_body()),
                await other.get(f"/jobs/{JOB}"),
                await other.delete(f"/jobs/{JOB}"),
                await other.post(f"/jobs/{JOB}/redeliver"),
            ]
            shown = await on.until_finished()
            finished = [
                await other.post("/launch", json=launch_body()),
                await other.get(f"/jobs/{JOB}"),
                await other.delete(f"/jobs/{JOB}"),
                await other.post(f"/jobs/{JOB}/redeliver"),
            ]

        assert [answer.status_code for answer in live] == [409, 404, 404, 404]
        assert [answer.status_code for answer in finished] == [409, 404, 404, 404]
        assert shown["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]
