"""The last resort when pyvatti is gone: a Job it holds is let go, and nothing else happens."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from patience import PATIENCE

from pyvatti.labels import FINALIZER, MANAGED_BY, VERDICT
from pyvatti.sandbox.kube import KubeStandIn
from pyvatti.sandbox.kube.resources import JOBS

NAMESPACE = "intervene-dev"
BASE = "intp00000000513"


def held_job(manager: str, **annotations: str) -> dict[str, object]:
    template = {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "calculation", "image": "i"}]}
    }
    metadata = {
        "name": BASE,
        "labels": {MANAGED_BY: manager},
        "finalizers": [FINALIZER, "a.b/c"],
        "annotations": annotations,
    }
    return {"metadata": metadata, "spec": {"suspend": True, "template": template}}


async def run_release(kube: KubeStandIn, folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "kubeconfig"
    config.write_text(kube.kubeconfig())
    command = [sys.executable, "-m", "pyvatti", "jobs", "release", BASE.upper()]
    command += ["--namespace", NAMESPACE, "--kubeconfig", str(config)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


async def test_a_held_job_is_released_and_its_buckets_are_named(tmp_path: Path):
    async with KubeStandIn() as kube:
        kube.store.create(JOBS, NAMESPACE, held_job("pyvatti"))

        done = await run_release(kube, tmp_path)

        assert done.returncode == 0, done.stderr
        assert f"gs://{NAMESPACE}-{BASE}-work-" in done.stdout
        assert f"gs://{NAMESPACE}-{BASE}-results" in done.stdout
        left = kube.store.get(JOBS, NAMESPACE, BASE)["metadata"]["finalizers"]
        assert left == ["a.b/c"]


async def test_results_of_a_success_are_not_among_what_is_to_be_deleted(tmp_path: Path):
    verdict = '{"state": "Succeeded", "reason": "RunSucceeded", "message": "m"}'
    async with KubeStandIn() as kube:
        kube.store.create(JOBS, NAMESPACE, held_job("pyvatti", **{VERDICT: verdict}))

        done = await run_release(kube, tmp_path)

        assert f"gs://{NAMESPACE}-{BASE}-work-" in done.stdout
        assert "-results" not in done.stdout


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        pytest.param(None, "has no Job", id="no such Job"),
        pytest.param("helm", "not managed by pyvatti", id="somebody else's Job"),
    ],
)
async def test_anything_else_is_refused(tmp_path: Path, manager: str | None, words: str):
    async with KubeStandIn() as kube:
        if manager is not None:
            kube.store.create(JOBS, NAMESPACE, held_job(manager))

        done = await run_release(kube, tmp_path)

        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path):
    async with KubeStandIn() as kube:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump({"kind": "Config"}))
        command = [sys.executable, "-m", "pyvatti", "jobs", "release", BASE]
        command += ["--namespace", NAMESPACE, "--kubeconfig", str(tmp_path / "kubeconfig")]

        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

        assert kube.url
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
