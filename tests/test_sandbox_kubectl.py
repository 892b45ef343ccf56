"""The real kubectl against the stand-in cluster: what an operator types must work."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kube_cluster import Sandbox

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

PATIENCE = 60  # seconds for one kubectl call

JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: hello
  labels: {tier: one}
  annotations: {note: first}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: busybox
          command: [sh, -c, "echo one; echo two; exit 0"]
"""
SLEEPING = JOB.replace("echo one; echo two; exit 0", "sleep 600")
HELD = JOB.replace("  labels:", "  finalizers: [kubectl.test/hold]\n  labels:")
FAILING = JOB.replace("exit 0", "exit 3")
SECRET = """
apiVersion: v1
kind: Secret
metadata:
  name: credentials
  labels: {tier: one}
stringData: {password: secret}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a program answered."""

    code: int
    out: str
    err: str


class Kubectl:
    """The kubectl on PATH with a home and a configuration of its own."""

    def __init__(self, sandbox: Sandbox, home: Path) -> None:
        self.sandbox = sandbox
        self.home = home
        self.configuration = home / "config"
        self.configuration.write_text(sandbox.kube.kubeconfig(), encoding="utf-8")

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            f"--kubeconfig={self.configuration}",
            f"--cache-dir={self.home / 'cache'}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        process = await self.start(*arguments)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def ok(self, *arguments: str, stdin: str = "") -> str:
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, result
        return result.out


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with Sandbox() as sandbox:
        yield Kubectl(sandbox, tmp_path)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_get_prints_jobs_with_a_label_column(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)

    header, row = lines(await kubectl.ok("get", "jobs", "-l", "tier=one", "-L", "tier"))

    assert header == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "TIER"]
    assert (row[0], row[1], row[2], row[-1]) == ("hello", "Running", "0/1", "one")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        pytest.param("tier=one", True, id="equal"),
        pytest.param("tier in (one,two)", True, id="in"),
        pytest.param("tier notin (one)", False, id="notin"),
        pytest.param("!tier", False, id="exists not"),
    ],
)
async def test_get_understands_selectors(kubectl: Kubectl, selector: str, found: bool):  # noqa: FBT001 - a row
    await kubectl.ok("create", "-f", "-", stdin=SECRET)

    names = await kubectl.ok("get", "secrets", "-l", selector, "-o", "name")

    assert names.split() == (["secret/credentials"] if found else [])


async def test_get_prints_wide_yaml_and_json(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SLEEPING)

    wide = await kubectl.ok("get", "job", "hello", "-o", "wide")
    yaml = await kubectl.ok("get", "job", "hello", "-o", "yaml")
    as_json = json.loads(await kubectl.ok("get", "jobs", "-o", "json"))

    assert lines(wide)[0][-3:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    assert "kind: Job" in yaml
    assert [item["kind"] for item in as_json["items"]] == ["Job"]


async def test_get_finds_objects_by_field(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=SECRET)

    mine = await kubectl.ok(
        "get", "secrets", "--field-selector=metadata.name=credentials", "-o", "name"
    )
    none = await kubectl.ok("get", "secrets", "--field-selector=metadata.name=x", "-o", "name")

    assert (mine.strip(), none) == ("secret/credentials", "")


async def test_get_pages_through_a_long_list(kubectl: Kubectl):
    for number in range(7):
        await kubectl.ok(
            "create", "-f", "-", stdin=SECRET.replace("credentials", f"credentials-{number}")
        )

    names = await kubectl.ok("get", "secrets", "--chunk-size=3", "-o", "name")

    assert len(names.split()) == 7


async def test_get_all_shows_a_job_and_its_pod(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=JOB)
    await kubectl.ok("wait", "--for=condition=complete", "job/hello")

    names = (await kubectl.ok("get", "all", "-o", "name")).split()

    assert "job.batch/hello" in names
    assert any(name.startswith("pod/hello-") for name in names)


@pytest.mark.parametrize(
    "plural",
    [
        "namespaces",
        "nodes",
        "serviceaccounts",
        "configmaps",
        "leases",
        "events",
        "events.v1.events.k8s.io",
        "resourcequotas",
        "roles",
        "rolebindings",
    ],
)
async def test_every_kind_can_be_printed(kubectl: Kubectl, plural: str):
    await kubectl.ok("get", plural, "-A")


async def test_watch_prints_changes_as_they_come(kubectl: Kubectl):
    process = await kubectl.start("get", "secrets", "-w", "-L", "tier")
    assert process.stdout is not None
    await kubectl.ok("create", "-f", "-", stdin=SECRET)
    await kubectl.ok("label", "secret", "credentials", "tier=two", "--overwrite")

    try:
        async with asyncio.timeout(PATIENCE):
            seen = [(await process.stdout.readline()).decode().split() for _ in range(3)]
    finally:
        process.terminate()
        await process.communicate()

    assert seen[0] == ["NAME", "TYPE", "DATA", "AGE", "TIER"]
    assert [row[-1] for row in seen[1:]] == ["one", "two"]


async def test_describe_tells_the_story_of_a_job_by_its_events(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=JOB)
    await kubectl.ok("wait", "--for=condition=complete", "job/hello")

    text = await kubectl.ok("describe", "job", "hello")

    assert "Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed" in text
    assert "SuccessfulCreate" in text
    assert "Completed" in text


async def test_describe_shows_why_a_pod_failed(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=FAILING)
    await kubectl.ok("wait", "--for=condition=failed", "job/hello")

    text = await kubectl.ok("describe", "pod", "-l", "batch.kubernetes.io/job-name=hello")

    assert "Exit Code:    3" in text


async def test_logs_are_printed_whole_and_tailed(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=JOB)
    await kubectl.ok("wait", "--for=condition=complete", "job/hello")

    whole = await kubectl.ok("logs", "job/hello")
    tail = await kubectl.ok("logs", "job/hello", "-c", "main", "--tail=1")

    assert (whole, tail) == ("one\ntwo\n", "two\n")


async def test_logs_are_followed_to_the_end(kubectl: Kubectl):
    body = JOB.replace("echo two; exit 0", "sleep 20; echo two")  # 1 s in the sandbox's time
    await kubectl.ok("create", "-f", "-", stdin=body)
    await kubectl.ok("wait", "--for=jsonpath={.status.active}=1", "job/hello")
    await kubectl.ok(
        "wait", "--for=jsonpath={.status.phase}=Running", "pod", "-l", "job-name=hello"
    )

    text = await kubectl.ok("logs", "-f", "job/hello")

    assert text == "one\ntwo\n"


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


async def test_wait_ends_with_the_condition(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=FAILING)

    failed = await kubectl.ok("wait", "--for=condition=failed", "job/hello", "--timeout=30s")
    complete = await kubectl.run("wait", "--for=condition=complete", "job/hello", "--timeout=1s")

    assert "condition met" in failed
    assert complete.code == 1


async def test_auth_tells_what_the_caller_may_do(kubectl: Kubectl):
    assert (await kubectl.ok("auth", "can-i", "create", "jobs")).strip() == "yes"
    assert "*.*" in await kubectl.ok("auth", "can-i", "--list")
    assert "admin" in await kubectl.ok("auth", "whoami")


async def test_discovery_serves_explain_and_api_resources(kubectl: Kubectl):
    explained = await kubectl.ok("explain", "job.spec.suspend")
    resources = await kubectl.ok("api-resources", "--namespaced=true", "-o", "name")

    assert "FIELD: suspend <boolean>" in explained
    assert {"jobs.batch", "pods", "events.events.k8s.io"} <= set(resources.split())


async def test_version_of_the_server_is_told(kubectl: Kubectl):
    text = json.loads(await kubectl.ok("version", "-o", "json"))

    assert text["serverVersion"]["minor"] == "36"
