"""How a Kubernetes API server behaves, by its HTTP API alone.

Runs on the sandbox, and unchanged on a real cluster (see kube_cluster). No code of pyvatti is used:
what holds here is what the rest of the project may rely on.
"""

import asyncio
import base64
import uuid
from typing import Any

import pytest
from kube_cluster import APPLY, JSON_PATCH, MERGE, PATIENCE, Body, Cluster

pytest_plugins = ("kube_fixtures",)
pytestmark = pytest.mark.cluster

FINALIZER = "conformance.test/hold"
OTHER_FINALIZER = "conformance.test/second"


def unique(prefix: str = "t") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def job(name: str, command: str = "exit 0", image: str = "busybox", **spec: Any) -> Body:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        **spec.pop("pod", {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "backoffLimit": 0, "template": {"spec": pod}, **spec},
    }


def secret(name: str, **metadata: Any) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, **metadata},
        "stringData": {"key": "value"},
    }


def configmap(name: str, **metadata: Any) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"key": "value"},
    }


def lease(name: str, **spec: Any) -> Body:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, **spec},
    }


MOMENT = "2026-01-02T03:05:05.000006Z"


def event(cluster: Cluster, name: str, **fields: Any) -> Body:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "reportingController": "conformance.test/tester",
        "reportingInstance": "tester-0",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
        "note": "a note",
        "regarding": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "namespace": cluster.namespace,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        },
        **fields,
    }


def owned_by(owner: Body) -> Body:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {"ownerReferences": [reference]}


def conditions(body: Body | None) -> dict[str, Body]:
    found = body.get("status", {}).get("conditions", []) if body else []
    return {item["type"]: item for item in found if item["status"] == "True"}


def version(body: Body) -> str:
    found: str = body["metadata"]["resourceVersion"]
    return found


def container_state(pod: Body, group: str = "containerStatuses") -> Body:
    state: Body = pod["status"][group][0]["state"]
    return state


async def pod_of(cluster: Cluster, name: str, wanted: Any = lambda _pod: True) -> Body:
    return await cluster.until_any(
        cluster.core("pods"), wanted, labelSelector=f"batch.kubernetes.io/job-name={name}"
    )


# Creating


async def test_created_object_has_uid_version_and_time(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    metadata = made["metadata"]
    assert metadata["uid"]
    assert metadata["resourceVersion"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["generation"] == 1


async def test_new_job_gets_the_defaults_of_its_kind(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    spec, uid = made["spec"], made["metadata"]["uid"]
    assert (spec["parallelism"], spec["completions"]) == (1, 1)
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] == uid
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


async def test_taken_name_is_refused(cluster: Cluster):
    body = job(unique())
    await cluster.made(cluster.jobs(), body)

    answer = await cluster.post(cluster.jobs(), body)

    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert not answer.body["message"].startswith("object is being deleted")


async def test_name_of_a_dying_object_is_refused_and_says_so(cluster: Cluster):
    body = configmap(unique(), finalizers=[FINALIZER])
    made = await cluster.made(cluster.core("configmaps"), body)
    await cluster.delete(cluster.core("configmaps", made["metadata"]["name"]))

    answer = await cluster.post(cluster.core("configmaps"), body)

    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.body["message"].startswith("object is being deleted")


async def test_post_with_a_resource_version_is_an_error_without_reason(cluster: Cluster):
    answer = await cluster.post(
        cluster.core("configmaps"), configmap(unique(), resourceVersion="1")
    )

    assert (answer.status, answer.body.get("reason", "")) == (500, "")


async def test_uid_in_a_post_is_ignored(cluster: Cluster):
    uid = str(uuid.uuid4())

    made = await cluster.made(cluster.core("configmaps"), configmap(unique(), uid=uid))

    assert made["metadata"]["uid"] != uid


@pytest.mark.parametrize(
    ("length", "status"),
    [pytest.param(63, 201, id="63 characters"), pytest.param(64, 422, id="64 characters")],
)
async def test_job_name_has_at_most_63_characters(cluster: Cluster, length: int, status: int):
    name = unique().ljust(length, "a")

    answer = await cluster.post(cluster.jobs(), job(name))

    assert answer.status == status, answer.body


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "dot."])
async def test_name_must_be_a_dns_subdomain(cluster: Cluster, name: str):
    answer = await cluster.post(cluster.jobs(), job(name))

    assert (answer.status, answer.body["reason"]) == (422, "Invalid")


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"a": "x" * 64}, id="value of 64 characters"),
        pytest.param({"a": "with space"}, id="value with a space"),
        pytest.param({"a/b/c": "x"}, id="key with two slashes"),
        pytest.param({"Upper.Case/a": "x"}, id="upper case prefix"),
    ],
)
async def test_bad_label_is_refused(cluster: Cluster, labels: dict[str, str]):
    answer = await cluster.post(cluster.core("configmaps"), configmap(unique(), labels=labels))

    assert answer.status == 422, answer.body


async def test_annotations_of_one_object_have_a_limit(cluster: Cluster):
    fits = configmap(unique(), annotations={"a": "x" * 262_143})
    too_long = configmap(unique(), annotations={"a": "x" * 262_144})

    answers = [await cluster.post(cluster.core("configmaps"), body) for body in (fits, too_long)]

    assert [answer.status for answer in answers] == [201, 422]


async def test_secret_over_one_mebibyte_is_refused(cluster: Cluster):
    body = secret(unique())
    body["stringData"] = {"key": "x" * (1 << 20) + "x"}

    answer = await cluster.post(cluster.core("secrets"), body)

    assert answer.status == 422


async def test_body_over_three_mebibytes_is_refused(cluster: Cluster):
    body = configmap(unique())
    body["data"] = {"key": "x" * (3 << 20)}

    answer = await cluster.post(cluster.core("configmaps"), body)

    assert answer.status == 413


async def test_string_data_of_a_secret_becomes_data(cluster: Cluster):
    made = await cluster.made(cluster.core("secrets"), secret(unique()))

    assert made["data"] == {"key": base64.b64encode(b"value").decode()}
    assert "stringData" not in made
    assert made["type"] == "Opaque"


async def test_unknown_field_is_dropped_with_a_warning(cluster: Cluster):
    body = job(unique())
    body["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"

    answer = await cluster.post(cluster.jobs(), body)

    assert answer.status == 201
    assert any("imagee" in warning for warning in answer.warnings)
    assert "imagee" not in answer.body["spec"]["template"]["spec"]["containers"][0]


async def test_unknown_field_is_refused_under_strict_validation(cluster: Cluster):
    body = job(unique(), suspended=True)

    answer = await cluster.post(cluster.jobs(), body, fieldValidation="Strict")

    assert answer.status == 400
    assert "suspended" in answer.body["message"]


async def test_wrong_type_of_a_field_is_a_bad_request(cluster: Cluster):
    body = job(unique(), backoffLimit="none")

    answer = await cluster.post(cluster.jobs(), body)

    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"restartPolicy": "Always"}, id="restart policy Always"),
        pytest.param({"containers": []}, id="no container"),
        pytest.param({"containers": [{"name": "a"}]}, id="container without image"),
    ],
)
async def test_job_that_cannot_run_is_invalid(cluster: Cluster, spoil: Body):
    answer = await cluster.post(cluster.jobs(), job(unique(), pod=spoil))

    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"]


async def test_dry_run_checks_and_stores_nothing(cluster: Cluster):
    body = job(unique())

    good = await cluster.post(cluster.jobs(), body, dryRun="All")
    bad = await cluster.post(cluster.jobs(), job("Bad"), dryRun="All")
    later = await cluster.get(cluster.jobs(body["metadata"]["name"]))

    assert (good.status, bad.status, later.status) == (201, 422, 404)
    assert good.body["metadata"]["uid"]


async def test_unknown_namespace_refuses_objects_and_lists_none(cluster: Cluster):
    path = cluster.path("v1", "configmaps", ns=unique("absent"))

    created = await cluster.post(path, configmap(unique()))
    listed = await cluster.get(path)

    assert (created.status, listed.status, listed.body["items"]) == (404, 200, [])


async def test_absent_object_is_not_found_by_name_and_kind(cluster: Cluster):
    name = unique()

    answer = await cluster.get(cluster.jobs(name))

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["details"] == {"name": name, "group": "batch", "kind": "jobs"}


# Compare-and-swap


async def test_merge_patch_with_a_stale_version_is_a_conflict(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))
    path = cluster.jobs(made["metadata"]["name"])
    await cluster.patch(path, {"metadata": {"labels": {"a": "1"}}})

    answer = await cluster.patch(
        path, {"metadata": {"resourceVersion": version(made), "labels": {"a": "2"}}}
    )

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")


async def test_one_patch_carries_version_label_annotation_and_release(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique(), parallelism=0))
    name = made["metadata"]["name"]
    current = (await cluster.get(cluster.jobs(name))).body

    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await cluster.patch(
                cluster.jobs(name),
                {
                    "metadata": {
                        "resourceVersion": version(current),
                        "labels": {"state": "b"},
                        "annotations": {"note": "c"},
                    },
                    "spec": {"suspend": False},
                },
            )
            if answer.status != 409:
                break
            current = (await cluster.get(cluster.jobs(name))).body  # the Job controller wrote

    assert answer.status == 200
    assert answer.body["metadata"]["labels"]["state"] == "b"
    assert answer.body["metadata"]["annotations"]["note"] == "c"
    assert answer.body["spec"]["suspend"] is False
    assert version(answer.body) != version(current)


async def test_patch_that_changes_nothing_keeps_the_version(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique(), labels={"a": "1"}))

    answer = await cluster.patch(
        cluster.core("configmaps", made["metadata"]["name"]), {"metadata": {"labels": {"a": "1"}}}
    )

    assert (answer.status, version(answer.body)) == (200, version(made))


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([{"op": "test", "path": "/data/key", "value": "other"}], id="failing test"),
        pytest.param([{"op": "remove", "path": "/data/none"}], id="absent path"),
    ],
)
async def test_json_patch_that_does_not_fit_is_invalid(cluster: Cluster, operations: list[Body]):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))

    answer = await cluster.patch(
        cluster.core("configmaps", made["metadata"]["name"]), operations, JSON_PATCH
    )

    assert answer.status == 422


async def test_wrong_uid_in_a_patch_fences_a_recreated_object(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.patch(
        cluster.jobs(made["metadata"]["name"]),
        {"metadata": {"uid": str(uuid.uuid4()), "labels": {"a": "1"}}},
    )

    assert answer.status == 422


async def test_unknown_kind_of_patch_is_an_unsupported_media_type(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))

    answer = await cluster.patch(
        cluster.core("configmaps", made["metadata"]["name"]), {}, "application/json"
    )

    assert answer.status == 415


async def test_merge_patch_removes_a_key_by_null(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique(), labels={"a": "1"}))

    answer = await cluster.patch(
        cluster.core("configmaps", made["metadata"]["name"]), {"metadata": {"labels": {"a": None}}}
    )

    assert "labels" not in answer.body["metadata"]


async def test_put_of_a_missing_job_is_not_found(cluster: Cluster):
    name = unique()

    answer = await cluster.put(cluster.jobs(name), job(name))

    assert answer.status == 404


async def test_status_patch_changes_labels_and_finalizers_but_not_the_spec(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.patch(
        cluster.jobs(made["metadata"]["name"], "status"),
        {
            "metadata": {"labels": {"a": "1"}, "finalizers": [FINALIZER]},
            "spec": {"parallelism": 5},
        },
    )
    cluster.finalized.append(cluster.jobs(made["metadata"]["name"]))

    assert answer.status == 200
    assert answer.body["spec"]["parallelism"] == 1
    assert answer.body["metadata"]["labels"]["a"] == "1"
    assert answer.body["metadata"]["finalizers"] == [FINALIZER]


async def test_status_in_a_plain_write_is_ignored(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.patch(
        cluster.jobs(made["metadata"]["name"]), {"status": {"succeeded": 1}}
    )

    assert "succeeded" not in answer.body.get("status", {})


# Mutability of a Job that never started


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        pytest.param({"parallelism": 2}, 200, id="parallelism"),
        pytest.param({"backoffLimit": 3}, 200, id="backoffLimit"),
        pytest.param({"activeDeadlineSeconds": 60}, 200, id="activeDeadlineSeconds"),
        pytest.param({"ttlSecondsAfterFinished": 60}, 200, id="ttlSecondsAfterFinished"),
        pytest.param({"podReplacementPolicy": "Failed"}, 200, id="podReplacementPolicy"),
        pytest.param(
            {"template": {"metadata": {"labels": {"x": "y"}}}},
            200,
            id="pod labels",
            marks=pytest.mark.needs("job-controller"),
        ),
        pytest.param(
            {"template": {"spec": {"nodeSelector": {"x": "y"}}}},
            200,
            id="nodeSelector",
            marks=pytest.mark.needs("job-controller"),
        ),
        pytest.param({"completions": 2}, 422, id="completions"),
        pytest.param({"selector": {"matchLabels": {"x": "y"}}}, 422, id="selector"),
        pytest.param(
            {"template": {"spec": {"terminationGracePeriodSeconds": 9}}}, 422, id="grace period"
        ),
        pytest.param(
            {"template": {"spec": {"serviceAccountName": "other"}}}, 422, id="service account"
        ),
        pytest.param({"template": {"spec": {"activeDeadlineSeconds": 9}}}, 422, id="pod deadline"),
    ],
)
async def test_field_of_a_suspended_job_is_mutable_or_not(
    cluster: Cluster, spec: Body, status: int
):
    made = await cluster.made(cluster.jobs(), job(unique()))
    path = cluster.jobs(made["metadata"]["name"])
    if "job-controller" in cluster.capabilities:
        # Some releases take a Job for suspended only once its condition says so (1.36.0, 1.36.1).
        await cluster.until(path, lambda body: "Suspended" in conditions(body))

    answer = await cluster.patch(path, {"spec": spec})

    assert answer.status == status, answer.body


async def test_image_of_a_job_never_changes(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.patch(
        cluster.jobs(made["metadata"]["name"]),
        [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}],
        JSON_PATCH,
    )

    assert answer.status == 422


async def test_immutable_secret_keeps_its_data(cluster: Cluster):
    made = await cluster.made(cluster.core("secrets"), {**secret(unique()), "immutable": True})
    path = cluster.core("secrets", made["metadata"]["name"])

    data = await cluster.patch(path, {"data": {"key": "eA=="}})
    labels = await cluster.patch(path, {"metadata": {"labels": {"a": "1"}}})

    assert (data.status, labels.status) == (422, 200)


# Leases


async def test_put_of_a_lease_without_version_is_invalid(cluster: Cluster):
    body = lease(unique())
    await cluster.made(cluster.leases(), body)

    answer = await cluster.put(cluster.leases(body["metadata"]["name"]), body)

    assert answer.status == 422


async def test_put_of_a_missing_lease_creates_it(cluster: Cluster):
    body = lease(unique())

    answer = await cluster.put(cluster.leases(body["metadata"]["name"]), body)

    assert answer.status == 201


async def test_put_of_a_deleted_lease_by_version_and_uid_is_a_conflict(cluster: Cluster):
    made = await cluster.made(cluster.leases(), lease(unique()))
    path = cluster.leases(made["metadata"]["name"])
    await cluster.delete(path)

    answer = await cluster.put(path, made)

    assert answer.status == 409


async def test_put_of_a_lease_with_a_stale_version_is_a_conflict(cluster: Cluster):
    made = await cluster.made(cluster.leases(), lease(unique()))
    path = cluster.leases(made["metadata"]["name"])
    made["spec"]["holderIdentity"] = "b"
    first = await cluster.put(path, made)

    second = await cluster.put(path, made)

    assert (first.status, second.status) == (200, 409)


@pytest.mark.parametrize(
    ("time", "status"),
    [
        pytest.param("2026-01-02T03:04:05.000006Z", 201, id="six digits"),
        pytest.param("2026-01-02T03:04:05.000006+01:00", 201, id="six digits, offset"),
        pytest.param("2026-01-02T03:04:05Z", 400, id="no digits"),
        pytest.param("2026-01-02T03:04:05.1Z", 400, id="one digit"),
        pytest.param("2026-01-02T03:04:05.123Z", 400, id="three digits"),
        pytest.param("2026-01-02T03:04:05.123456789Z", 400, id="nine digits"),
        pytest.param("2026-01-02T03:04:05.000006", 400, id="no zone"),
        pytest.param("", 400, id="empty"),
        pytest.param(1, 400, id="number"),
    ],
)
async def test_renew_time_of_a_lease_has_six_digits_and_a_zone(
    cluster: Cluster, time: Any, status: int
):
    answer = await cluster.post(cluster.leases(), lease(unique(), renewTime=time))

    assert answer.status == status, answer.body


async def test_lease_duration_of_zero_is_invalid_and_an_empty_holder_is_not(cluster: Cluster):
    zero = await cluster.post(cluster.leases(), lease(unique(), leaseDurationSeconds=0))
    empty = await cluster.post(cluster.leases(), lease(unique(), holderIdentity=""))

    assert (zero.status, empty.status) == (422, 201)


# Server-side apply


async def test_apply_creates_a_missing_object(cluster: Cluster):
    body = configmap(unique())

    answer = await cluster.apply(cluster.core("configmaps", body["metadata"]["name"]), body, "a")

    assert answer.status == 201
    entry = answer.body["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"]) == ("a", "Apply")


async def test_apply_needs_a_field_manager(cluster: Cluster):
    body = configmap(unique())

    answer = await cluster.patch(cluster.core("configmaps", body["metadata"]["name"]), body, APPLY)

    assert answer.status == 422


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        pytest.param({"metadata": {"managedFields": []}}, 400, id="managedFields"),
        pytest.param({"unknown": 1}, 500, id="unknown field"),
    ],
)
async def test_apply_of_what_it_does_not_take_is_refused(
    cluster: Cluster, spoil: Body, status: int
):
    body = configmap(unique())
    spoiled = {**body, **spoil, "metadata": {**body["metadata"], **spoil.get("metadata", {})}}

    answer = await cluster.apply(cluster.core("configmaps", body["metadata"]["name"]), spoiled, "a")

    assert answer.status == status, answer.body


async def test_apply_on_a_field_of_another_manager_conflicts_unless_forced(cluster: Cluster):
    body = configmap(unique())
    path = cluster.core("configmaps", body["metadata"]["name"])
    await cluster.apply(path, body, "a")
    mine = {**body, "data": {"key": "mine"}}

    refused = await cluster.apply(path, mine, "b")
    forced = await cluster.apply(path, mine, "b", force="true")

    assert refused.status == 409
    cause = refused.body["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.key")
    assert (forced.status, forced.body["data"]) == (200, {"key": "mine"})


async def test_apply_without_a_field_removes_it_where_nobody_else_owns_it(cluster: Cluster):
    body = configmap(unique())
    path = cluster.core("configmaps", body["metadata"]["name"])
    await cluster.apply(path, {**body, "data": {"a": "1", "b": "2"}}, "a")
    await cluster.apply(path, {**body, "data": {"b": "2", "c": "3"}}, "b")

    answer = await cluster.apply(path, {key: body[key] for key in body if key != "data"}, "a")

    assert answer.body["data"] == {"b": "2", "c": "3"}


async def test_apply_that_omits_suspend_starts_a_job_only_its_author_suspended(cluster: Cluster):
    body = job(unique(), parallelism=0)
    path = cluster.jobs(body["metadata"]["name"])
    await cluster.apply(path, body, "a")
    del body["spec"]["suspend"]

    answer = await cluster.apply(path, body, "a")

    assert (answer.status, answer.body["spec"]["suspend"]) == (200, False)


async def test_field_written_by_a_patch_is_kept_when_its_first_author_omits_it(cluster: Cluster):
    body = job(unique(), parallelism=0)
    path = cluster.jobs(body["metadata"]["name"])
    await cluster.apply(path, body, "a")
    await cluster.patch(path, {"spec": {"suspend": False}}, fieldManager="b")

    again = await cluster.apply(path, body, "a")
    del body["spec"]["suspend"]
    without = await cluster.apply(path, body, "a")

    assert again.status == 409
    assert (without.status, without.body["spec"]["suspend"]) == (200, False)


async def test_apply_without_its_finalizers_removes_them_and_keeps_foreign_labels(
    cluster: Cluster,
):
    body = configmap(unique(), finalizers=[FINALIZER], labels={"mine": "1"})
    path = cluster.core("configmaps", body["metadata"]["name"])
    cluster.finalized.append(path)
    await cluster.apply(path, body, "a")
    await cluster.patch(path, {"metadata": {"labels": {"foreign": "2"}}}, fieldManager="b")

    answer = await cluster.apply(path, configmap(body["metadata"]["name"]), "a")

    assert "finalizers" not in answer.body["metadata"]
    assert answer.body["metadata"]["labels"] == {"foreign": "2"}


async def test_apply_edits_a_dying_object(cluster: Cluster):
    body = configmap(unique(), finalizers=[FINALIZER])
    path = cluster.core("configmaps", body["metadata"]["name"])
    await cluster.made(cluster.core("configmaps"), body)
    await cluster.delete(path)

    answer = await cluster.apply(
        path, configmap(body["metadata"]["name"], labels={"a": "1"}), "a", force="true"
    )

    assert answer.status == 200
    assert answer.body["metadata"]["deletionTimestamp"]
    assert answer.body["metadata"]["labels"] == {"a": "1"}


async def test_apply_with_the_uid_of_another_object_is_refused(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))
    name = made["metadata"]["name"]

    answer = await cluster.apply(
        cluster.core("configmaps", name), configmap(name, uid=str(uuid.uuid4())), "a", force="true"
    )

    assert answer.status in (409, 422)


# Lists


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        pytest.param("tier=a", "1 2", id="equal"),
        pytest.param("tier==a,odd=yes", "1", id="both"),
        pytest.param("tier!=a", "3 4", id="not equal, absent counts"),
        pytest.param("tier in (a, b)", "1 2 3", id="in"),
        pytest.param("tier notin (a)", "3 4", id="notin"),
        pytest.param("odd", "1 3", id="exists"),
        pytest.param("!tier", "4", id="exists not"),
        pytest.param("tier in (a,b),!odd", "2", id="set and absence"),
    ],
)
async def test_label_selector_chooses(cluster: Cluster, selector: str, names: str):
    run = unique("run")
    for number, labels in enumerate(
        ({"tier": "a", "odd": "yes"}, {"tier": "a"}, {"tier": "b", "odd": "yes"}, {}), start=1
    ):
        await cluster.made(
            cluster.core("configmaps"), configmap(f"{run}-{number}", labels={"run": run, **labels})
        )

    answer = await cluster.get(cluster.core("configmaps"), labelSelector=f"run={run},{selector}")

    found = [item["metadata"]["name"].removeprefix(f"{run}-") for item in answer.body["items"]]
    assert " ".join(found) == names


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"labelSelector": "a=b=c"}, id="label selector that does not parse"),
        pytest.param({"fieldSelector": "spec.suspend=true"}, id="unknown field of a Job"),
        pytest.param({"continue_": "nonsense"}, id="made-up continue token"),
    ],
)
async def test_list_refuses_bad_parameters(cluster: Cluster, query: dict[str, str]):
    answer = await cluster.get(cluster.jobs(), **query)

    assert answer.status == 400, answer.body


async def test_items_of_a_list_carry_no_type(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.get(
        cluster.jobs(), fieldSelector=f"metadata.name={made['metadata']['name']}"
    )

    assert answer.body["kind"] == "JobList"
    assert len(answer.body["items"]) == 1
    assert not {"kind", "apiVersion"} & answer.body["items"][0].keys()


async def test_pages_together_are_the_list_at_one_version(cluster: Cluster):
    run = unique("run")
    names = [f"{run}-{number}" for number in range(5)]
    for name in names:
        await cluster.made(cluster.core("configmaps"), configmap(name, labels={"run": run}))
    query = {"labelSelector": f"run={run}", "limit": 2}

    first = await cluster.get(cluster.core("configmaps"), **query)
    await cluster.made(cluster.core("configmaps"), configmap(f"{run}-9", labels={"run": run}))
    pages = [first.body]
    while token := pages[-1]["metadata"].get("continue"):
        pages.append((await cluster.get(cluster.core("configmaps"), continue_=token, **query)).body)

    assert [item["metadata"]["name"] for page in pages for item in page["items"]] == names
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1


async def test_remaining_count_is_given_without_a_selector_only(cluster: Cluster):
    run = unique("run")
    for number in range(3):
        await cluster.made(
            cluster.core("configmaps"), configmap(f"{run}-{number}", labels={"run": run})
        )

    plain = await cluster.get(cluster.core("configmaps"), limit=1)
    selected = await cluster.get(cluster.core("configmaps"), limit=1, labelSelector=f"run={run}")

    assert plain.body["metadata"]["remainingItemCount"] >= 2
    assert selected.body["metadata"]["continue"]
    assert "remainingItemCount" not in selected.body["metadata"]


async def test_limit_is_ignored_by_a_list_at_version_zero(cluster: Cluster):
    run = unique("run")
    for number in range(3):
        made = await cluster.made(
            cluster.core("configmaps"), configmap(f"{run}-{number}", labels={"run": run})
        )
    # A cached list may lag behind: wait until it has seen the last object.
    query = {"labelSelector": f"run={run}", "resourceVersion": version(made)}
    await cluster.get(cluster.core("configmaps"), **query, resourceVersionMatch="NotOlderThan")

    answer = await cluster.get(
        cluster.core("configmaps"), labelSelector=f"run={run}", limit=1, resourceVersion="0"
    )

    assert len(answer.body["items"]) == 3


async def test_list_at_a_future_version_times_out(cluster: Cluster):
    now = (await cluster.get(cluster.jobs())).body

    answer = await cluster.get(
        cluster.jobs(),
        resourceVersion=str(int(version(now)) + 1_000_000_000),
        resourceVersionMatch="NotOlderThan",
    )

    assert answer.status == 504, answer.body


async def test_metadata_only_list_has_no_spec(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique(), parallelism=0))

    answer = await cluster.get(
        cluster.jobs(),
        headers={"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
        fieldSelector=f"metadata.name={made['metadata']['name']}",
    )

    assert answer.body["kind"] == "PartialObjectMetadataList"
    assert answer.body["items"][0]["metadata"]["uid"] == made["metadata"]["uid"]
    assert "spec" not in answer.body["items"][0]


async def test_metadata_only_answer_of_a_create_leaves_the_data_out(cluster: Cluster):
    body = secret(unique())

    answer = await cluster.post(
        cluster.core("secrets"),
        body,
        fieldValidation="Strict",
        headers={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
    )
    stored = await cluster.get(cluster.core("secrets", body["metadata"]["name"]))

    assert (answer.status, answer.body["kind"]) == (201, "PartialObjectMetadata")
    assert answer.body["apiVersion"] == "meta.k8s.io/v1"
    assert answer.body["metadata"]["uid"] == stored.body["metadata"]["uid"]
    assert not {"data", "stringData", "type"} & answer.body.keys()
    assert stored.body["data"]


async def test_refusal_is_a_status_even_where_metadata_was_asked_for(cluster: Cluster):
    made = await cluster.made(cluster.core("secrets"), secret(unique()))

    answer = await cluster.post(
        cluster.core("secrets"),
        secret(made["metadata"]["name"]),
        headers={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
    )

    assert (answer.status, answer.body["kind"]) == (409, "Status")
    assert answer.body["reason"] == "AlreadyExists"


async def test_table_has_the_columns_kubectl_prints(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    answer = await cluster.get(
        cluster.jobs(),
        headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"},
        fieldSelector=f"metadata.name={made['metadata']['name']}",
    )

    columns = [item["name"] for item in answer.body["columnDefinitions"]]
    assert columns[:5] == ["Name", "Status", "Completions", "Duration", "Age"]
    row = answer.body["rows"][0]
    assert (row["cells"][0], row["cells"][2]) == (made["metadata"]["name"], "0/1")
    assert row["object"]["metadata"]["name"] == made["metadata"]["name"]


# Watches


async def test_watch_from_a_lists_version_gives_what_came_later_and_nothing_else(cluster: Cluster):
    run = unique("run")
    path, select = cluster.core("configmaps"), {"labelSelector": f"run={run}"}
    await cluster.made(path, configmap(f"{run}-1", labels={"run": run}))
    listed = await cluster.get(path, **select)

    async with cluster.watch(path, resourceVersion=version(listed.body), **select) as watch:
        await cluster.made(path, configmap(f"{run}-2", labels={"run": run}))
        await cluster.patch(f"{path}/{run}-2", {"data": {"x": "y"}})
        await cluster.delete(f"{path}/{run}-2")
        events = await watch.next(3)

    assert [item["type"] for item in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {item["object"]["metadata"]["name"] for item in events} == {f"{run}-2"}
    assert len({version(item["object"]) for item in events}) == 3
    assert events[0]["object"]["kind"] == "ConfigMap"


async def test_watch_resumes_from_the_last_seen_version_without_a_gap(cluster: Cluster):
    run = unique("run")
    path, select = cluster.core("configmaps"), {"labelSelector": f"run={run}"}
    made = await cluster.made(path, configmap(f"{run}-1", labels={"run": run}))
    for number in (2, 3):
        await cluster.made(path, configmap(f"{run}-{number}", labels={"run": run}))

    async with cluster.watch(path, resourceVersion=version(made), **select) as watch:
        events = await watch.next(2)

    names = [item["object"]["metadata"]["name"] for item in events]
    assert names == [f"{run}-2", f"{run}-3"]


async def test_watch_without_a_version_begins_with_what_exists(cluster: Cluster):
    run = unique("run")
    path = cluster.core("configmaps")
    await cluster.made(path, configmap(run, labels={"run": run}))

    async with cluster.watch(path, labelSelector=f"run={run}") as watch:
        events = await watch.next()

    assert (events[0]["type"], events[0]["object"]["metadata"]["name"]) == ("ADDED", run)


async def test_object_that_leaves_the_selector_is_deleted_in_its_old_state(cluster: Cluster):
    run = unique("run")
    path, select = cluster.core("configmaps"), {"labelSelector": f"run={run},in=yes"}
    labels = {"run": run, "in": "yes"}
    made = await cluster.made(path, configmap(run, labels=labels))

    async with cluster.watch(path, resourceVersion=version(made), **select) as watch:
        left = await cluster.patch(f"{path}/{run}", {"metadata": {"labels": {"in": "no"}}})
        await cluster.patch(f"{path}/{run}", {"metadata": {"labels": {"in": "yes"}}})
        events = await watch.next(2)

    assert [item["type"] for item in events] == ["DELETED", "ADDED"]
    assert events[0]["object"]["metadata"]["labels"] == labels
    assert version(events[0]["object"]) == version(left.body)


@pytest.mark.needs("compaction")
async def test_watch_from_an_expired_version_answers_200_and_an_error_event(cluster: Cluster):
    async with cluster.watch(cluster.jobs(), resourceVersion="1") as watch:
        events = await watch.next()

    assert watch.status == 200
    assert (events[0]["type"], events[0]["object"]["code"]) == ("ERROR", 410)
    assert events[0]["object"]["reason"] == "Expired"


async def test_watch_from_a_future_version_is_silent_until_its_time_out(cluster: Cluster):
    now = (await cluster.get(cluster.core("configmaps"))).body
    future = str(int(version(now)) + 1_000_000_000)

    async with cluster.watch(
        cluster.core("configmaps"),
        resourceVersion=future,
        allowWatchBookmarks="true",
        timeoutSeconds=4,
    ) as watch:
        await cluster.made(cluster.core("configmaps"), configmap(unique()))
        events = [item async for item in watch]

    assert (watch.status, events) == (200, [])


async def test_bookmark_comes_before_the_end_of_a_quiet_watch(cluster: Cluster):
    path = cluster.core("configmaps")
    listed = (await cluster.get(path)).body

    async with cluster.watch(
        path,
        resourceVersion=version(listed),
        labelSelector=f"none={unique()}",
        allowWatchBookmarks="true",
        timeoutSeconds=5,
    ) as watch:
        made = await cluster.made(path, configmap(unique()))
        events = [item async for item in watch]

    assert {item["type"] for item in events} == {"BOOKMARK"}
    assert int(version(events[-1]["object"])) >= int(version(made))
    assert "name" not in events[-1]["object"]["metadata"]


async def test_watch_ends_at_its_time_out(cluster: Cluster):
    listed = (await cluster.get(cluster.jobs())).body

    async with (
        asyncio.timeout(30),
        cluster.watch(
            cluster.jobs(),
            resourceVersion=version(listed),
            labelSelector=f"none={unique()}",
            timeoutSeconds=2,
        ) as watch,
    ):
        events = [item async for item in watch]

    assert events == []


# Deleting


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_delete_with_a_wrong_precondition_is_a_conflict(cluster: Cluster, field: str):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))
    path = cluster.core("configmaps", made["metadata"]["name"])
    wrong = str(uuid.uuid4()) if field == "uid" else "1"

    refused = await cluster.delete(path, {"preconditions": {field: wrong}})
    taken = await cluster.delete(path, {"preconditions": {field: made["metadata"][field]}})

    assert (refused.status, taken.status) == (409, 200)


async def test_delete_answers_a_status_or_the_object_something_holds(cluster: Cluster):
    free = await cluster.made(cluster.core("configmaps"), configmap(unique()))
    held = await cluster.made(
        cluster.core("configmaps"), configmap(unique(), finalizers=[FINALIZER])
    )

    answers = [
        await cluster.delete(cluster.core("configmaps", body["metadata"]["name"]))
        for body in (free, held)
    ]

    assert [answer.body["kind"] for answer in answers] == ["Status", "ConfigMap"]
    assert answers[0].body["details"]["uid"] == free["metadata"]["uid"]
    assert answers[1].body["metadata"]["deletionTimestamp"]


async def test_dying_object_takes_labels_but_no_new_finalizer(cluster: Cluster):
    made = await cluster.made(
        cluster.core("configmaps"), configmap(unique(), finalizers=[FINALIZER])
    )
    path = cluster.core("configmaps", made["metadata"]["name"])
    await cluster.delete(path)

    labelled = await cluster.patch(path, {"metadata": {"labels": {"a": "1"}}})
    held = await cluster.patch(path, {"metadata": {"finalizers": [FINALIZER, OTHER_FINALIZER]}})

    assert (labelled.status, held.status) == (200, 422)


async def test_object_goes_when_its_last_finalizer_is_removed(cluster: Cluster):
    made = await cluster.made(
        cluster.core("configmaps"), configmap(unique(), finalizers=[FINALIZER])
    )
    path = cluster.core("configmaps", made["metadata"]["name"])
    await cluster.delete(path)
    take = {"op": "remove", "path": "/metadata/finalizers/0"}

    wrong = await cluster.patch(
        path, [{"op": "test", "path": "/metadata/finalizers/0", "value": "x/y"}, take], JSON_PATCH
    )
    right = await cluster.patch(
        path,
        [{"op": "test", "path": "/metadata/finalizers/0", "value": FINALIZER}, take],
        JSON_PATCH,
    )

    assert (wrong.status, right.status) == (422, 200)
    assert (await cluster.get(path)).status == 404


async def test_delete_of_a_collection_takes_what_the_selector_chooses(cluster: Cluster):
    run = unique("run")
    path = cluster.core("configmaps")
    for number, tier in enumerate("aab"):
        labels = {"run": run, "tier": tier}
        await cluster.made(path, configmap(f"{run}-{number}", labels=labels))

    answer = await cluster.delete(path, labelSelector=f"run={run},tier=a")

    left = await cluster.get(path, labelSelector=f"run={run}")
    assert answer.status == 200
    assert [item["metadata"]["name"] for item in left.body["items"]] == [f"{run}-2"]


async def test_unknown_propagation_policy_is_refused(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))

    answer = await cluster.delete(
        cluster.core("configmaps", made["metadata"]["name"]), {"propagationPolicy": "Sideways"}
    )

    assert answer.status == 422


@pytest.mark.needs("gc")
async def test_object_with_a_wrong_owner_uid_is_collected(cluster: Cluster):
    owner = await cluster.made(cluster.jobs(), job(unique()))
    owner["metadata"]["uid"] = str(uuid.uuid4())
    name = unique()

    await cluster.made(cluster.core("secrets"), secret(name, **owned_by(owner)))

    await cluster.until_gone(cluster.core("secrets", name))


async def owner_and_secret(cluster: Cluster, *finalizers: str) -> tuple[str, str]:
    """Make a Job that owns a Secret; gives their paths."""
    body = job(unique(), parallelism=0)
    body["metadata"]["finalizers"] = list(finalizers)
    owner = await cluster.made(cluster.jobs(), body)
    name = owner["metadata"]["name"]
    await cluster.made(cluster.core("secrets"), secret(name, **owned_by(owner)))
    return cluster.jobs(name), cluster.core("secrets", name)


async def owner_and_known_secret(cluster: Cluster) -> tuple[str, str]:
    """Make a Job with our finalizer that owns a Secret of which the garbage collector knows.

    It learns of objects in order. A foreground deletion waits only for what it knew of by then.
    """
    paths = await owner_and_secret(cluster, FINALIZER)
    later, of_later = await owner_and_secret(cluster)
    await cluster.delete(later, {"propagationPolicy": "Background"})
    await cluster.until_gone(of_later)
    return paths


@pytest.mark.needs("gc")
async def test_job_deleted_without_a_policy_leaves_its_secret_without_owner(cluster: Cluster):
    owner, owned = await owner_and_secret(cluster, FINALIZER)

    answer = await cluster.delete(owner)

    assert any("child pods are preserved" in warning for warning in answer.warnings)
    left = await cluster.until(
        owned, lambda body: body and not body["metadata"].get("ownerReferences")
    )
    assert "deletionTimestamp" not in left["metadata"]
    dying = await cluster.until(
        owner, lambda body: body and body["metadata"]["finalizers"] == [FINALIZER]
    )
    assert dying["metadata"]["deletionTimestamp"]


@pytest.mark.needs("gc")
async def test_background_deletion_keeps_the_secret_while_a_finalizer_holds_the_job(
    cluster: Cluster,
):
    owner, owned = await owner_and_secret(cluster, FINALIZER)

    await cluster.delete(owner, {"propagationPolicy": "Background"})
    await asyncio.sleep(1.0)  # that nothing happens can only be seen by waiting
    meanwhile = await cluster.get(owned)
    await cluster.patch(owner, {"metadata": {"finalizers": None}})

    assert meanwhile.status == 200
    await cluster.until_gone(owned)


@pytest.mark.needs("gc")
async def test_foreground_deletion_takes_the_secret_at_once_and_leaves_our_finalizer(
    cluster: Cluster,
):
    owner, owned = await owner_and_known_secret(cluster)

    answer = await cluster.delete(owner, {"propagationPolicy": "Foreground"})

    assert "foregroundDeletion" in answer.body["metadata"]["finalizers"]
    await cluster.until_gone(owned)
    dying = await cluster.until(
        owner, lambda body: body and body["metadata"]["finalizers"] == [FINALIZER]
    )
    assert dying["metadata"]["deletionTimestamp"]


@pytest.mark.needs("gc")
async def test_second_deletion_in_the_foreground_overrides_the_first(cluster: Cluster):
    owner, owned = await owner_and_known_secret(cluster)
    first = await cluster.delete(owner, {"propagationPolicy": "Background"})
    uid = first.body["metadata"]["uid"]

    second = await cluster.delete(
        owner, {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
    )

    assert "foregroundDeletion" in second.body["metadata"]["finalizers"]
    await cluster.until_gone(owned)
    await cluster.until(owner, lambda body: body and body["metadata"]["finalizers"] == [FINALIZER])


@pytest.mark.needs("gc")
async def test_background_deletion_of_a_free_job_takes_its_secret(cluster: Cluster):
    owner, owned = await owner_and_secret(cluster)

    await cluster.delete(owner, {"propagationPolicy": "Background"})

    await cluster.until_gone(owner)
    await cluster.until_gone(owned)


@pytest.mark.needs("gc")
@pytest.mark.needs("job-controller")
async def test_dying_namespace_refuses_objects_and_lets_finalizers_be_removed(cluster: Cluster):
    space = await cluster.space()
    path = cluster.path("v1", "configmaps", ns=space)
    await cluster.made(path, configmap("held", finalizers=[FINALIZER]))

    await cluster.delete(f"/api/v1/namespaces/{space}")
    refused = await cluster.post(path, configmap("late"))
    await cluster.until(
        f"{path}/held", lambda body: body and "deletionTimestamp" in body["metadata"]
    )
    released = await cluster.patch(f"{path}/held", {"metadata": {"finalizers": None}})

    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert released.status == 200
    await cluster.until_gone(f"/api/v1/namespaces/{space}")


# Events


def events_path(cluster: Cluster, name: str = "") -> str:
    return cluster.path("events.k8s.io/v1", "events", name)


async def test_event_is_readable_in_both_groups_by_the_uid_it_is_about(cluster: Cluster):
    made = await cluster.made(events_path(cluster), event(cluster, unique()))
    uid = made["regarding"]["uid"]

    core = await cluster.get(cluster.core("events"), fieldSelector=f"involvedObject.uid={uid}")
    modern = await cluster.get(events_path(cluster), fieldSelector=f"regarding.uid={uid}")

    (old,), (new,) = core.body["items"], modern.body["items"]
    assert old["metadata"]["uid"] == new["metadata"]["uid"] == made["metadata"]["uid"]
    assert (old["message"], new["note"]) == ("a note", "a note")
    assert old["involvedObject"] == new["regarding"]
    assert old["reportingComponent"] == new["reportingController"] == "conformance.test/tester"


@pytest.mark.parametrize(
    "missing", ["eventTime", "reportingController", "reportingInstance", "action", "reason", "type"]
)
async def test_event_without_a_required_field_is_invalid(cluster: Cluster, missing: str):
    body = event(cluster, unique())
    del body[missing]

    answer = await cluster.post(events_path(cluster), body)

    assert answer.status == 422, answer.body


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"note": "ä" * 513}, id="note over 1024 bytes"),
        pytest.param({"reason": "x" * 129}, id="reason of 129 characters"),
        pytest.param({"reportingController": "a/b/c"}, id="controller with two slashes"),
        pytest.param({"deprecatedCount": 1}, id="deprecated field"),
        pytest.param({"type": "Strange"}, id="unknown type"),
        pytest.param({"action": "ä" * 65}, id="action over 128 bytes"),
        pytest.param({"reportingInstance": "x" * 129}, id="instance of 129 characters"),
        pytest.param({"series": {"count": 1, "lastObservedTime": MOMENT}}, id="series of one"),
        pytest.param({"series": {"count": 2}}, id="series without a time"),
        pytest.param({"regarding": {"kind": "Job", "name": "a"}}, id="about no namespace"),
        pytest.param({"metadata": {"generateName": "intp1."}}, id="prefix with a full stop"),
        pytest.param({"metadata": {"generateName": "Intp1-"}}, id="prefix in upper case"),
        pytest.param({"metadata": {"name": "intp1."}}, id="name with a full stop at its end"),
    ],
)
async def test_event_with_a_bad_field_is_invalid(cluster: Cluster, spoil: Body):
    answer = await cluster.post(events_path(cluster), event(cluster, unique(), **spoil))

    assert answer.status == 422, answer.body


async def test_event_of_the_core_group_may_have_any_name(cluster: Cluster):
    core = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "Intp1."},
        "involvedObject": {"kind": "Job", "name": "a", "namespace": cluster.namespace},
        "reason": "Tested",
    }

    made = await cluster.made(cluster.core("events"), core)

    assert made["metadata"]["name"].startswith("Intp1.")


async def test_event_may_be_about_another_namespace(cluster: Cluster):
    about = {"kind": "Job", "name": "a", "namespace": "elsewhere"}

    made = await cluster.made(events_path(cluster), event(cluster, unique(), regarding=about))

    assert made["regarding"]["namespace"] == "elsewhere"


@pytest.mark.parametrize("prefix", ["a.", "a..-", "A-", "-", "a_", "ä-"])
async def test_a_bad_generate_name_is_invalid_whatever_follows(cluster: Cluster, prefix: str):
    body = configmap("") | {"metadata": {"generateName": prefix}}

    answer = await cluster.post(cluster.core("configmaps"), body)

    assert answer.status == 422, answer.body
    fields = {cause["field"] for cause in answer.body["details"]["causes"]}
    # what precedes a last dash is judged in the name that was made of it
    assert fields & {"metadata.generateName", "metadata.name"}
    assert ("metadata.generateName" in fields) == (prefix in ("a.", "-", "a_", "ä-"))


async def test_event_may_repeat_but_its_note_never_changes(cluster: Cluster):
    made = await cluster.made(events_path(cluster), event(cluster, unique()))
    path = events_path(cluster, made["metadata"]["name"])
    series = {"count": 2, "lastObservedTime": MOMENT}

    repeated = await cluster.patch(path, {"series": series})
    changed = await cluster.patch(path, {"note": "another"})

    assert (repeated.status, repeated.body["series"]["count"]) == (200, 2)
    assert changed.status == 422


# Jobs and pods


@pytest.mark.needs("job-controller")
async def test_suspended_job_says_so(cluster: Cluster):
    made = await cluster.made(cluster.jobs(), job(unique()))

    body = await cluster.until(
        cluster.jobs(made["metadata"]["name"]), lambda body: "Suspended" in conditions(body)
    )

    assert conditions(body)["Suspended"]["reason"] == "JobSuspended"
    assert "startTime" not in body["status"]


@pytest.mark.needs("job-controller")
async def test_released_job_starts_and_is_no_longer_suspended(cluster: Cluster):
    name = (await cluster.made(cluster.jobs(), job(unique(), parallelism=0)))["metadata"]["name"]
    await cluster.until(cluster.jobs(name), lambda body: "Suspended" in conditions(body))

    await cluster.patch(cluster.jobs(name), {"spec": {"suspend": False}})

    body = await cluster.until(
        cluster.jobs(name), lambda body: body and "startTime" in body.get("status", {})
    )
    suspended = [item for item in body["status"]["conditions"] if item["type"] == "Suspended"]
    assert [(item["status"], item["reason"]) for item in suspended] == [("False", "JobResumed")]


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_job_completes_after_its_success_was_decided(cluster: Cluster):
    name = unique()
    path = cluster.jobs()
    listed = await cluster.get(path)
    await cluster.made(path, job(name, "exit 0", cluster.image, suspend=False))

    seen: list[set[str]] = []
    async with (
        asyncio.timeout(PATIENCE),
        cluster.watch(
            path,
            fieldSelector=f"metadata.name={name}",
            resourceVersion=version(listed.body),
        ) as watch,
    ):
        async for item in watch:
            seen.append(set(conditions(item["object"])))
            if "Complete" in seen[-1]:
                break

    assert {"SuccessCriteriaMet"} in seen
    assert item["object"]["status"]["succeeded"] == 1
    assert item["object"]["status"]["completionTime"]
    assert all("Complete" not in types for types in seen[: seen.index({"SuccessCriteriaMet"})])


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_exit_code_fails_the_job_and_stays_in_the_pod(cluster: Cluster):
    name = unique()
    await cluster.made(
        cluster.jobs(), job(name, "echo last words; exit 7", cluster.image, suspend=False)
    )

    body = await cluster.until(cluster.jobs(name), lambda body: "Failed" in conditions(body))

    found = conditions(body)
    assert found["Failed"]["reason"] == "BackoffLimitExceeded"
    assert "FailureTarget" in found
    assert body["status"]["failed"] == 1
    pod = await pod_of(cluster, name)
    assert pod["status"]["phase"] == "Failed"
    ended = container_state(pod)["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_failed_init_container_leaves_the_main_one_waiting(cluster: Cluster):
    name = unique()
    first = {
        "name": "first",
        "image": cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "exit 3"],
    }
    await cluster.made(
        cluster.jobs(),
        job(name, image=cluster.image, suspend=False, pod={"initContainers": [first]}),
    )

    await cluster.until(cluster.jobs(name), lambda body: "Failed" in conditions(body))

    pod = await pod_of(cluster, name)
    assert container_state(pod, "initContainerStatuses")["terminated"]["exitCode"] == 3
    assert container_state(pod)["waiting"]["reason"] == "PodInitializing"


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_last_log_lines_become_the_termination_message_if_asked(cluster: Cluster):
    name = unique()
    body = job(name, "echo last words; exit 1", cluster.image, suspend=False)
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    await cluster.made(cluster.jobs(), body)

    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Failed")

    assert container_state(pod)["terminated"]["message"].strip() == "last words"


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_log_of_a_container_is_readable_and_tailed(cluster: Cluster):
    name = unique()
    await cluster.made(
        cluster.jobs(), job(name, "echo one; echo two; echo three", cluster.image, suspend=False)
    )
    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Succeeded")
    path = cluster.core("pods", pod["metadata"]["name"], "log")

    whole = await cluster.get(path, container="main")
    tail = await cluster.get(path, container="main", tailLines=1)
    followed = await cluster.get(path, container="main", follow="true")
    unknown = await cluster.get(path, container="other")
    absent = await cluster.get(cluster.core("pods", unique(), "log"))

    assert (whole.body, tail.body) == ("one\ntwo\nthree\n", "three\n")
    assert followed.body == whole.body
    assert (unknown.status, absent.status) == (400, 404)


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_deadline_fails_the_job_once_its_pod_is_terminal(cluster: Cluster):
    name = unique()
    # Whether its pod runs by then is no matter: an image may take longer to be pulled.
    await cluster.made(
        cluster.jobs(),
        job(name, "sleep 300", cluster.image, suspend=False, activeDeadlineSeconds=15),
    )

    body = await cluster.until(cluster.jobs(name), lambda body: "Failed" in conditions(body))

    assert conditions(body)["Failed"]["reason"] == "DeadlineExceeded"
    assert conditions(body)["FailureTarget"]["reason"] == "DeadlineExceeded"
    pods = await cluster.get(
        cluster.core("pods"), labelSelector=f"batch.kubernetes.io/job-name={name}"
    )
    assert {pod["status"]["phase"] for pod in pods.body["items"]} <= {"Failed"}


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_suspending_a_running_job_takes_its_pod_and_its_start_time(cluster: Cluster):
    name = unique()
    await cluster.made(cluster.jobs(), job(name, "sleep 300", cluster.image, suspend=False))
    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Running")

    await cluster.patch(cluster.jobs(name), {"spec": {"suspend": True}})

    await cluster.until_gone(cluster.core("pods", pod["metadata"]["name"]))
    body = await cluster.until(
        cluster.jobs(name),
        lambda body: "Suspended" in conditions(body) and "startTime" not in body["status"],
    )
    assert not {"Failed", "Complete"} & conditions(body).keys()


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_running_jobs_template_is_frozen(cluster: Cluster):
    name = unique()
    await cluster.made(cluster.jobs(), job(name, "sleep 300", cluster.image, suspend=False))
    await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Running")

    frozen = await cluster.patch(
        cluster.jobs(name), {"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}}
    )
    free = await cluster.patch(cluster.jobs(name), {"metadata": {"labels": {"x": "y"}}})

    assert (frozen.status, free.status) == (422, 200)


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
@pytest.mark.needs("gc")
async def test_foreground_deletion_stops_the_pod_and_then_leaves_our_finalizer(cluster: Cluster):
    body = job(unique(), "sleep 300", cluster.image, suspend=False)
    body["metadata"]["finalizers"] = [FINALIZER]
    name = (await cluster.made(cluster.jobs(), body))["metadata"]["name"]
    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Running")

    await cluster.delete(cluster.jobs(name), {"propagationPolicy": "Foreground"})

    await cluster.until(
        cluster.jobs(name), lambda body: body and body["metadata"]["finalizers"] == [FINALIZER]
    )
    assert (await cluster.get(cluster.core("pods", pod["metadata"]["name"]))).status == 404


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_background_deletion_leaves_the_pod_running_while_a_finalizer_holds_the_job(
    cluster: Cluster,
):
    body = job(unique(), "sleep 300", cluster.image, suspend=False)
    body["metadata"]["finalizers"] = [FINALIZER]
    name = (await cluster.made(cluster.jobs(), body))["metadata"]["name"]
    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Running")

    await cluster.delete(cluster.jobs(name), {"propagationPolicy": "Background"})
    await asyncio.sleep(2.0)  # that nothing happens can only be seen by waiting
    still = await cluster.get(cluster.core("pods", pod["metadata"]["name"]))
    await cluster.delete(cluster.jobs(name), {"propagationPolicy": "Foreground"})

    assert "deletionTimestamp" not in still.body["metadata"]
    await cluster.until_gone(cluster.core("pods", pod["metadata"]["name"]))


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_evicted_pod_is_marked_as_disrupted(cluster: Cluster):
    name = unique()
    await cluster.made(cluster.jobs(), job(name, "sleep 300", cluster.image, suspend=False))
    pod = await pod_of(cluster, name, lambda pod: pod["status"]["phase"] == "Running")
    target = pod["metadata"]["name"]
    listed = await cluster.get(cluster.core("pods"), fieldSelector=f"metadata.name={target}")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": target, "namespace": cluster.namespace},
    }

    answer = await cluster.post(cluster.core("pods", target, "eviction"), eviction)

    assert answer.status == 201
    found = await cluster.until_any(
        cluster.core("pods"),
        lambda pod: "DisruptionTarget" in conditions(pod),
        fieldSelector=f"metadata.name={target}",
        resourceVersion=version(listed.body),
    )
    assert conditions(found)["DisruptionTarget"]["reason"] == "EvictionByEvictionAPI"
    await cluster.until(cluster.jobs(name), lambda body: "Failed" in conditions(body))


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_pod_that_fits_no_node_says_so(cluster: Cluster):
    name = unique()
    pod = {"nodeSelector": {"conformance.test/none": "none"}}
    await cluster.made(cluster.jobs(), job(name, image=cluster.image, suspend=False, pod=pod))

    found = await pod_of(cluster, name, lambda pod: pod["status"].get("conditions"))

    by_type = {item["type"]: item for item in found["status"]["conditions"]}
    assert by_type["PodScheduled"]["status"] == "False"
    assert by_type["PodScheduled"]["reason"] == "Unschedulable"
    assert found["status"]["phase"] == "Pending"


@pytest.mark.needs("job-controller")
@pytest.mark.needs("kubelet")
async def test_missing_secret_of_a_volume_is_told_by_an_event_alone(cluster: Cluster):
    name = unique()
    body = job(name, image=cluster.image, suspend=False)
    spec = body["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "files", "secret": {"secretName": unique("absent")}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "files", "mountPath": "/files"}]
    await cluster.made(cluster.jobs(), body)
    pod = await pod_of(cluster, name)

    found = await cluster.until_any(
        cluster.core("events"),
        lambda item: item["reason"] == "FailedMount",
        fieldSelector=f"involvedObject.uid={pod['metadata']['uid']}",
    )

    assert found["type"] == "Warning"
    now = await pod_of(cluster, name, lambda pod: "containerStatuses" in pod["status"])
    assert container_state(now)["waiting"]["reason"] == "ContainerCreating"
    log = await cluster.get(cluster.core("pods", pod["metadata"]["name"], "log"), container="main")
    assert (log.status, log.body["reason"]) == (400, "BadRequest")
    assert "is waiting to start: ContainerCreating" in log.body["message"]


@pytest.mark.needs("job-controller")
@pytest.mark.needs("gc")
async def test_quota_on_pods_is_told_by_events_of_the_job_alone(cluster: Cluster):
    space = await cluster.space()
    quotas = cluster.path("v1", "resourcequotas", ns=space)
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.made(quotas, quota)
    await cluster.until(f"{quotas}/none", lambda body: body and body.get("status", {}).get("hard"))
    made = await cluster.made(
        cluster.path("batch/v1", "jobs", ns=space), job(unique(), suspend=False)
    )

    found = await cluster.until_any(
        cluster.path("v1", "events", ns=space),
        lambda item: item["reason"] == "FailedCreate",
        fieldSelector=f"involvedObject.uid={made['metadata']['uid']}",
    )
    assert "exceeded quota: none" in found["message"]
    path = cluster.path("batch/v1", "jobs", made["metadata"]["name"], ns=space)
    body = await cluster.until(path, lambda body: body and "startTime" in body.get("status", {}))
    assert not conditions(body)


@pytest.mark.needs("job-controller")
async def test_post_beyond_a_quota_on_jobs_is_forbidden(cluster: Cluster):
    space = await cluster.space()
    quotas = cluster.path("v1", "resourcequotas", ns=space)
    quota = {"metadata": {"name": "one"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    await cluster.made(quotas, quota)
    await cluster.until(f"{quotas}/one", lambda body: body and body.get("status", {}).get("hard"))
    path = cluster.path("batch/v1", "jobs", ns=space)

    first = await cluster.post(path, job(unique()))
    async with asyncio.timeout(PATIENCE):
        # The admission of another moment may not know the quota yet.
        while (answer := await cluster.post(path, job(unique()))).status == 201:
            pass

    assert (first.status, answer.status) == (201, 403)
    assert "exceeded quota" in answer.body["message"]


@pytest.mark.needs("job-controller")
async def test_pod_security_warns_at_once_and_admits_no_pod(cluster: Cluster):
    space = await cluster.space({"pod-security.kubernetes.io/enforce": "restricted"})
    answer = await cluster.post(
        cluster.path("batch/v1", "jobs", ns=space), job(unique(), suspend=False)
    )

    assert answer.status == 201
    assert any("PodSecurity" in warning for warning in answer.warnings)
    found = await cluster.until_any(
        cluster.path("v1", "events", ns=space),
        lambda item: item["reason"] == "FailedCreate",
        fieldSelector=f"involvedObject.uid={answer.body['metadata']['uid']}",
    )
    assert 'violates PodSecurity "restricted' in found["message"]


# The server itself


async def test_wrong_token_is_unauthorized(cluster: Cluster):
    status = await cluster.status_for_stranger(cluster.jobs(), token="nobody")

    assert status == 401


async def test_health_and_version_are_answered(cluster: Cluster):
    ready = await cluster.get("/readyz")
    version_ = await cluster.get("/version")

    assert (ready.status, ready.body) == (200, "ok")
    assert version_.body["major"] == "1"


async def test_access_review_answers_for_the_caller(cluster: Cluster):
    asked = {"namespace": cluster.namespace, "verb": "create", "group": "batch", "resource": "jobs"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }

    answer = await cluster.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)

    assert (answer.status, answer.body["status"]["allowed"]) == (201, True)


async def test_rules_review_lists_what_the_caller_may_do(cluster: Cluster):
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": cluster.namespace},
    }

    answer = await cluster.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)

    assert answer.status == 201
    assert any("*" in rule["verbs"] for rule in answer.body["status"]["resourceRules"])


async def test_unknown_resource_is_not_found(cluster: Cluster):
    answer = await cluster.get(cluster.path("batch/v1", "tasks"))

    assert answer.status == 404


async def test_merge_patch_needs_an_object(cluster: Cluster):
    made = await cluster.made(cluster.core("configmaps"), configmap(unique()))

    answer = await cluster.patch(
        cluster.core("configmaps", made["metadata"]["name"]), b"not json", MERGE
    )

    assert answer.status == 400
