"""The real kubectl reads the stand-in cluster: get, watch, describe, logs, wait, discovery."""

import asyncio
import json
import shutil

import pytest
from kubectl_calls import FAILING, JOB, PATIENCE, SECRET, SLEEPING, Kubectl, lines

pytest_plugins = ("kubectl_fixtures",)
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


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

    chosen = await kubectl.ok(
        "logs", "-l", "job-name=hello", "--all-containers", "--prefix", "--tail=1"
    )
    unknown = await kubectl.run("logs", "job/hello", "-c", "other")

    assert (whole, tail) == ("one\ntwo\n", "two\n")
    assert chosen.startswith("[pod/hello-")
    assert chosen.endswith("/main] two\n")
    assert unknown.code == 1
    assert "container other is not valid for pod" in unknown.err


async def test_logs_are_followed_to_the_end(kubectl: Kubectl):
    body = JOB.replace("echo two; exit 0", "sleep 20; echo two")  # 1 s in the sandbox's time
    await kubectl.ok("create", "-f", "-", stdin=body)
    await kubectl.ok("wait", "--for=jsonpath={.status.active}=1", "job/hello")
    await kubectl.ok(
        "wait", "--for=jsonpath={.status.phase}=Running", "pod", "-l", "job-name=hello"
    )

    text = await kubectl.ok("logs", "-f", "job/hello")

    assert text == "one\ntwo\n"


async def test_events_are_printed_and_chosen(kubectl: Kubectl):
    await kubectl.ok("create", "-f", "-", stdin=JOB)
    await kubectl.ok("wait", "--for=condition=complete", "job/hello")

    about = await kubectl.ok("events", "--for", "job/hello")
    chosen = await kubectl.ok("get", "events", "--field-selector=reason=Completed", "--no-headers")

    # Times of Events are whole seconds: in the sandbox's hurry their order is not told.
    assert {row[2] for row in lines(about)[1:]} == {"SuccessfulCreate", "Completed"}
    assert [row[2:4] for row in lines(chosen)] == [["Completed", "job/hello"]]


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
