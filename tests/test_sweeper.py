"""Leftovers: what the sweeper finds and removes, and everything it must leave alone.

Sweeps are made by the tests themselves; only the last stories wait for a running service.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import T0
from doors_stage import BASE, DAYS_AGO, LONG_AGO, UID, Scene, finished, gauge, scene
from stage import FAST, JOB, service_on, stage

from pyvatti import labels
from pyvatti.models import Manifest, Remainder, Removal, State
from pyvatti.policy import Progress
from pyvatti.sandbox.driver_plans import PLANS, by_job
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS, PODS, SECRETS
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

SWEEPING = {"SWEEP_INTERVAL": "0.3"}
RECORD = f"{BASE}-record"
WEEKS_AGO = datetime.now(UTC) - timedelta(days=17)
RESULTS = f"intervene-dev-{BASE}-results"
WORK = f"intervene-dev-{BASE}-work-{UID[:8]}"
POD = {
    "restartPolicy": "Never",
    "containers": [{"name": "a", "image": "busybox", "command": ["/bin/sh", "-c", "sleep 600"]}],
}
TOKEN = {"tower-token": "c2VjcmV0"}
BODIES: dict[str, Any] = {"Secret": {"data": TOKEN}, "Pod": {"spec": POD}}


def absent(*resources: str) -> tuple[Removal, ...]:
    return tuple(Removal(resource=name, proven_absent_at=T0) for name in resources)


CLUSTER = absent(f"secret/{BASE}", f"secret/{BASE}-transfer", f"pods/{BASE}")
GENOMES = absent(f"bucket/{WORK}/work/transfer", f"bucket/{WORK}")
CLEAN = Progress(removals=(*CLUSTER, *GENOMES))


def put_job(on: Scene, name: str = BASE, **metadata: Any) -> Manifest:
    """Put a Job that somebody else's cluster may have made into this one."""
    return on.put(JOBS, name, metadata=metadata, spec={"suspend": True, "template": {"spec": POD}})


# Buckets


async def test_a_bucket_of_ours_without_job_is_removed_with_its_objects(tmp_path: Path):
    async with scene(tmp_path) as on:
        before = gauge("pyvatti_swept_total", kind="bucket")
        on.put_bucket()

        await on.sweep()

        assert on.buckets == []
        assert gauge("pyvatti_swept_total", kind="bucket") == before + 1


MISFITS: dict[str, tuple[str, dict[str, str]]] = {
    "managed by somebody else": ("", {"managed_by": "somebody"}),
    "of another installation": ("", {"instance": "other"}),
    "of another cluster": ("", {"namespace_uid": "other"}),
    "without the uid of a job": ("", {"job_uid": ""}),
    "without the id of a job": ("", {"job_id": "intp_x"}),
    "named for another Job's uid": ("", {"job_uid": "11111111-0000"}),
    "named for another id": ("", {"job_id": "intp00000000999"}),
    "of a longer namespace": (f"intervene-dev-eu-{BASE}-results", {}),
    "of another name": ("intervene-dev-other", {}),
}


async def test_a_bucket_whose_name_and_labels_do_not_fit_stays(tmp_path: Path):
    async with scene(tmp_path) as on:
        made = {
            on.put_bucket(name, DAYS_AGO, f"intp{number:011}", **changes): what
            for number, (what, (name, changes)) in enumerate(MISFITS.items())
        }
        assert len(made) == len(MISFITS)

        await on.sweep(2)

        assert [what for name, what in made.items() if name not in on.buckets] == []
        assert all(bucket.objects for bucket in on.world.storage.buckets.values())
        assert gauge("pyvatti_sweep_failing", kind="bucket") == 0
        # what is of another installation is no stranger: it has its own sweeper
        assert gauge("pyvatti_set_aside", kind="bucket") == 4


async def test_a_bucket_stays_that_is_young_or_whose_job_or_pod_lives_or_cannot_be_looked_up(
    tmp_path: Path,
):
    async with scene(tmp_path) as on:
        young = on.put_bucket(created=datetime.now(UTC))
        await on.sweep()
        assert on.buckets == [young]

        on.world.storage.buckets[young].created = LONG_AGO
        on.world.kube.faults.add("GET", f"/jobs/{BASE}", "status", status=500)
        await on.sweep()
        on.world.kube.faults.clear()
        assert on.buckets == [young]

        uid = put_job(on)["metadata"]["uid"]
        live = on.put_bucket(f"intervene-dev-{BASE}-work-{uid[:8]}", job_uid=uid)
        on.world.storage.buckets.pop(young)
        await on.sweep(2)
        assert on.buckets == [live]


async def test_one_bucket_that_cannot_be_emptied_stops_nothing_and_is_tried_ever_later(
    tmp_path: Path,
):
    async with scene(tmp_path, SWEEP_INTERVAL="3600") as on:
        held = on.put_bucket()
        on.world.storage.put_object(held, "data/held.pgen", b"ACGT", temporaryHold=True)
        other = "intp00000000778"
        on.put_bucket(base=other)
        on.put(SECRETS, BASE, metadata={"labels": on.marks()}, data=TOKEN)

        def asked() -> int:
            return sum(1 for item in on.world.storage.requests if held in item.path)

        await on.sweep()
        once = asked()
        await on.sweep(2)

        assert on.buckets == [held]
        assert on.world.objects("Secret") == []
        assert gauge("pyvatti_sweep_failing", kind="bucket") == 1
        assert asked() == once > 0  # the second and third sweep let it rest

        on.world.storage.buckets.clear()
        await on.sweep()
        assert gauge("pyvatti_sweep_failing", kind="bucket") == 0


# Results and records


async def test_results_stay_until_their_time_is_over(tmp_path: Path):
    ages = {"success": LONG_AGO, "failure": LONG_AGO, "young": DAYS_AGO, "old": WEEKS_AGO}
    bases = {what: f"intp{number:011}" for number, what in enumerate(ages)}
    async with scene(tmp_path, RECORD_RETENTION_SECONDS="1") as on:
        made = {
            on.put_bucket(f"intervene-dev-{bases[what]}-results", age, bases[what]): what
            for what, age in ages.items()
        }
        for what, state in (("success", State.SUCCEEDED), ("failure", State.FAILED)):
            ended = {State.CREATED: LONG_AGO, state: LONG_AGO}
            on.put_record(finished(state, bases[what], transitions=ended), CLEAN)

        await on.sweep(2)

        # "young" and "old" have no record: nobody knows how they ended
        assert [made[name] for name in on.buckets] == ["success", "young"]


def unreadable(made: Manifest) -> None:
    content = json.loads(made["data"]["record.json"])
    made["data"]["record.json"] = json.dumps(content | {"version": 2, "batch": {}})


async def test_a_record_that_cannot_be_read_keeps_itself_and_its_results(tmp_path: Path):
    async with scene(tmp_path, RECORD_RETENTION_SECONDS="1") as on:
        on.put_bucket(RESULTS, WEEKS_AGO)  # so old that without any record they would go
        # its label says that it failed: that is not believed either
        planted = on.put_record(finished(State.FAILED), CLEAN, DAYS_AGO, unreadable)

        await on.sweep(2)

        assert on.buckets == [RESULTS]
        assert on.get(CONFIGMAPS, RECORD) == planted
        assert gauge("pyvatti_set_aside", kind="record") == 1
        assert on.events() == [("SetAside", RECORD)]


async def test_an_expired_record_goes_and_its_results_stay(tmp_path: Path):
    async with scene(tmp_path) as on:
        on.put_bucket(RESULTS)
        on.put_record(finished(), CLEAN, DAYS_AGO)

        await on.sweep()

        assert RECORD not in on.world.objects("ConfigMap")
        assert on.buckets == [RESULTS]


def forged(key: str, value: str | None) -> Callable[[Manifest], None]:
    def change(made: Manifest) -> None:
        made["metadata"]["labels"].pop(key, None)
        if value is not None:
            made["metadata"]["labels"][key] = value

    return change


def renamed(made: Manifest) -> None:
    made["metadata"]["name"] = "kube-root-ca-2"


FORGED = (
    forged(labels.NAMESPACE_UID, None),  # the labels that were enough before
    forged(labels.NAMESPACE_UID, "other"),  # restored from another cluster
    forged(labels.JOB_ID, "INTP_x.Y"),
    forged(labels.JOB_UID, None),
    renamed,  # any ConfigMap with our labels
)


async def test_a_configmap_that_is_no_record_of_ours_stops_nothing_and_is_said_once(
    tmp_path: Path,
):
    async with scene(tmp_path, RECORD_RETENTION_SECONDS="1") as on:
        planted = []
        for number, change in enumerate(FORGED):
            base = f"intp{number:011}"
            on.put_bucket(f"intervene-dev-{base}-results", base=base)
            of = finished(State.FAILED, base)
            planted.append(on.put_record(of, CLEAN, DAYS_AGO, change))
        on.put_bucket()  # an orphan: it is swept all the same

        await on.sweep(3)

        names = [item["metadata"]["name"] for item in planted]
        assert [on.get(CONFIGMAPS, name) for name in names] == planted
        assert len(on.buckets) == len(FORGED)
        assert gauge("pyvatti_set_aside", kind="record") == len(FORGED)
        assert sorted(on.events()) == sorted(("SetAside", name) for name in names)


# What an earlier clean-up had to leave


def left(resource: str) -> Progress:
    removals = [item for item in CLEAN.removals if item.resource != resource]
    return Progress(
        removals=tuple(removals), remaining=(Remainder(resource=resource, reason="not ours"),)
    )


def content(on: Scene) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(on.get(CONFIGMAPS, RECORD)["data"]["record.json"])
    return said


async def test_what_remained_is_looked_at_again_until_it_is_gone_and_the_record_says_so(
    tmp_path: Path,
):
    async with scene(tmp_path) as on:
        bucket = on.put_bucket(managed_by="cost-centre")
        made = on.put_record(finished(), left(f"bucket/{WORK}"), DAYS_AGO)
        assert made["metadata"]["annotations"][labels.REMAINS]

        await on.sweep()

        assert on.buckets == [bucket]
        assert "managed-by" in content(on)["remaining"][0]["reason"]
        assert on.doors.remains.count() == 1
        assert on.doors.remains.oldest() is not None
        assert RECORD in on.world.objects("ConfigMap")  # it is old, and not the last word

        on.world.storage.buckets[bucket].properties["labels"]["managed-by"] = "pyvatti"
        on.sweeper = type(on.sweeper)(on.doors)  # its pause is over
        await on.sweep()

        assert on.buckets == []
        assert on.doors.remains.count() == 0
        assert RECORD not in on.world.objects("ConfigMap")


async def test_a_record_whose_data_is_gone_at_last_is_complete(tmp_path: Path):
    async with scene(tmp_path) as on:
        on.put_record(finished(), left(f"secret/{BASE}-transfer"))
        secret = on.put(
            SECRETS, f"{BASE}-transfer", metadata={"labels": on.marks(labels.TRANSFER)}, data=TOKEN
        )
        secret_name = secret["metadata"]["name"]
        on.world.kube.store.mutate(
            SECRETS,
            on.world.namespace,
            secret_name,
            lambda made: made["metadata"].update(
                creationTimestamp=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"  # too young to sweep
            ),
        )

        await on.sweep()

        assert on.world.objects("Secret") == []
        said = content(on)
        assert said["remaining"] == []
        looked = [item for item in said["removals"] if item["resource"] == f"secret/{secret_name}"]
        assert looked[0]["proven_absent_at"] >= looked[0]["removed_at"]
        assert not on.get(CONFIGMAPS, RECORD)["metadata"]["annotations"].get(labels.REMAINS)


async def test_a_secret_that_a_finalizer_holds_is_not_called_gone(tmp_path: Path):
    async with scene(tmp_path) as on:
        on.put_record(finished(), left(f"secret/{BASE}"))
        metadata = {"labels": on.marks(), "finalizers": ["example.com/hold"]}
        on.put(SECRETS, BASE, metadata=metadata, data=TOKEN)

        await on.sweep()

        assert "deletionTimestamp" in on.get(SECRETS, BASE)["metadata"]
        assert f"secret/{BASE}" not in {item["resource"] for item in content(on)["removals"]}
        assert on.get(CONFIGMAPS, RECORD)["metadata"]["annotations"][labels.REMAINS]


async def test_nothing_of_a_job_that_lives_is_touched_because_a_record_says_so(tmp_path: Path):
    async with scene(tmp_path) as on:
        job = put_job(on)
        uid = job["metadata"]["uid"]
        work = on.put_bucket(f"intervene-dev-{BASE}-work-{uid[:8]}", job_uid=uid)

        def of_the_live_job(made: Manifest) -> None:
            said = json.loads(made["data"]["record.json"]) | {"uid": uid}
            made["data"]["record.json"] = json.dumps(said)
            made["metadata"]["labels"][labels.JOB_UID] = uid

        on.put_record(finished(State.FAILED), Progress(), DAYS_AGO, of_the_live_job)
        await on.sweep(2)

        assert on.buckets == [work]
        assert RECORD in on.world.objects("ConfigMap")


# Objects of the cluster


async def test_a_secret_of_ours_without_job_is_removed_and_never_read(tmp_path: Path):
    async with scene(tmp_path) as on:
        on.put(SECRETS, BASE, metadata={"labels": on.marks()}, data=TOKEN)

        await on.sweep()

        read = [item for item in on.world.kube.requests if item.resource == "secrets"]
        assert on.world.objects("Secret") == []
        assert {item.verb for item in read} == {"list", "delete"}


async def test_a_young_secret_stays_for_its_launch_may_be_under_way(tmp_path: Path):
    async with scene(tmp_path) as on:
        on.put(SECRETS, BASE, datetime.now(UTC), metadata={"labels": on.marks()}, data=TOKEN)

        await on.sweep()

        assert on.world.objects("Secret") == [BASE]


async def test_a_secret_made_anew_while_the_leftover_of_its_name_is_removed_stays(tmp_path: Path):
    async with scene(tmp_path) as on:
        store, requests = on.world.kube.store, on.world.kube.requests
        slow = on.world.kube.faults.add("DELETE", "/secrets", "slow", count=1, seconds=0.5)
        on.put(SECRETS, BASE, metadata={"labels": on.marks()}, data=TOKEN)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(on.sweep())
            while not slow.hits:
                await asyncio.sleep(0.01)
            store.delete(SECRETS, "intervene-dev", BASE, propagation="Background")
            on.put(SECRETS, BASE, datetime.now(UTC), metadata={"labels": on.marks()}, data=TOKEN)

        assert [item.status for item in requests if item.verb == "delete"] == [409]
        assert on.world.objects("Secret") == [BASE]


OWNED = [
    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}
]


async def test_an_object_that_is_not_ours_in_all_respects_stays_and_is_said_once(tmp_path: Path):
    async with scene(tmp_path) as on:
        own, pod = on.marks(), on.marks() | {labels.CONTROLLER_UID: UID}
        copied = {labels.NAMESPACE_UID: "other"}
        strangers: dict[tuple[Any, str], dict[str, Any]] = {
            (SECRETS, BASE): {"labels": own | copied},
            (SECRETS, "left"): {"labels": own},
            (SECRETS, f"{BASE}-transfer"): {"labels": own, "ownerReferences": OWNED},
            (PODS, f"{BASE}-copied"): {"labels": pod | copied},
            (PODS, "web-1"): {"labels": pod},
            (PODS, f"{BASE}-owned"): {"labels": pod, "ownerReferences": OWNED},
        }
        for (kind, name), metadata in strangers.items():
            on.put(kind, name, metadata=metadata, **BODIES[kind.kind])

        await on.sweep(3)

        deletions = [item.path for item in on.world.kube.requests if item.verb == "delete"]
        assert deletions == []
        assert gauge("pyvatti_set_aside", kind="secret") == 3
        assert gauge("pyvatti_set_aside", kind="pod") == 3
        assert sorted(on.events()) == sorted(("SetAside", name) for _, name in strangers)


async def test_a_pod_of_ours_without_job_is_removed(tmp_path: Path):
    async with scene(tmp_path) as on:
        marks = on.marks() | {labels.CONTROLLER_UID: UID}
        on.put(PODS, f"{BASE}-x", metadata={"labels": marks}, spec=POD)

        await on.sweep()

        deletions = [item.path for item in on.world.kube.requests if item.verb == "delete"]
        assert [path.partition("?")[0].rpartition("/")[2] for path in deletions] == [f"{BASE}-x"]


# Jobs nobody sees


ITS, FOREIGN, NONE = "its own", "another one", "none"  # Secrets under the Job's name
ELSEWHERE: dict[str, str | None] = {labels.NAMESPACE_UID: "other"}
EDITED: dict[str, tuple[dict[str, str | None], str, str, bool]] = {
    "its manager was edited away": ({labels.MANAGED_BY: None}, labels.FINALIZER, NONE, True),
    "its component was edited": ({labels.COMPONENT: "x"}, labels.FINALIZER, NONE, True),
    "it does not wait for us": ({labels.MANAGED_BY: None}, "other.example.org/x", ITS, False),
    "of another cluster: it is not adopted": (ELSEWHERE, labels.FINALIZER, NONE, False),
    "restored with its Secret": (ELSEWHERE, labels.FINALIZER, FOREIGN, False),
    "edited, its Secret says so": (ELSEWHERE, labels.FINALIZER, ITS, True),
    "its instance was edited": ({labels.INSTANCE: "b"}, labels.FINALIZER, ITS, True),
    "another release's": ({labels.INSTANCE: "b"}, labels.FINALIZER, NONE, False),
    "it does not say of which": ({labels.NAMESPACE_UID: None}, labels.FINALIZER, NONE, False),
    "a copy": ({labels.JOB_ID: "intp1"}, labels.FINALIZER, NONE, False),
    "its id was removed": ({labels.JOB_ID: None}, labels.FINALIZER, NONE, True),
    "its id was removed, its Secret says so": ({labels.JOB_ID: None}, labels.FINALIZER, ITS, True),
    "its id was edited": ({labels.JOB_ID: "intp1"}, labels.FINALIZER, ITS, True),
}


async def test_a_job_nobody_sees_is_found_only_where_all_else_says_that_it_is_ours(tmp_path: Path):
    async with scene(tmp_path) as on:
        hashed = {labels.REQUEST_HASH: "0" * 64}
        for number, (changes, finalizer, secret, _) in enumerate(EDITED.values()):
            base = f"intp{number:011}"
            marks = {k: v for k, v in (on.marks(base=base) | changes).items() if v is not None}
            put_job(on, base, labels=marks, finalizers=[finalizer], annotations=hashed)
            if secret is not NONE:
                uid = on.get(JOBS, base)["metadata"]["uid"] if secret is ITS else UID
                owner = {"apiVersion": "batch/v1", "kind": "Job", "name": base, "uid": uid}
                metadata = {"labels": on.marks(base=base), "ownerReferences": [owner]}
                on.put(SECRETS, base, metadata=metadata)

        await on.sweep()

        found = {
            what: on.get(JOBS, base)["metadata"]["labels"] == on.marks(base=base)
            for number, what in enumerate(EDITED)
            for base in [f"intp{number:011}"]
        }
        assert found == {what: expected for what, (*_, expected) in EDITED.items()}


# Stories


async def test_buckets_and_objects_of_a_live_job_stay_and_leftovers_go():
    async with stage("slow", **SWEEPING) as on:
        await on.launch()
        await on.until_state("Created")
        await on.until(lambda: on.world.objects("Pod") != [], "its pod is there")
        for bucket in on.world.storage.buckets.values():
            bucket.created = LONG_AGO
        for kind in (SECRETS, PODS):
            for name in on.world.objects(kind.kind):
                on.world.kube.store.mutate(kind, "intervene-dev", name, strip)
        marks = {
            "managed-by": "pyvatti",
            "instance": "pyvatti",
            "namespace-uid": on.world.namespace_uid,
            "job-id": BASE,
            "job-uid": UID,
        }
        on.world.storage.add_bucket(WORK, labels=marks).created = LONG_AGO

        await on.until(lambda: WORK not in on.world.storage.buckets, "the leftover is removed")

        assert len(on.world.storage.buckets) == 2
        assert JOB.lower() in on.world.objects("Secret")
        assert len(on.world.objects("Pod")) == 1


def strip(manifest: Manifest) -> None:
    """Make an object as an Orphan deletion leaves it, some time later."""
    manifest["metadata"].pop("ownerReferences", None)
    manifest["metadata"]["creationTimestamp"] = f"{LONG_AGO:%Y-%m-%dT%H:%M:%SZ}"


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
            await on.until_state("Created", "Deployed", "Succeeded")
            shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert on.told()[-1] == "succeeded"
