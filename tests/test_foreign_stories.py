"""Whole stories: what others write does not come out of the service, and stops nothing else."""

import base64
import json
import logging
from io import StringIO
from urllib.parse import quote

import pytest
from stage import JOB, Stage, launch_body, stage

from pyvatti import labels
from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.kube.resources import CONFIGMAPS, EVENTS, JOBS
from pyvatti.settings import Settings
from pyvatti.telemetry import configure_logging

OTHER = "INTP00000000600"
E_MAIL = "jane.doe@hospital.example"
SECRET = "sandbox-globus-secret"
LEAKS = (
    SECRET,
    "sandbox-globus",
    "jane",
    quote(E_MAIL),
    "hospital.example",
    "JaneDoe1970",
    "Colon",
)
LOG = (
    f"wrong value {SECRET} for globus.aai.client-secret",
    f"as base64: {base64.b64encode(f'id:{SECRET}'.encode()).decode()}",
    f"404 from GET https://g.globus.org/{quote(E_MAIL, safe='')}/Colon-cancer/jane_doe.pgen.c4gh",
    "samplesheet JaneDoe1970",
)


def personal_launch():
    """Give a launch of somebody whose data is easily found again."""
    body = launch_body()
    (genome,) = body["pipeline_param"]["target_genomes"]
    names = {"geno": "jane_doe.pgen", "variants": "jane_doe.pvar", "pheno": "jane_doe.psam"}
    genome.update(sampleset="JaneDoe1970", **names)
    files = [{"filename": f"{name}.c4gh", "size": 5} for name in names.values()]
    folder = f"{E_MAIL}/Colon-cancer"
    body["globus_details"] = {"dir_path_on_guest_collection": folder, "files": files}
    return body


@pytest.fixture
def log():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging(Settings.model_construct(log_format="json", log_level="debug"))
    stream = StringIO()
    root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def written(on: Stage) -> dict[str, str]:
    """Give what the service wrote into the cluster outside of Secrets, and told the backend."""
    store, namespace = on.world.kube.store, on.world.namespace
    jobs = [item["metadata"] for item in store.list(JOBS, namespace)]
    return {
        "annotations": json.dumps(jobs),
        "records": json.dumps(store.list(CONFIGMAPS, namespace)),
        "events": json.dumps(
            [
                item
                for item in store.list(EVENTS, namespace)
                if item.get("reportingController") == f"{labels.PREFIX}/pyvatti"
            ]
        ),
        "told": repr([item.raw for item in on.world.backend.received]),
    }


@pytest.mark.parametrize("is_known", [True, False], ids=["its request is known", "it is not"])
async def test_what_a_driver_says_comes_out_nowhere(log, monkeypatch, is_known):
    if not is_known:
        monkeypatch.setattr("pyvatti.lifecycle.personal.Personal.learn", lambda *_: False)
    async with stage(Plan(transfer_exit=1, transfer_log=LOG if is_known else LOG[:3])) as on:
        answer = await on.client.post("/launch", json=personal_launch())
        assert answer.status_code == 201
        live = await on.until_state("Failed")
        early = written(on)
        shown = await on.until_finished()
        texts = {**written(on), "live": json.dumps(live), "shown": json.dumps(shown)}
        texts |= {f"early {name}": text for name, text in early.items()}
        texts["log"] = log.getvalue()

    assert "(redacted)" in texts["shown"]
    assert shown["verdict"]["reason"] == "TransferFailed"
    assert [(name, leak) for name, text in texts.items() for leak in LEAKS if leak in text] == []


async def test_an_annotation_nobody_can_read_costs_one_job_a_warning_and_nothing_else():
    async with stage("slow", jobs={OTHER.lower(): "success"}) as on:
        await on.launch()
        await on.until_state("Created", "Deployed")
        store, namespace = on.world.kube.store, on.world.namespace

        def edit(job):
            naive = '{"Created": "2026-01-01T00:00:00"}'
            job["metadata"]["annotations"][labels.TRANSITIONS] = naive

        store.mutate(JOBS, namespace, JOB.lower(), edit)
        await on.until(
            lambda: any(
                item["reason"] == "AnnotationUnreadable" and item["type"] == "Warning"
                for item in store.list(EVENTS, namespace)
            ),
            "a Warning Event says so",
        )
        await on.launch(OTHER)
        other = await on.until_finished(OTHER)
        ready = await on.client.get("/readyz")

    assert other["state"] == "Succeeded"
    assert ready.status_code == 200
