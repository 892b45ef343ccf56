"""Objects of other people under a job's own names, and ours that others hold or edit.

Strangers' things are never changed, deleted or believed; what of ours cannot be deleted is named.
"""

import asyncio
import copy
import json
from pathlib import Path
from typing import Any, cast

from api_calls import PATIENCE
from builders import INSTALLATION, NAMES, UID
from stage import FAST, JOB, Stage, launch_body, service_on, stage

from pyvatti import labels
from pyvatti.kube import Home
from pyvatti.lifecycle.cache import Cache
from pyvatti.models import Manifest
from pyvatti.sandbox.driver_plans import PLANS, Plan, by_job
from pyvatti.sandbox.kube.resources import CONFIGMAPS, EVENTS, JOBS, PODS, SECRETS
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


# Pods that only look like a job's


def _pod(name: str, owners: list[dict[str, str]], **changes: str) -> Manifest:
    marks = labels.identity(INSTALLATION, labels.DRIVER) | {
        labels.JOB_ID: NAMES.base,
        labels.CONTROLLER_UID: UID,
    }
    metadata = {"name": name, "uid": name, "labels": marks | changes, "ownerReferences": owners}
    return {"metadata": metadata, "status": {"phase": "Succeeded"}}


def test_a_pod_that_only_carries_our_labels_is_not_believed():
    home = Home(cast("Any", None), INSTALLATION.instance)
    home._installation = INSTALLATION
    cache = Cache(cast("Any", None), home)
    own = _pod(f"{NAMES.base}-a", [{"kind": "Job", "name": NAMES.base, "uid": UID}])
    somebody = [{"kind": "ReplicaSet", "name": "web", "uid": UID}]
    strangers = [
        _pod(f"{NAMES.base}-b", somebody),
        _pod(f"{NAMES.base}-c", [], **{labels.NAMESPACE_UID: "other"}),
        _pod("web-1", []),
    ]

    for pod in (own, *strangers):
        cache._pod_changed(None, pod)
    assert [pod.name for pod in cache.pods(UID)] == [f"{NAMES.base}-a"]
    for pod in strangers:
        cache._pod_changed(pod, None)
    assert [pod.name for pod in cache.pods(UID)] == [f"{NAMES.base}-a"]
    cache._pod_changed(own, None)
    assert cache.pods(UID) == ()


# Ours, held or edited by others

LONG = Plan(run_seconds=2000)  # it ends when it is cancelled


async def _until(on: Stage, path: str, fits: Any) -> dict[str, Any]:
    """Wait until an answer of the API is as wanted."""
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            while not fits(shown):
                await asyncio.sleep(0.02)
                shown = (await on.client.get(path)).json()
    except TimeoutError:
        raise AssertionError(f"never as wanted: {shown}") from None
    return shown


def _events(on: Stage, name: str = BASE) -> list[str]:
    listed = on.world.kube.store.list(EVENTS, on.world.namespace)
    return [
        item["reason"]
        for item in listed
        if (item.get("regarding") or item["involvedObject"])["name"] == name
    ]


async def test_an_ended_pod_that_a_finalizer_holds_keeps_no_data_and_is_named():
    hold = "example.com/hold"
    async with stage() as on:
        store, loop = on.world.kube.store, asyncio.get_running_loop()

        def add(pod: Manifest) -> None:
            pod["metadata"].setdefault("finalizers", []).append(hold)

        def watch(change: str, kind: Any, new: Manifest, _old: Any) -> None:
            metadata = new["metadata"]
            if kind is PODS and change == "ADDED" and hold not in metadata.get("finalizers", ()):
                loop.call_soon(
                    lambda: store.mutate(PODS, metadata["namespace"], metadata["name"], add)
                )

        store.subscribe(watch)
        await on.launch()
        shown = await _until(
            on, f"/jobs/{JOB}", lambda it: (it.get("waiting") or {}).get("on") == "pod finalizer"
        )
        await on.until(lambda: not on.world.work_bucket(BASE), "the genomes are gone")
        await on.until(lambda: on.world.objects("Secret") == [], "the credentials are gone")

        (pod,) = on.world.objects("Pod")
        assert pod in shown["waiting"]["message"]
        assert hold in shown["waiting"]["message"]
        assert (await on.client.get(f"/jobs/{JOB}/deletion")).json()["complete"] is False
        assert (await on.show())["live"]

        store.mutate(
            PODS, on.world.namespace, pod, lambda made: made["metadata"].update(finalizers=[])
        )
        await on.until_finished()
        assert (await on.client.get(f"/jobs/{JOB}/deletion")).json()["complete"] is True


async def test_what_others_edited_or_restored_is_removed_or_named_and_never_called_gone():
    async with stage(LONG) as on:
        store, kept = on.world.kube.store, []
        transfer = f"{BASE}-transfer"
        store.subscribe(
            lambda _change, kind, new, _old: (
                kept.append(copy.deepcopy(new))
                if kind is SECRETS and new["metadata"]["name"] == transfer
                else None
            )
        )
        await on.launch()
        await on.until_state("Deployed")
        await on.until(lambda: transfer not in on.world.objects("Secret"), "credentials are gone")
        work = on.world.work_bucket(BASE)
        on.world.storage.buckets[work].properties["labels"] = {"cost-centre": "42"}
        marks = kept[0]["metadata"]["labels"] | {labels.JOB_UID: "earlier"}
        restored = {"metadata": {"name": transfer, "labels": marks}, "data": kept[0]["data"]}
        store.create(SECRETS, on.world.namespace, restored)

        await on.client.delete(f"/jobs/{JOB}")
        await on.until_finished()
        report = (await on.client.get(f"/jobs/{JOB}/deletion")).json()

        assert on.world.objects("Secret") == []
        assert on.world.storage.buckets[work].objects
        assert report["complete"] is False
        left = {item["resource"]: item["reason"] for item in report["remaining"]}
        assert "label" in left[f"bucket/{work}"]
        seen = {item["resource"]: item["proven_absent_at"] for item in report["removed"]}
        assert seen[f"secret/{transfer}"]
        assert not seen.get(f"bucket/{work}")
        await on.until(lambda: "DataRemains" in _events(on), "an Event says so")
        await _until_metric(on, "pyvatti_data_remains", lambda value: value == 1)
        await _until_metric(on, "pyvatti_oldest_undeleted_seconds", lambda value: value > 0)


async def _until_metric(on: Stage, name: str, fits: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            text = (await on.client.get("/metrics")).text
            if fits(float(text.partition(f"\n{name} ")[2].partition("\n")[0])):
                return
            await asyncio.sleep(0.1)


async def test_a_hold_keeps_one_bucket_and_nothing_else_until_a_person_lifts_it():
    other = "INTP00000000514"
    async with stage(LONG) as on:
        await on.launch()
        await on.until_state("Deployed")
        work = on.world.work_bucket(BASE)
        on.world.storage.put_object(work, "data/held.pgen", b"ACGT", temporaryHold=True)
        await on.client.delete(f"/jobs/{JOB}")

        report = await _until(on, f"/jobs/{JOB}/deletion", lambda it: it.get("remaining"))
        results = f"{on.world.namespace}-{BASE}-results"
        await on.until(lambda: results not in on.world.storage.buckets, "the other bucket is gone")
        await on.launch(other)
        await on.client.delete(f"/jobs/{other}")
        assert (await on.until_finished(other))["state"] == "Failed"

        assert report["complete"] is False
        assert report["remaining"][0]["resource"] == f"bucket/{work}"
        waiting = (await on.show())["waiting"]
        assert (waiting["on"], work in waiting["message"]) == ("clean-up stuck", True)
        await on.until(lambda: "CleanUpStuck" in _events(on), "an Event says so")
        assert _events(on).count("CleanUpStuck") == 1

        on.world.storage.buckets[work].objects["data/held.pgen"].properties.clear()
        await on.until_finished()
        report = (await on.client.get(f"/jobs/{JOB}/deletion")).json()
        assert (report["complete"], report["remaining"]) == (True, [])


async def test_a_job_of_another_cluster_is_left_alone_counted_and_told_why():
    async with stage() as on:
        marks = {
            labels.MANAGED_BY: labels.MANAGER,
            labels.INSTANCE: "pyvatti",
            labels.COMPONENT: labels.DRIVER,
            labels.NAMESPACE_UID: "of-another-cluster",
            labels.JOB_ID: BASE,
        }
        container = {"name": "calculation", "image": "busybox", "command": ["/bin/true"]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        verdict = {"state": "Succeeded", "reason": "RunSucceeded", "message": "m"}
        planted = on.world.kube.store.create(
            JOBS,
            on.world.namespace,
            {
                "metadata": {
                    "name": BASE,
                    "labels": marks,
                    "finalizers": [labels.FINALIZER],
                    "annotations": {labels.VERDICT: json.dumps(verdict)},
                },
                "spec": {"suspend": True, "template": {"spec": spec}},
            },
        )

        await on.until(lambda: "SetAside" in _events(on), "an Event says why")
        await _until_metric(on, 'pyvatti_set_aside{kind="job"}', lambda value: value == 1)

        kept = on.world.kube.store.get(JOBS, on.world.namespace, BASE)["metadata"]
        assert kept["labels"] == planted["metadata"]["labels"]
        assert "deletionTimestamp" not in kept
        assert on.told() == []
        assert on.world.objects("Secret") == []
        assert on.world.storage.buckets == {}
        assert (await on.client.get(f"/jobs/{JOB}")).status_code == 404


async def test_a_record_that_cannot_be_read_keeps_its_id_and_is_shown_by_its_labels():
    async with stage() as on:
        await on.launch()
        await on.until_finished()

        def newer(raw: Manifest) -> None:
            said = json.loads(raw["data"]["record.json"]) | {"version": 2}
            said["verdict"]["evidence"][0]["witness"] = "batch"
            raw["data"]["record.json"] = json.dumps(said)

        on.world.kube.store.mutate(CONFIGMAPS, on.world.namespace, f"{BASE}-record", newer)
        again = await on.client.post("/launch", json=launch_body())
        shown = await on.show()
        report = (await on.client.get(f"/jobs/{JOB}/deletion")).json()

        assert again.status_code == 409
        assert (shown["id"], shown["state"], shown["live"]) == (JOB, "Succeeded", False)
        assert "newer pyvatti" in shown["unreadable"]
        assert report["complete"] is False
        assert report["kept"] == [
            f"bucket/{on.world.namespace}-{BASE}-results",
            f"configmap/{BASE}-record",
        ]
