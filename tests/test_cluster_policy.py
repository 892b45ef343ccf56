"""The chart's admission policy on a real API server: who may write what, and that jobs still end.

The stand-in evaluates no policies. Whoever runs these tests must be allowed to impersonate.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from chart_tools import merged, rendered, scenario
from kube_cluster import Answer, Body, Cluster

pytest_plugins = ("kube_fixtures",)
pytestmark = [pytest.mark.cluster, pytest.mark.needs("policies")]

GROUP = "admissionregistration.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
PREFIX = "hattivatti.geneticscores.org"
OURS = {
    "app.kubernetes.io/managed-by": "pyvatti",
    "app.kubernetes.io/component": "driver",
    f"{PREFIX}/instance": "hattivatti",
    f"{PREFIX}/job-id": "intp00000000001",
}
NOTES = {f"{PREFIX}/outbox": "[]"}
FINALIZER = f"{PREFIX}/cleanup"
OPERATOR = "an-operator"
CONTROLLERS = "system:serviceaccount:kube-system"


def metadata(name: str, **more: Any) -> Body:
    return {"metadata": {"name": name, **more}}


def pod(name: str, **more: Any) -> Body:
    return metadata(name, **more) | {"spec": {"containers": [{"name": "a", "image": "a"}]}}


def job(name: str, pod_labels: Body | None = None, **more: Any) -> Body:
    spec = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
    template = {"metadata": {"labels": pod_labels or {}}, "spec": spec}
    return metadata(name, **more) | {"spec": {"suspend": True, "template": template}}


def label(key: str, value: str | None) -> Body:
    return {"metadata": {"labels": {key: value}}}


def note(key: str, value: str | None) -> Body:
    return {"metadata": {"annotations": {key: value}}}


TEMPLATE = {"spec": {"template": label(f"{PREFIX}/job-id", "intp00000000002")}}
JOB, RECORD, SECRET, POD = "jobs/intp1", "configmaps/intp2-record", "secrets/intp1", "pods/ours"
# What the service alone may do: method, place, body
GUARDED: dict[str, tuple[str, str, Body | None]] = {
    "a Job by the name of a job": ("POST", "jobs", job("intp3")),
    "a Job with our label": ("POST", "jobs", job("x", labels=OURS)),
    "a Job with our annotation": ("POST", "jobs", job("x", annotations=NOTES)),
    "a Job with our finalizer": ("POST", "jobs", job("x", finalizers=[FINALIZER])),
    "a Job whose pods would carry our label": ("POST", "jobs", job("x", OURS)),
    "our label of a Job changed": ("PATCH", JOB, label(f"{PREFIX}/job-id", "intp00000000002")),
    "our label of a Job taken away": ("PATCH", JOB, label(f"{PREFIX}/instance", None)),
    "a further label of ours": ("PATCH", JOB, label(f"{PREFIX}/state", "Succeeded")),
    "all labels of a Job taken away": ("PATCH", JOB, {"metadata": {"labels": None}}),
    "a Job no longer managed by us": ("PATCH", JOB, label("app.kubernetes.io/managed-by", "x")),
    "a Job of no component": ("PATCH", JOB, label("app.kubernetes.io/component", None)),
    "our annotation changed": ("PATCH", JOB, note(f"{PREFIX}/outbox", "[1]")),
    "our annotation taken away": ("PATCH", JOB, note(f"{PREFIX}/outbox", None)),
    "a further annotation of ours": ("PATCH", JOB, note(f"{PREFIX}/withdrawn", "true")),
    "the finalizer taken off": ("PATCH", JOB, {"metadata": {"finalizers": None}}),
    "a label by the status": ("PATCH", f"{JOB}/status", label(f"{PREFIX}/state", "Failed")),
    "a label of a Job's pods": ("PATCH", JOB, TEMPLATE),
    "another's Job made ours": ("PATCH", "jobs/theirs", label(f"{PREFIX}/instance", "hattivatti")),
    "another's Job held by us": ("PATCH", "jobs/theirs", {"metadata": {"finalizers": [FINALIZER]}}),
    "a record": ("POST", "configmaps", metadata("intp00000000003-record")),
    "a record by its labels": ("POST", "configmaps", metadata("x", labels=OURS)),
    "a record by its annotation": ("POST", "configmaps", metadata("x", annotations=NOTES)),
    "a record's content": ("PATCH", RECORD, {"data": {"record.json": "{}"}}),
    "a record deleted": ("DELETE", RECORD, None),
    "the content of what carries our labels": ("PATCH", "secrets/marked", {"data": {"a": "Yg=="}}),
    "what carries our labels deleted": ("DELETE", "secrets/marked", None),
    "the content of what has a record's name": ("PATCH", "configmaps/intp4-record", {"data": {}}),
    "what has a record's name deleted": ("DELETE", "configmaps/intp4-record", None),
    "every record deleted": ("DELETE", "configmaps", None),
    "another's ConfigMap made ours": ("PATCH", "configmaps/theirs", {"metadata": {"labels": OURS}}),
    "a driver Secret": ("POST", "secrets", metadata("intp00000000003")),
    "a transfer Secret": ("POST", "secrets", metadata("intp00000000003-transfer")),
    "a driver Secret's content": ("PATCH", SECRET, {"stringData": {"request.json": "{}"}}),
    "a driver Secret deleted": ("DELETE", SECRET, None),
    "a pod with our labels": ("POST", "pods", pod("x", labels=OURS)),
    "our label of a pod changed": ("PATCH", POD, label(f"{PREFIX}/job-id", "intp2")),
    "our label of a pod by its status": ("PATCH", f"{POD}/status", label(f"{PREFIX}/a", "b")),
    "another's pod made ours": ("PATCH", "pods/theirs", {"metadata": {"labels": OURS}}),
}
# What everybody may do who has the right
OPEN: dict[str, tuple[str, str, Body | None]] = {
    "a Job cancelled": ("DELETE", JOB, None),
    "a Job suspended": ("PATCH", JOB, {"spec": {"suspend": False}}),
    "a label of somebody on a Job": ("PATCH", JOB, label("example.org/team", "a")),
    "an annotation of somebody on a Job": ("PATCH", JOB, note("example.org/note", "a")),
    "our label written as it is": ("PATCH", JOB, {"metadata": {"labels": OURS}}),
    "a queue's label": ("PATCH", JOB, label("kueue.x-k8s.io/queue-name", "other")),
    "a status": ("PATCH", f"{JOB}/status", {"status": {}}),
    "a Job of somebody": ("POST", "jobs", job("x")),
    "a Job of somebody, managed by Helm": (
        *("POST", "jobs"),
        job("x", {"app.kubernetes.io/managed-by": "Helm"}, labels={"app.kubernetes.io/name": "x"}),
    ),
    "another's label": ("PATCH", "jobs/theirs", label("app.kubernetes.io/managed-by", "Helm")),
    "another's Job deleted": ("DELETE", "jobs/theirs", None),
    "a bare ConfigMap": ("POST", "configmaps", metadata("x")),
    "a ConfigMap without a name yet": ("POST", "configmaps", {"metadata": {"generateName": "x"}}),
    "a ConfigMap with a name like a record's": ("POST", "configmaps", metadata("intp-x-record")),
    "another's ConfigMap": ("PATCH", "configmaps/theirs", {"data": {"a": "b"}}),
    "another's ConfigMap without labels": (
        *("PATCH", "configmaps/theirs"),
        {"metadata": {"labels": None, "annotations": None}},
    ),
    "another's ConfigMap deleted": ("DELETE", "configmaps/theirs", None),
    "a bare Secret": ("POST", "secrets", metadata("x")),
    "a bare pod": ("POST", "pods", pod("x")),
    "a label of somebody on our pod": ("PATCH", POD, label("example.org/team", "a")),
    "our pod deleted": ("DELETE", POD, None),
}
# What Kubernetes' own controllers do to our objects
CONTROLLED: dict[str, tuple[str, str, str, Body | None]] = {
    "pods are made": ("job-controller", "POST", "pods", pod("x", labels=OURS)),
    "Secrets of a Job that is gone go": ("generic-garbage-collector", "DELETE", SECRET, None),
    "owners are taken off": (
        *("generic-garbage-collector", "PATCH", SECRET),
        {"metadata": {"ownerReferences": None}},
    ),
    "a namespace is emptied": ("namespace-controller", "DELETE", "configmaps", None),
    "old Jobs go": ("ttl-after-finished-controller", "DELETE", JOB, None),
}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A namespace with one job's objects under the policy of a release in it."""

    cluster: Cluster
    namespace: str
    name: str

    async def ask(
        self, user: str, method: str, place: str, body: Body | None, *, dry_run: bool = False
    ) -> Answer:
        """Make a request as a user."""
        plural, _, rest = place.partition("/")
        name, _, sub = rest.partition("/")
        api = "batch/v1" if plural == "jobs" else "v1"
        path = self.cluster.path(api, plural, name, sub, ns=self.namespace)
        media = "application/merge-patch+json" if method == "PATCH" else "application/json"
        return await self.cluster.request(
            *(method, path, body),
            media=media,
            headers={"Impersonate-User": user},
            **({"dryRun": "All"} if dry_run else {}),
        )

    async def refused(self, user: str, rows: dict[str, tuple[str, str, Body | None]]) -> set[str]:
        """Name the rows the policy refuses; everything else must be taken."""
        found = set()
        for what, row in rows.items():
            answer = await self.ask(user, *row, dry_run=True)
            if answer.status == 403 and self.name in str(answer.body):
                found.add(what)
            else:
                assert answer.status in (200, 201, 202), (what, answer.body)
        return found


async def let_in(cluster: Cluster, namespace: str, *users: str) -> None:
    """Give users every right in a namespace."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subjects = [{"kind": "User", "name": user} for user in users]
    binding = metadata("all") | {"roleRef": role, "subjects": subjects}
    await cluster.made(cluster.path(RBAC, "rolebindings", ns=namespace), binding)


@asynccontextmanager
async def enforced(cluster: Cluster, namespace: str, **values: Any) -> AsyncIterator[Guarded]:
    """Apply the policy that the chart renders for a namespace; removed afterwards."""
    wanted = {"admissionPolicy": {"enabled": True, **values}}
    items = rendered(merged(scenario("default"), wanted), namespace=namespace)
    made = {PLURALS[item["kind"]]: item for item in items if item["kind"] in PLURALS}
    guarded = Guarded(cluster, namespace, made["validatingadmissionpolicies"]["metadata"]["name"])
    try:
        for plural, item in made.items():
            await cluster.made(f"/apis/{GROUP}/{plural}", item)
        async with asyncio.timeout(60):  # the API server follows its policies by a watch
            while not await guarded.refused(OPERATOR, {"": GUARDED["a record"]}):
                await asyncio.sleep(0.1)
        yield guarded
    finally:
        for plural in made:
            await cluster.delete(f"/apis/{GROUP}/{plural}/{guarded.name}")


@pytest.fixture
async def guarded(cluster: Cluster) -> AsyncIterator[Guarded]:
    """The objects of one job, made by the service, and the like of somebody else."""
    namespace = await cluster.space()
    service = f"system:serviceaccount:{namespace}:hattivatti"
    await let_in(cluster, namespace, service, OPERATOR)
    async with enforced(cluster, namespace, allowed=[await cluster.whoami()]) as made:
        marks = OURS | {f"{PREFIX}/state": "Requested"}
        held: Body = {"labels": marks, "annotations": NOTES, "finalizers": [FINALIZER]}
        for user, place, body in (
            (service, "jobs", job("intp1", OURS, **held)),
            (service, "secrets", metadata("intp1", labels=OURS)),
            (service, "configmaps", metadata("intp2-record", labels=OURS)),
            (service, "secrets", metadata("marked", labels=OURS)),
            (service, "configmaps", metadata("intp4-record")),
            (f"{CONTROLLERS}:job-controller", "pods", pod("ours", labels=OURS)),
            (OPERATOR, "jobs", job("theirs")),
            (OPERATOR, "configmaps", metadata("theirs")),
            (OPERATOR, "pods", pod("theirs")),
        ):
            answer = await made.ask(user, "POST", place, body)
            assert answer.status == 201, answer.body
        yield made


async def test_only_the_service_and_kubernetes_write_what_marks_a_job(guarded: Guarded):
    service = f"system:serviceaccount:{guarded.namespace}:hattivatti"

    assert await guarded.refused(OPERATOR, GUARDED) == GUARDED.keys()
    assert await guarded.refused(OPERATOR, OPEN) == set()
    assert await guarded.refused(service, GUARDED) == set()
    for what, (controller, *row) in CONTROLLED.items():
        method, place, body = row
        assert not await guarded.refused(
            f"{CONTROLLERS}:{controller}", {what: (method, place, body)}
        )


async def test_the_api_server_finds_nothing_wrong_with_the_expressions(guarded: Guarded):
    path = f"/apis/{GROUP}/validatingadmissionpolicies/{guarded.name}"
    async with asyncio.timeout(60):
        while not (policy := (await guarded.cluster.get(path)).body)["status"].get(
            "observedGeneration"
        ):
            await asyncio.sleep(0.1)

    assert policy["status"]["typeChecking"] == {}


@pytest.mark.needs("gc")
async def test_a_finalizer_may_be_taken_off_where_the_namespace_goes(guarded: Guarded):
    let_go = ("PATCH", JOB, {"metadata": {"finalizers": None}})
    await guarded.ask(OPERATOR, "DELETE", JOB, None)
    assert await guarded.refused(OPERATOR, {"dying": let_go}) == {"dying"}

    space = f"/api/v1/namespaces/{guarded.namespace}"
    await guarded.cluster.delete(space)
    async with asyncio.timeout(60):
        while await guarded.refused(OPERATOR, {"": let_go}):
            await asyncio.sleep(0.1)

    assert await guarded.refused(OPERATOR, {"marked": GUARDED["a further label of ours"]})
    assert (await guarded.ask(OPERATOR, *let_go)).status == 200
    await guarded.cluster.until_gone(space)


async def test_a_user_who_is_named_may_too_and_other_namespaces_are_let_alone(cluster: Cluster):
    mine, other = await cluster.space(), await cluster.space()
    await let_in(cluster, mine, OPERATOR, "a-second-release")
    await let_in(cluster, other, OPERATOR)

    async with enforced(cluster, mine, allowed=["a-second-release"]) as made:
        elsewhere = Guarded(cluster, other, made.name)
        assert not await made.refused("a-second-release", {"": GUARDED["a record"]})
        assert not await elsewhere.refused(OPERATOR, {"": GUARDED["a record"]})
