"""The chart installed, tested, upgraded, rolled back and removed by a real Helm, 3 and 4."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chart_tools import HELM_3, HELM_4, NAMESPACE
from helm_release import Release
from stage import JOB, launch_body

from pyvatti.sandbox.kube.resources import DEPLOYMENTS, SERVICES

# Kinds of operators that the sandbox's cluster does not have.
WITHOUT_OPERATORS: dict[str, Any] = {
    "priorityClassName": "",
    "metrics": {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}},
}
HELMS = [pytest.param(HELM_3, id="helm 3"), pytest.param(HELM_4, id="helm 4")]


@pytest.fixture
async def release(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Release]:
    release = Release(getattr(request, "param", HELM_4), tmp_path)
    async with release.cluster():
        yield release


async def test_installed_service_runs_a_job_with_the_rights_of_its_account(release: Release):
    await release.install("hattivatti", "--values", release.values("default"))

    async with release.running("hattivatti") as on:
        await on.launch()
        shown = await on.until_finished()
        tested = await release.helm("test", "hattivatti")

    assert shown["state"] == "Succeeded"
    assert release.refusals() == []
    assert "Succeeded" in tested
    assert "POST /launch?dry_run=true: 200" in release.runtime.output
    assert ("Pod", "hattivatti-test") not in release.objects()


async def test_helm_test_fails_and_shows_its_log_when_nobody_answers_well(release: Release):
    await release.install("hattivatti", "--values", release.values("default"))
    async with release.running("hattivatti") as on:
        release.runtime.addresses["http://hattivatti:80"] = on.world.backend.url

        await release.helm("test", "hattivatti", code=1)
        log = await release.helm("test", "hattivatti", "--logs", code=1)

    assert "GET /readyz: 404" in log
    assert ("Pod", "hattivatti-test") in release.objects()


@pytest.mark.parametrize("release", HELMS, indirect=True)
async def test_release_is_upgraded_in_place_rolled_back_and_removed(release: Release):
    first = release.values("default")
    more = release.values("high-availability", **WITHOUT_OPERATORS)
    other = release.values("ingress", httpRoute={"enabled": False})
    await release.install("hattivatti", "--values", first)
    before, installed = identities(release), release.objects()

    for step in (("--values", more), ("--values", other), ("--values", more)):
        await release.install("hattivatti", *step)
        assert identities(release) == before
    assert ("PodDisruptionBudget", "hattivatti") in release.objects()
    await release.helm("rollback", "hattivatti", "1")

    assert identities(release) == before
    assert without_history(release.objects()) == without_history(installed)
    await release.helm("uninstall", "hattivatti")
    assert release.objects() == {("ServiceAccount", "hattivatti-driver")}
    await release.install("hattivatti", "--values", first)  # takes over what stayed
    assert release.objects() == installed


async def test_uninstall_leaves_what_the_manual_says(release: Release):
    await release.install("hattivatti", "--values", release.values("default"))
    async with release.running("hattivatti") as on:
        await on.launch()
        await on.until_finished()

    await release.helm("uninstall", "hattivatti")

    assert release.objects() == {
        ("ServiceAccount", "hattivatti-driver"),
        ("Lease", "hattivatti"),
        ("ConfigMap", f"{JOB.lower()}-record"),
    }


async def test_service_that_outlives_its_rights_refuses_launches_and_harms_nothing(
    release: Release,
):
    await release.install("hattivatti", "--values", release.values("default"))
    async with release.running("hattivatti") as on:
        await on.launch()
        await release.helm("uninstall", "hattivatti")  # the pods still drain

        answer = await on.client.post("/launch", json=launch_body("INTP00000000514"))
        alive = await on.client.get("/healthz")

    assert (answer.status_code, alive.status_code) == (503, 200)
    assert "Retry-After" in answer.headers
    await release.install("hattivatti", "--values", release.values("default"))
    async with release.running("hattivatti") as on:
        assert (await on.until_finished())["state"] == "Succeeded"


async def test_two_releases_share_a_namespace(release: Release):
    values = release.values("default")
    await release.install("hattivatti", "--values", values)
    await release.install("second", "--values", values)

    async with release.running("hattivatti") as one, release.running("second") as two:
        await one.launch()
        await two.launch("INTP00000000514")
        states = [
            (await one.until_finished())["state"],
            (await two.until_finished("INTP00000000514"))["state"],
        ]
        listed = (await two.client.get("/jobs")).json()

    assert states == ["Succeeded", "Succeeded"]
    assert [job["id"] for job in listed["jobs"]] == ["INTP00000000514"]
    assert release.refusals() == []
    await release.helm("uninstall", "hattivatti")
    assert ("Deployment", "second") in release.objects()
    assert ("Deployment", "hattivatti") not in release.objects()


async def test_upgrade_while_a_job_lives_loses_neither_the_job_nor_a_launch(release: Release):
    values = release.values("default")
    await release.install("hattivatti", "--values", values)

    async with release.running("hattivatti") as old:
        await old.launch()
        await release.install("hattivatti", "--values", values, "--set", "config.logLevel=warning")
        async with release.running("hattivatti") as new:  # ready before the old one goes
            await old.launch("INTP00000000514")
            await new.launch("INTP00000000515")
            ends = [
                (await new.until_finished(job_id))["state"]
                for job_id in (JOB, "INTP00000000514", "INTP00000000515")
            ]

    assert ends == ["Succeeded"] * 3
    assert release.refusals() == []


def identities(release: Release) -> dict[str, str]:
    """Give what must survive every upgrade: the Deployment's and Service's uid, its address."""
    find = release.world.kube.store.get
    service = find(SERVICES, NAMESPACE, "hattivatti")
    return {
        "deployment": find(DEPLOYMENTS, NAMESPACE, "hattivatti")["metadata"]["uid"],
        "service": service["metadata"]["uid"],
        "address": service["spec"]["clusterIP"],
    }


def without_history(objects: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out the Secrets in which Helm keeps its revisions."""
    return {(kind, name) for kind, name in objects if not name.startswith("sh.helm.release")}
