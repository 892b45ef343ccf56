"""Whole stories of pods that die: the running service, and a stand-in that does as a kubelet."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from stage import JOB, LOOK, Stage, stage

from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.kube.kubelet_faults import NODE_REASONS, Fault
from pyvatti.sandbox.kube.resources import EVENTS, PODS
from pyvatti.settings import PACKAGED_TEMPLATES

BASE = JOB.lower()
LASTING = 3600.0  # seconds a calculation runs that never ends by itself


def notes(on: Stage, reason: str) -> list[str]:
    """Give the notes of the service's Events of a reason."""
    found = on.world.kube.store.list(EVENTS, on.world.namespace)
    return [item["message"] for item in found if item["reason"] == reason]


async def test_a_job_on_a_silent_node_fails_and_its_data_goes_although_its_pod_stays():
    plan = Plan(fault=Fault.NODE_SILENT, run_seconds=LASTING)
    async with stage(plan, speed=60.0, NODE_GRACE="2", SWEEP_INTERVAL="0.3") as on:
        await on.launch()
        shown = await on.until_state("Failed")
        async with asyncio.timeout(PATIENCE):
            while (await on.show())["live"]:
                await asyncio.sleep(LOOK)
        report = await deletion(on)

        await on.until(lambda: notes(on, "Failed") != [], "all is told")
        assert len(notes(on, "NodeNotReady")) == 1
        assert len([note for note in notes(on, "Waiting") if "has not answered" in note]) == 1
        assert shown["verdict"]["reason"] == "NodeLost"
        assert on.told()[-1] == "failed"
        (stays,) = on.world.objects("Pod")
        assert (on.world.objects("Secret"), on.world.storage.leftovers()) == ([], [])
        (remains,) = report["remaining"]
        assert (report["complete"], remains["resource"]) == (False, f"pods/{BASE}")
        assert "that its containers ended was not observed" in remains["reason"]

        remove_node(on, stays)
        await on.until(lambda: on.world.objects("Job") == [], "the Job goes with its pod")
        await on.until(lambda: on.world.objects("Pod") == [], "the pod is gone")
        async with asyncio.timeout(PATIENCE):
            while not report["complete"]:
                await asyncio.sleep(LOOK)
                report = await deletion(on)
        assert report["remaining"] == []


async def deletion(on: Stage) -> dict[str, Any]:
    """Give the deletion report of the job."""
    report: dict[str, Any] = (await on.client.get(f"/jobs/{JOB}/deletion")).json()
    return report


def remove_node(on: Stage, pod: str) -> None:
    """Do as the garbage collector of pods once a node is gone: it writes the end and deletes."""
    store, namespace = on.world.kube.store, on.world.namespace
    store.mutate(PODS, namespace, pod, lambda body: body["status"].update(phase="Failed"))
    store.delete(PODS, namespace, pod, grace_seconds=0)


async def test_a_pod_without_a_node_says_the_schedulers_words_and_an_event_says_them_once():
    async with stage(Plan(fault=Fault.UNSCHEDULABLE)) as on:
        await on.launch()
        await on.until(lambda: notes(on, "Waiting") != [], "an Event says that it waits")
        waiting = (await on.show())["waiting"]
        await on.client.delete(f"/jobs/{JOB}")
        await on.until_finished()

        words = "0/1 nodes are available: 1 Insufficient cpu."
        assert (waiting["on"], waiting["message"]) == ("node", words)
        assert notes(on, "Waiting") == [f"waits for node: {words}"]


@pytest.mark.parametrize(
    ("fault", "reason", "step"),
    [
        pytest.param(Fault.STORAGE_LIMIT, "DriverOutOfStorage", "DRIVER_STORAGE", id="own limit"),
        pytest.param(Fault.EVICTED, "Evicted", "under a new id", id="a node short of memory"),
        pytest.param(Fault.NODE_AFFINITY, "NodeAffinity", "under a new id", id="refused"),
    ],
)
async def test_what_a_kubelet_says_of_a_pod_it_ended_is_told(fault: Fault, reason: str, step: str):
    async with stage(Plan(fault=fault, run_seconds=LASTING)) as on:
        await on.launch()
        verdict = (await on.until_finished())["verdict"]

        said = " ".join(item["said"] for item in verdict["evidence"])
        assert (verdict["reason"], step in verdict["next_step"]) == (reason, True)
        assert NODE_REASONS[fault][1].strip() in said
        assert on.leftovers() == []


async def test_an_init_container_that_somebody_adds_is_named_when_it_fails(tmp_path: Path):
    folder = tmp_path / "templates"
    shutil.copytree(PACKAGED_TEMPLATES, folder)
    added = (
        "      initContainers:\n"
        "        - {name: mesh-init, image: mesh/init:1,"
        ' command: [/bin/sh, -c, "echo not permitted; exit 3"]}\n'
    )
    text = (folder / "job.yaml.j2").read_text()
    (folder / "job.yaml.j2").write_text(text.replace("      initContainers:\n", added))
    async with stage(TEMPLATES_DIR=str(folder), FAILED_GRACE="3600") as on:
        await on.launch()
        verdict = (await on.until_finished())["verdict"]

    assert verdict["reason"] == "AddedContainerFailed"
    assert "mesh-init" in verdict["message"]
    assert "container mesh-init ended with exit code 3" in verdict["evidence"][0]["said"]
