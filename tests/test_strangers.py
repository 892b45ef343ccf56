"""Objects of other people under a job's own names: never changed, never deleted."""

from typing import Any

from stage import JOB, Stage, stage

from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.kube.resources import CONFIGMAPS, SECRETS

BASE = JOB.lower()
WORK = f"intervene-dev-{BASE}-work"


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

        assert WORK not in on.world.storage.buckets
        assert BASE in on.world.objects("Job")
        assert store.get(CONFIGMAPS, namespace, f"{BASE}-record") == planted

        store.delete(CONFIGMAPS, namespace, f"{BASE}-record", propagation="Background")
        await on.until(lambda: BASE not in on.world.objects("Job"), "the job is let go")
        assert f"{BASE}-record" in on.world.objects("ConfigMap")
