"""What a stranger does to a running job: edits, squats, forges, protects. One trick a job.

Each has its moment, and an end in which everything that must not be touched is looked at again.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from chaos.calls import Kill, Point, Side
from chaos.ground import PATIENCE, Ground
from chaos.killing import Tally, leaks, workplace
from chaos.process import Zygote
from chaos.rules import EITHER, Expected, is_at_rest, judge, judge_report, unrest
from chaos.stories import FAILED, SUCCEEDED, moment
from chaos.strangers import OBJECT, Strangers
from pyvatti import labels
from pyvatti.sandbox.driver_plans import PLANS, Plan, everyone
from pyvatti.sandbox.kube.resources import CONFIGMAPS, JOBS, PODS, SECRETS, Resource
from pyvatti.sandbox.kube.store import ApiError

OTHER_UID = "99999999-0000-4000-8000-000000000000"
SLOW = Plan(run_seconds=60)
FIRST_WRITE = Kill(Point("any write", 8), Side.AFTER)
KILLS = (None, FIRST_WRITE)
BACKUP = "example.org/backup"
HELD_SECONDS = 3.0  # how long a thing that must stay is watched
Act = Callable[["Scene"], Awaitable[None]]


@dataclass(slots=True)
class Scene:
    """One job on a ground, and what was planted in its way: `key` to a way to see it unchanged."""

    ground: Ground
    job_id: str
    untouched: dict[str, Callable[[], bool]]

    @property
    def base(self) -> str:
        """Lower-case id."""
        return self.job_id.lower()

    @property
    def results(self) -> str:
        """Name of the results bucket."""
        return f"{self.ground.world.namespace}-{self.base}-results"

    async def at(self, *states: str) -> bool:
        """Wait until the job was in one of the states; False if it ended before."""
        return await moment(self.ground, self.job_id, *states)

    def patch(self, kind: Resource, name: str, **metadata: Any) -> None:
        """Edit an object's labels, annotations or finalizers, if it is there."""
        store, namespace = self.ground.world.kube.store, self.ground.world.namespace

        def edit(body: dict[str, Any]) -> None:
            for key, value in metadata.items():
                is_map = isinstance(value, dict)
                old = body["metadata"].get(key) or {}
                body["metadata"][key] = {**old, **value} if is_map else value

        with suppress(ApiError):
            store.mutate(kind, namespace, name, edit)

    def plant(self, kind: Resource, name: str, body: dict[str, Any], **marks: str) -> None:
        """Make an object that must stay as it is; nothing where its name is taken."""
        store, namespace = self.ground.world.kube.store, self.ground.world.namespace
        whole = {**body, "metadata": {"name": name, "labels": marks}}
        with suppress(ApiError):
            uid = store.create(kind, namespace, whole)["metadata"]["uid"]
            self.untouched[f"{kind.kind} {name}"] = partial(self._stands, kind, name, uid)

    def plant_bucket(self, name: str, project: str | None = None, **marks: str) -> None:
        """Make a bucket with an object of somebody else, which must stay."""
        storage = self.ground.world.storage
        storage.add_bucket(name, labels=marks, **({"project": project} if project else {}))
        generation = storage.put_object(name, OBJECT, b"genome").generation
        self.untouched[f"bucket {name}"] = partial(self._holds, name, generation)

    def _stands(self, kind: Resource, name: str, uid: str) -> bool:
        body = self.ground.world.kube.store.find(kind, self.ground.world.namespace, name)
        metadata = body["metadata"] if body else {}
        return metadata.get("uid") == uid and "deletionTimestamp" not in metadata

    def _holds(self, name: str, generation: int) -> bool:
        bucket = self.ground.world.storage.buckets.get(name)
        version = bucket.objects.get(OBJECT) if bucket else None
        return version is not None and version.generation == generation

    def ours(self) -> dict[str, str]:
        """Give bucket labels like those of this job, with the uid of a Job that does not exist."""
        world = self.ground.world
        return {
            labels.BUCKET_MANAGED_BY: labels.MANAGER,
            labels.BUCKET_INSTANCE: "pyvatti",
            labels.BUCKET_NAMESPACE_UID: world.namespace_uid,
            labels.BUCKET_JOB_ID: self.base,
            labels.BUCKET_JOB_UID: OTHER_UID,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trick:
    """`before` the launch, `during` the job, and `undo`, after which the job must come to rest.

    `remains`: something of the job stands at the end, and the report has to name it. `squats`:
    what stands under a name of the job was never the job's, so the report is complete all the
    same. `patience`: the seconds it may take.
    """

    name: str
    before: Act | None = None
    during: Act | None = None
    undo: Act | None = None
    ends: frozenset[str] = EITHER
    remains: bool = False
    squats: bool = False
    patience: float = PATIENCE


async def _edit_names(scene: Scene) -> None:
    for state in ("Requested", "Created", "Deployed"):
        if await scene.at(state):
            wrong = {
                labels.RUN_NAME: "somebody-elses-run",
                labels.WORK_BUCKET: f"{scene.base}-prey",
                labels.RESULTS_BUCKET: f"{scene.base}-prey",
            }
            scene.patch(JOBS, scene.base, annotations=wrong)


async def _prey(scene: Scene) -> None:
    scene.plant_bucket(f"{scene.base}-prey", **scene.ours())


def _edit_label(key: str, value: str) -> Act:
    async def act(scene: Scene) -> None:
        for state in ("Created", "Deployed"):
            if await scene.at(state):
                scene.patch(JOBS, scene.base, labels={key: value})

    return act


async def _overwrite_bucket_labels(scene: Scene) -> None:
    if await scene.at("Deployed"):
        work = scene.ground.world.work_bucket(scene.base)
        scene.ground.world.storage.buckets[work].properties["labels"] = {"team": "somebody"}


def _squat(project: str | None, *, labelled: bool) -> Act:
    async def act(scene: Scene) -> None:
        scene.plant_bucket(scene.results, project, **(scene.ours() if labelled else {}))

    return act


def _set_on_work(key: str, value: Any) -> Act:
    async def act(scene: Scene) -> None:
        storage = scene.ground.world.storage
        if await scene.at("Deployed") and (work := scene.ground.world.work_bucket(scene.base)):
            if value is None:
                storage.buckets[work].properties.pop(key, None)
            else:
                storage.buckets[work].properties[key] = value

    return act


async def _unset_retention(scene: Scene) -> None:
    if work := scene.ground.world.work_bucket(scene.base):
        scene.ground.world.storage.buckets[work].properties.pop("retentionPolicy", None)


async def _hold(scene: Scene) -> None:
    storage = scene.ground.world.storage
    if await scene.at("Deployed") and (work := scene.ground.world.work_bucket(scene.base)):
        for version in storage.buckets[work].objects.values():
            version.properties["temporaryHold"] = True


async def _let_go_of_holds(scene: Scene) -> None:
    storage = scene.ground.world.storage
    if work := scene.ground.world.work_bucket(scene.base):
        for version in storage.buckets[work].objects.values():
            version.properties.pop("temporaryHold", None)


async def _forge_record(scene: Scene) -> None:
    if await scene.at("Created"):
        said = {"job_id": scene.job_id, "uid": OTHER_UID, "state": "Succeeded"}
        marks = {
            labels.MANAGED_BY: labels.MANAGER,
            labels.INSTANCE: "pyvatti",
            labels.COMPONENT: labels.RECORD,
            labels.JOB_ID: scene.base,
            labels.STATE: "Succeeded",
        }
        body = {"data": {"record.json": json.dumps(said)}}
        scene.plant(CONFIGMAPS, f"{scene.base}-record", body, **marks)


async def _remove_record(scene: Scene) -> None:
    name = f"{scene.base}-record"
    if scene.untouched.pop(f"ConfigMap {name}", None):
        world = scene.ground.world
        world.kube.store.delete(CONFIGMAPS, world.namespace, name, propagation="Background")


async def _forge_pod(scene: Scene) -> None:
    if await scene.at("Created"):
        uid = scene.ground.job(scene.job_id).uids[-1]
        container = {"name": "calculation", "image": "registry.example.org/pause:1"}
        spec = {"spec": {"containers": [container], "restartPolicy": "Never"}}
        owner = {"apiVersion": "v1", "kind": "ReplicaSet", "name": "web", "uid": OTHER_UID}
        name = f"{scene.base}-forged"
        marks = {
            labels.MANAGED_BY: labels.MANAGER,
            labels.INSTANCE: "pyvatti",
            labels.COMPONENT: labels.DRIVER,
            labels.CONTROLLER_UID: uid,
        }
        scene.plant(PODS, name, spec, **marks)
        scene.patch(PODS, name, ownerReferences=[owner])


async def _squat_secret(scene: Scene) -> None:
    data = {"data": {"key": "dmFsdWU="}}
    scene.plant(SECRETS, f"{scene.base}-transfer", data)


async def _hold_pod(scene: Scene) -> None:
    if await scene.at("Deployed"):
        for name in _pods(scene):
            scene.patch(PODS, name, finalizers=[*_finalizers(scene, name), BACKUP])


async def _let_go_of_pod(scene: Scene) -> None:
    for name in _pods(scene):
        held = [other for other in _finalizers(scene, name) if other != BACKUP]
        scene.patch(PODS, name, finalizers=held)


def _finalizers(scene: Scene, name: str) -> list[str]:
    """Give a pod's finalizers; one is the Job controller's, which counts by it."""
    world = scene.ground.world
    pod = world.kube.store.find(PODS, world.namespace, name) or {"metadata": {}}
    found: list[str] = pod["metadata"].get("finalizers") or []
    return found


def _pods(scene: Scene) -> list[str]:
    return [name for name in scene.ground.world.objects("Pod") if name.startswith(scene.base)]


def _annotate(key: str, value: str) -> Act:
    async def act(scene: Scene) -> None:
        if await scene.at("Deployed"):
            scene.patch(JOBS, scene.base, annotations={key: value})

    return act


async def _restore_copy(scene: Scene) -> None:
    """Put a copy of the Job, as a backup of another cluster has it, beside the job."""
    if await scene.at("Created", "Deployed"):
        world, name = scene.ground.world, f"intp8{scene.base.removeprefix('intp')[1:]}"
        body = world.kube.store.find(JOBS, world.namespace, scene.base)
        if body is not None:
            spec = {key: body["spec"][key] for key in ("suspend", "template")}
            spec["template"]["metadata"]["labels"] = {}
            marks = dict(body["metadata"]["labels"])
            marks |= {labels.NAMESPACE_UID: OTHER_UID, labels.JOB_ID: name}
            scene.plant(JOBS, name, {"spec": spec | {"suspend": True}}, **marks)


HTML = json.dumps(
    [
        {"sequence": 1, "event": "deployed", "at": "2026-11-28T10:00:00Z"},
        {
            "sequence": 2,
            "event": "failed",
            "at": "2026-11-28T10:00:01Z",
            "trace_name": "<a href=x>y</a>",
            "trace_exit": 1,
        },
    ]
)
RETENTION = {"retentionPeriod": "3600", "effectiveTime": "2026-01-01T00:00:00Z"}
TRICKS = (
    Trick(name="names edited", before=_prey, during=_edit_names, ends=SUCCEEDED),
    Trick(name="job-id edited", during=_edit_label(labels.JOB_ID, "intp1"), ends=SUCCEEDED),
    Trick(name="instance edited", during=_edit_label(labels.INSTANCE, "b"), ends=SUCCEEDED),
    Trick(
        name="namespace-uid edited",
        during=_edit_label(labels.NAMESPACE_UID, OTHER_UID),
        ends=SUCCEEDED,
    ),
    Trick(name="bucket labels overwritten", during=_overwrite_bucket_labels, remains=True),
    Trick(
        name="results squatted in another project",
        before=_squat("somebody-else", labelled=False),
        ends=FAILED,
        squats=True,
    ),
    Trick(name="results squatted", before=_squat(None, labelled=False), ends=FAILED, squats=True),
    Trick(
        name="results squatted with our labels",
        before=_squat(None, labelled=True),
        ends=FAILED,
        squats=True,
    ),
    Trick(
        name="soft delete switched on",
        during=_set_on_work("softDeletePolicy", {"retentionDurationSeconds": "3"}),
        patience=2 * PATIENCE,  # 30 s are waited until the switch counts everywhere
    ),
    Trick(
        name="retention policy set",
        during=_set_on_work("retentionPolicy", RETENTION),
        undo=_unset_retention,
    ),
    Trick(name="genomes held", during=_hold, undo=_let_go_of_holds),
    Trick(name="record forged", during=_forge_record, undo=_remove_record),
    Trick(name="pod forged", during=_forge_pod, ends=SUCCEEDED),
    Trick(name="secret squatted", before=_squat_secret, ends=FAILED, squats=True),
    Trick(name="pod held", during=_hold_pod, undo=_let_go_of_pod, ends=SUCCEEDED),
    Trick(name="outbox forged", during=_annotate(labels.OUTBOX, HTML)),
    Trick(name="outbox broken", during=_annotate(labels.OUTBOX, "[")),
    Trick(
        name="transitions without zone",
        during=_annotate(labels.TRANSITIONS, '{"Deployed": "2026-11-28T10:00:00"}'),
    ),
    Trick(name="verdict forged", during=_annotate(labels.VERDICT, '{"state": "Succeeded"}')),
    Trick(name="job restored from another cluster", during=_restore_copy, ends=SUCCEEDED),
)


async def tricked(zygote: Zygote, trick: Trick, tally: Tally) -> None:
    """Play one trick on a job, once in peace and once with a death; judge each."""
    with workplace(tally) as folder:
        plans = everyone(SLOW if trick.during else PLANS["success"])
        changes = {"SWEEP_INTERVAL": "0.5"}
        async with Ground(zygote, folder, plans=plans, changes=changes) as ground:
            for kill in KILLS:
                await _play(ground, trick, tally, kill)
            tally.accuse(*ground.witness.violations, *leaks(ground.log, ground.witness.secrets))


async def _play(ground: Ground, trick: Trick, tally: Tally, kill: Kill | None) -> None:
    tally.jobs += 1
    scene = Scene(ground, f"INTP{tally.jobs:011}", {})
    strangers = Strangers(ground.world, scene.base)
    where = f"{trick.name}, {kill or 'no kill'}"
    await ground.up()
    accepted = await _do(trick, scene, tally, where, kill)
    rests = await ground.until_rest(scene.job_id, accepted=accepted, patience=trick.patience)
    ground.calls.disarm()
    await ground.up()
    expected = Expected(job_id=scene.job_id, accepted=accepted, ends=trick.ends)
    finding = judge(ground.world, ground.witness, strangers, expected)
    finding.violations += await _judge_report(trick, scene)
    finding.violations += [
        f"{what} was touched" for what, is_as in scene.untouched.items() if not is_as()
    ]
    finding.violations += _markup(ground, scene)
    if trick.remains or trick.squats:
        finding.leftovers = []
    if not rests:
        finding.violations.append(unrest(ground.world, scene.base))
    tally.add(finding, where)
    strangers.remove()


async def _do(trick: Trick, scene: Scene, tally: Tally, where: str, kill: Kill | None) -> bool:
    """Launch the job and play the trick on it; tell whether the launch was answered 201."""
    ground = scene.ground
    if trick.before:
        await trick.before(scene)
    if kill:
        ground.calls.expect(kill, partial(_end, ground, tally))
    accepted = await ground.launch(scene.job_id)
    if trick.during:
        await trick.during(scene)
        tally.faults += 1
    if trick.undo:
        await _watch_what_is_held(ground, scene, tally, where)
        await trick.undo(scene)
    return accepted


async def _judge_report(trick: Trick, scene: Scene) -> list[str]:
    ground = scene.ground
    report = await ground.report(scene.job_id)
    seen = ground.job(scene.job_id)
    found = judge_report(ground.world, seen, scene.base, report)
    if report.get("complete") is trick.remains:
        found.append(f"the deletion report is not as it must be: {report}")
    return found


async def _end(ground: Ground, tally: Tally) -> None:
    tally.kills += 1
    await ground.kill()


async def _watch_what_is_held(ground: Ground, scene: Scene, tally: Tally, where: str) -> None:
    """See that a job whose things are held is not let go and not reported as deleted."""
    seen = ground.job(scene.job_id)
    await ground.until(lambda: "Succeeded" in seen.states or "Failed" in seen.states)
    base = scene.base
    let_go = partial(is_at_rest, ground.world, base, accepted=False)
    if await ground.until(let_go, HELD_SECONDS):
        tally.accuse(f"{where}: the job was let go while something of it was held")
    report = await ground.report(scene.job_id)
    if report.get("complete"):
        tally.accuse(f"{where}: the report says complete while something is held")


def _markup(ground: Ground, scene: Scene) -> list[str]:
    told = [json.dumps(item.body) for item in ground.job(scene.job_id).told]
    return ["the backend was sent markup"] if any("<" in text for text in told) else []
