"""The real kubectl writes to the stand-in cluster: create, apply, edit, patch, delete."""

import json
import shutil

import pytest
from kubectl_calls import HELD, JOB, SECRET, SLEEPING, Kubectl

pytest_plugins = ("kubectl_fixtures",)
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


async def test_apply_creates_then_changes_then_rests(kubectl: Kubectl):
    created = await kubectl.ok("apply", "-f", "-", stdin=SECRET)
    changed = await kubectl.ok("apply", "-f", "-", stdin=SECRET.replace("one", "two"))
    rested = await kubectl.ok("apply", "-f", "-", stdin=SECRET.replace("one", "two"))

    assert [text.split()[-1] for text in (created, changed, rested)] == [
        "created",
        "configured",
        "configured",  # stringData is written again on every apply
    ]
    tier = await kubectl.ok(
        "get", "secret", "credentials", "-o", "jsonpath={.metadata.labels.tier}"
    )
    assert tier == "two"


async def test_apply_of_an_unchanged_job_rests(kubectl: Kubectl):
    await kubectl.ok("apply", "-f", "-", stdin=SLEEPING)

    again = await kubectl.ok("apply", "-f", "-", stdin=SLEEPING)
    labelled = await kubectl.ok("apply", "-f", "-", stdin=SLEEPING.replace("first", "second"))

    assert (again.split()[-1], labelled.split()[-1]) == ("unchanged", "configured")


async def test_apply_refuses_a_misspelt_field(kubectl: Kubectl):
    result = await kubectl.run("apply", "-f", "-", stdin=JOB.replace("backoffLimit", "backofLimit"))

    assert result.code == 1
    assert 'unknown field "spec.backofLimit"' in result.err


async def test_apply_on_the_servers_side_reports_a_conflict(kubectl: Kubectl):
    await kubectl.ok("apply", "--server-side", "--field-manager=a", "-f", "-", stdin=SECRET)
    body = SECRET.replace("one", "two")

    refused = await kubectl.run(
        "apply", "--server-side", "--field-manager=b", "-f", "-", stdin=body
    )
    await kubectl.ok(
        "apply", "--server-side", "--field-manager=b", "--force-conflicts", "-f", "-", stdin=body
    )

    assert refused.code == 1
    assert "conflict" in refused.err


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        pytest.param(
            "secret generic made --from-literal=key=value", "{.data.key}", "dmFsdWU=", id="secret"
        ),
        pytest.param(
            "configmap made --from-literal=key=value", "{.data.key}", "value", id="configmap"
        ),
        pytest.param("namespace made", "{.status.phase}", "Active", id="namespace"),
        pytest.param("serviceaccount made", "{.metadata.name}", "made", id="service account"),
        pytest.param(
            "job made --image=busybox -- sh -c true",
            "{.spec.template.spec.containers[0].command}",
            '["sh","-c","true"]',
            id="job",
        ),
    ],
)
async def test_create_without_a_file_sends_protobuf_and_is_understood(
    kubectl: Kubectl, arguments: str, path: str, value: str
):
    kind, *_ = arguments.split()

    await kubectl.ok("create", *arguments.split())

    assert await kubectl.ok("get", kind, "made", "-o", f"jsonpath={path}") == value


async def test_protobuf_that_is_not_understood_is_refused_and_never_cut(kubectl: Kubectl):
    quota = await kubectl.run("create", "quota", "made", "--hard=pods=1")
    job = await kubectl.run("create", "cronjob", "made", "--image=busybox", "--schedule=@daily")

    assert (quota.code, job.code) == (1, 1)
    assert "the body of the request was in an unknown format" in quota.err


async def test_edit_and_replace_write_the_whole_object(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SECRET)
    body = await kubectl.ok("get", "secret", "credentials", "-o", "yaml")

    replaced = await kubectl.ok("replace", "-f", "-", stdin=body.replace("one", "two"))
    stale = await kubectl.run("replace", "-f", "-", stdin=body)
    edited = await kubectl.ok("edit", "secret", "credentials", editor="sed -i s/two/three/")

    tier = await kubectl.ok("get", "secrets", "-L", "tier", "--no-headers")
    assert (replaced.split()[-1], edited.split()[-1]) == ("replaced", "edited")
    assert stale.code == 1
    assert "Conflict" in stale.err
    assert tier.split()[-1] == "three"


async def test_diff_tells_what_an_apply_would_change(kubectl: Kubectl):
    await kubectl.ok("apply", "-f", "-", stdin=SLEEPING)

    same = await kubectl.run("diff", "-f", "-", stdin=SLEEPING)
    other = await kubectl.run("diff", "-f", "-", stdin=SLEEPING.replace("first", "second"))

    assert (same.code, same.out) == (0, "")
    assert other.code == 1
    assert "+    note: second" in other.out


async def test_create_of_a_taken_name_fails(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SECRET)

    result = await kubectl.run("create", "-f", "-", stdin=SECRET)

    assert result.code == 1
    assert "AlreadyExists" in result.err


async def test_dry_run_on_the_server_creates_nothing(kubectl: Kubectl):
    await kubectl.ok("apply", "--dry-run=server", "-f", "-", stdin=SECRET)

    assert (await kubectl.run("get", "secret", "credentials")).code == 1


@pytest.mark.parametrize("policy", ["background", "foreground"])
async def test_delete_takes_the_job_and_its_pod(kubectl: Kubectl, policy: str):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)
    await kubectl.ok("wait", "--for=jsonpath={.status.active}=1", "job/hello")

    await kubectl.ok("delete", "job", "hello", f"--cascade={policy}")

    assert (await kubectl.run("get", "job", "hello")).code == 1
    await kubectl.ok("wait", "--for=delete", "pod", "-l", "batch.kubernetes.io/job-name=hello")


async def test_delete_that_orphans_leaves_the_pod(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)
    await kubectl.ok("wait", "--for=create", "pod", "-l", "batch.kubernetes.io/job-name=hello")

    await kubectl.ok("delete", "job", "hello", "--cascade=orphan")

    owners = await kubectl.ok(
        "get",
        "pods",
        "-l",
        "batch.kubernetes.io/job-name=hello",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.metadata.ownerReferences}{end}",
    )
    assert owners.startswith("hello-")
    assert owners.endswith("=")


async def test_delete_waits_for_a_finalizer_and_gives_up_at_its_time_out(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=HELD)

    waited = await kubectl.run("delete", "job", "hello", "--timeout=1s")
    await kubectl.ok("delete", "job", "hello", "--wait=false")
    await kubectl.ok(
        "patch", "job", "hello", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
    )

    assert waited.code == 1
    assert (await kubectl.run("get", "job", "hello")).code == 1


async def test_delete_by_label_takes_what_matches(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SECRET)
    await kubectl.ok("create", "-f", "-", stdin=SECRET.replace("credentials", "other"))
    await kubectl.ok("label", "secret", "other", "tier=two", "--overwrite")

    await kubectl.ok("delete", "secrets", "-l", "tier=one")

    assert (await kubectl.ok("get", "secrets", "-o", "name")).split() == ["secret/other"]


async def test_label_annotate_and_patch_write(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)

    await kubectl.ok("label", "job", "hello", "tier=two", "--overwrite")
    await kubectl.ok("label", "job", "hello", "extra=1")
    await kubectl.ok("annotate", "job", "hello", "note-")
    await kubectl.ok("patch", "job", "hello", "-p", '{"spec":{"parallelism":0}}')

    body = json.loads(await kubectl.ok("get", "job", "hello", "-o", "json"))
    assert body["metadata"]["labels"] == {"tier": "two", "extra": "1"}
    assert "annotations" not in body["metadata"]
    assert body["spec"]["parallelism"] == 0


async def test_patch_of_an_immutable_field_is_refused(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)

    result = await kubectl.run("patch", "job", "hello", "-p", '{"spec":{"completions":5}}')

    assert result.code == 1
    assert "field is immutable" in result.err
