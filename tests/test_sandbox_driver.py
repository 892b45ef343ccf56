"""The simulated driver: what it reads from its container and tells the stand-ins."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from workload_bench import NAMESPACE, bench, state

from pyvatti.sandbox.driver import PLANS, DriverRuntime, Outcome, Plan, by_job, everyone, faults_of
from pyvatti.sandbox.driver_calls import authorization
from pyvatti.sandbox.driver_launch import described, read_launch
from pyvatti.sandbox.kube.kubelet import Fault, Kubelet
from pyvatti.sandbox.kube.kubelet_runtime import ContainerSpec, OutOfMemory
from pyvatti.sandbox.kube.resources import PODS, SECRETS
from pyvatti.sandbox.seqera import SeqeraStandIn
from pyvatti.sandbox.storage import StorageStandIn

PAYLOADS = Path(__file__).parent / "data" / "payloads"
RUN = "intervene-dev-intp00000000513"
WORK, RESULTS = f"{RUN}-work", f"{RUN}-results"
IMAGE = "docker.io/nextflow/nextflow:25.10.4"
SPEED = 20.0
SCRIPT = """
if ! [ -r /opt/globflow/application.properties ]; then
  echo "credential file is missing" >&2
  exit 78
fi
# don't trip over this
exec nextflow "$@"
"""
CONFIG = f"""
workDir = 'gs://{WORK}/work'
wave {{
    endpoint = 'https://wave.example.org'
}}
tower {{
    enabled = true
}}
"""
POD: dict[str, Any] = {"metadata": {"labels": {"job-name": "intp00000000513"}}}
SAMPLESHEET = [
    {
        "sampleset": "Sample-Set",
        "geno": f"gs://{WORK}/data/hapnest.pgen",
        "variants": f"gs://{WORK}/data/hapnest.pvar",
        "pheno": f"gs://{WORK}/data/hapnest.psam",
    }
]


class Rig:
    """The driver between a storage and a Seqera stand-in, with its buckets in place."""

    def __init__(self, storage: StorageStandIn, seqera: SeqeraStandIn) -> None:
        self.storage, self.seqera = storage, seqera
        self.lines: list[str] = []
        self.stop = asyncio.Event()
        for bucket in (WORK, RESULTS):
            storage.add_bucket(bucket)

    def runtime(self, plan: Plan | None = None) -> DriverRuntime:
        return DriverRuntime(
            storage_url=self.storage.url,
            seqera_url=self.seqera.url,
            plans=everyone(plan or Plan()),
            speed=SPEED,
        )

    async def run(self, container: ContainerSpec, plan: Plan | None = None) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.runtime(plan).run(container, POD, self.lines.append, self.stop)

    def objects(self, bucket: str) -> list[str]:
        return sorted(self.storage.buckets[bucket].objects)

    def row(self) -> dict[str, Any]:
        (row,) = self.seqera.runs.all()
        return row.workflow

    @property
    def trace_calls(self) -> list[str]:
        paths = [(item.method, item.path.partition("?")[0]) for item in self.seqera.requests]
        return [path.rpartition("/")[2] for _, path in paths if path.startswith("/trace")]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with StorageStandIn() as storage, SeqeraStandIn(workspace=7) as seqera:
        yield Rig(storage, seqera)


def payload(name: str) -> bytes:
    return (PAYLOADS / name).read_bytes()


def transfer(*, without: str = "") -> ContainerSpec:
    files = {
        "/opt/nxf/params.json": payload("transfer-params.json"),
        "/opt/nxf/input.json": payload("transfer-input.json"),
        "/opt/nxf/key.json": payload("transfer-key.json"),
        "/opt/nxf/nxf.config": CONFIG.encode(),
        "/opt/globflow/application.properties": payload("transfer-application.properties"),
        "/opt/globflow/application-crypt4gh-secret-manager.properties": payload(
            "transfer-crypt4gh-secret-manager.properties"
        ),
    }
    files.pop(without, None)
    args = ["run", "gdp-public/globflow", "-params-file", "/opt/nxf/params.json"]
    return ContainerSpec(
        name="transfer",
        image=IMAGE,
        command=["/bin/sh", "-c", SCRIPT, "transfer"],
        args=[*args, "-c", "/opt/nxf/nxf.config", "--decrypt"],
        files=files,
        init=True,
    )


def calculation(
    *, image: str = IMAGE, config: str = CONFIG, env: dict[str, str] | None = None
) -> ContainerSpec:
    given = {"TOWER_ACCESS_TOKEN": "sandbox-seqera-token", "TOWER_WORKSPACE_ID": "7"}
    return ContainerSpec(
        name="calculation",
        image=image,
        command=["/bin/sh", "-c", 'exec nextflow "$@"', "calculation"],
        args=[
            *("run", "gdp-public/pgsc_calc", "-profile", "docker", "-name", RUN),
            *("-params-file", "/opt/nxf/params.json", "-c", "/opt/nxf/nxf.config"),
        ],
        env=given if env is None else env,
        files={
            "/opt/nxf/params.json": payload("pgsc-params.json"),
            "/opt/nxf/input.json": json.dumps(SAMPLESHEET).encode(),
            "/opt/nxf/nxf.config": config.encode(),
        },
    )


# --- reading


def test_launch_is_found_in_arguments_behind_a_shell():
    launch = read_launch(calculation())

    assert launch.run_name == RUN
    assert launch.params["outdir"] == f"gs://{RESULTS}/results"
    assert launch.config["workDir"] == f"gs://{WORK}/work"
    assert "endpoint" not in launch.config  # Wave's is not Tower's
    assert not launch.is_transfer


def test_launch_is_found_inside_a_script_text():
    script = (
        f"set -e\nexec nextflow run x -name {RUN} \\\n  -params-file '/p q.json' -c /n.config\n"
    )
    files = {"/p q.json": b'{"a": 1}', "/n.config": b"tower.endpoint = 'http://x'\n"}
    container = ContainerSpec(name="c", image=IMAGE, command=["sh", "-c", script], files=files)

    launch = read_launch(container)

    assert (launch.run_name, launch.params) == (RUN, {"a": 1})
    assert launch.config == {"endpoint": "http://x"}


@pytest.mark.parametrize(
    ("token", "scheme"),
    [
        pytest.param("a.b.c", "Bearer", id="two dots"),
        pytest.param(base64.b64encode(b'{"tid":1}.abc').decode(), "Bearer", id="Platform token"),
        pytest.param("sandbox", "Basic", id="any other string"),
    ],
)
def test_token_is_sent_as_nextflow_sends_it(token: str, scheme: str):
    assert authorization(token).split()[0] == scheme


# --- transfer


async def test_transfer_stores_one_decrypted_object_per_file(rig: Rig):
    code = await rig.run(transfer())

    assert code == 0
    assert [name for name in rig.objects(WORK) if name.startswith("data/")] == [
        "data/hapnest.pgen",
        "data/hapnest.psam",
        "data/hapnest.pvar",
    ]
    assert rig.trace_calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/opt/globflow/application.properties",
        "/opt/globflow/application-crypt4gh-secret-manager.properties",
    ],
)
async def test_transfer_without_a_credential_file_ends_as_its_script_says(rig: Rig, path: str):
    code = await rig.run(transfer(without=path))

    assert code == 78
    assert any(path in line for line in rig.lines)
    assert rig.objects(WORK) == []


async def test_transfer_that_fails_by_plan_stores_no_genome(rig: Rig):
    code = await rig.run(transfer(), PLANS["transfer_fails"])

    assert code == 1
    assert not any(name.startswith("data/") for name in rig.objects(WORK))
    assert any("404 Not Found" in line for line in rig.lines)


async def test_task_of_the_transfer_that_fails_is_named_by_its_own_code_alone(rig: Rig):
    code = await rig.run(transfer(), PLANS["transfer_preempted"])

    said = "\n".join(rig.lines)
    assert code == 1
    assert "ERROR ~ Error executing process > 'GLOBUS_TRANSFER (1)'" in said
    assert "terminated with an error exit status (50001)" in said
    assert said.endswith("-- Check '.nextflow.log' file for details")


@pytest.mark.parametrize("container", ["transfer", "calculation"])
async def test_project_that_is_not_found_is_said_without_an_error_mark(rig: Rig, container: str):
    if container == "transfer":
        code = await rig.run(transfer(), PLANS["transfer_cannot_start"])
    else:
        code = await rig.run(calculation(), PLANS["driver_cannot_start"])

    assert code == 1
    assert rig.lines[-1].startswith("Remote resource not found: https://gitlab.ebi.ac.uk/")
    assert rig.trace_calls == []


@pytest.mark.parametrize(
    ("moment", "code", "words"),
    [
        pytest.param("pulling", 143, [], id="while it pulls"),
        pytest.param("later", 1, ["WARN: Killing running tasks (1)"], id="later"),
    ],
)
async def test_term_ends_a_transfer_by_whether_its_session_stands(
    rig: Rig, moment: str, code: int, words: list[str]
):
    async with asyncio.TaskGroup() as group:
        if moment == "pulling":
            rig.stop.set()
        task = group.create_task(rig.run(transfer(), Plan(transfer_seconds=900)))
        if moment == "later":
            await wait_for(lambda: len(rig.objects(WORK)) > 4)
            rig.stop.set()

    assert task.result() == code
    assert [line for line in rig.lines if "Killing" in line] == words


async def test_transfer_into_a_missing_bucket_fails(rig: Rig):
    del rig.storage.buckets[WORK]

    assert await rig.run(transfer()) == 1


# --- calculation


async def test_success_speaks_the_whole_trace_protocol_and_leaves_results(rig: Rig):
    await rig.run(transfer())

    code = await rig.run(calculation())

    assert code == 0
    assert rig.trace_calls == ["create", "begin", *["progress"] * 3, "complete"]
    row = rig.row()
    assert (row["runName"], row["status"], row["exitStatus"]) == (RUN, "SUCCEEDED", 0)
    assert {
        "results/Sample-Set/score/aggregated_scores.txt.gz",
        "results/Sample-Set/score/report.html",
        "results/Sample-Set/match/Sample-Set_log.csv.gz",
    } <= set(rig.objects(RESULTS))
    assert any(name.startswith("work/") for name in rig.objects(WORK))


async def test_genomes_that_are_gone_fail_a_task(rig: Rig):
    code = await rig.run(calculation())

    assert code == 1
    assert rig.row()["exitStatus"] == 19


@pytest.mark.parametrize(
    ("name", "exit_status", "process"),
    [
        pytest.param("match_rate_too_low", 14, "MATCH:MATCH_COMBINE (1)", id="match rate"),
        pytest.param("zero_matches", 15, "MATCH:MATCH_COMBINE (1)", id="no match"),
        pytest.param("task_failure", 12, "INPUT_CHECK:FORMAT_SCOREFILES (1)", id="unknown id"),
    ],
)
async def test_failed_task_is_told_with_its_report(
    rig: Rig, name: str, exit_status: int, process: str
):
    await rig.run(transfer())

    code = await rig.run(calculation(), PLANS[name])

    row = rig.row()
    assert code == 1
    assert (row["status"], row["exitStatus"]) == ("FAILED", exit_status)
    first = row["errorReport"].splitlines()[0]
    assert first == f"Error executing process > 'PGSCATALOG_PGSCCALC:PGSCCALC:{process}'"
    assert f"Command exit status:\n  {exit_status}" in row["errorReport"]
    assert not any(name.startswith("results/") for name in rig.objects(RESULTS))


async def test_killed_driver_makes_no_last_call(rig: Rig):
    await rig.run(transfer())

    with pytest.raises(OutOfMemory):
        await rig.run(calculation(), PLANS["driver_killed"])

    assert rig.row()["status"] == "RUNNING"
    assert "complete" not in rig.trace_calls


async def test_exhausted_heap_ends_with_3_and_no_last_call(rig: Rig):
    await rig.run(transfer())

    assert await rig.run(calculation(), PLANS["heap_exhausted"]) == 3

    assert rig.lines[-1] == "Terminating due to java.lang.OutOfMemoryError: Java heap space"
    assert "complete" not in rig.trace_calls


async def test_silent_driver_has_no_row_and_succeeds(rig: Rig):
    await rig.run(transfer())

    code = await rig.run(calculation(), PLANS["seqera_silent"])

    assert code == 0
    assert rig.trace_calls == []
    assert rig.objects(RESULTS)


async def test_submitted_driver_only_reserves_an_id(rig: Rig):
    await rig.run(transfer())

    assert await rig.run(calculation(), PLANS["seqera_submitted"]) == 0

    assert rig.trace_calls == ["create"]
    assert rig.seqera.runs.all() == []


async def test_hanging_driver_has_told_its_success_and_stays_until_term(rig: Rig):
    await rig.run(transfer())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.run(calculation(), PLANS["driver_hangs"]))
        await wait_for(lambda: rig.seqera.status_of(RUN) == "SUCCEEDED")
        assert not task.done()
        rig.stop.set()

    assert task.result() == 1


async def test_run_cancelled_in_seqera_goes_on_until_term(rig: Rig):
    await rig.run(transfer())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.run(calculation(), PLANS["cancelled_in_seqera"]))
        await wait_for(lambda: rig.seqera.status_of(RUN) == "CANCELLED")
        assert not task.done()
        rig.stop.set()

    assert task.result() == 1
    assert rig.seqera.status_of(RUN) == "CANCELLED"


async def test_term_during_the_run_is_told_as_failure_without_exit_status(rig: Rig):
    await rig.run(transfer())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.run(calculation(), Plan(run_seconds=900)))
        await wait_for(lambda: rig.seqera.status_of(RUN) == "RUNNING")
        rig.stop.set()

    row = rig.row()
    assert task.result() == 1
    assert rig.trace_calls[-2:] == ["complete", "complete"]
    assert rig.trace_calls.count("complete") == 2
    assert (row["status"], row["errorMessage"], row["errorReport"], row["exitStatus"]) == (
        "FAILED", "SIGTERM", "SIGTERM", None,
    )  # fmt: skip


async def test_term_before_the_session_ends_with_143(rig: Rig):
    rig.stop.set()

    assert await rig.run(calculation()) == 143
    assert rig.trace_calls == []


@pytest.mark.parametrize(
    ("image", "code"),
    [
        pytest.param("nextflow:24.10.4", 1, id="24.10 aborts"),
        pytest.param("nextflow:25.10.4", 0, id="25.10 runs on without a row"),
        pytest.param("nextflow:26.04.6", 1, id="26.04 aborts"),
    ],
)
async def test_wrong_token_is_taken_as_each_nextflow_takes_it(rig: Rig, image: str, code: int):
    await rig.run(transfer())

    assert await rig.run(calculation(image=image, env={"TOWER_ACCESS_TOKEN": "bad"})) == code

    assert rig.seqera.runs.all() == []


async def test_configuration_wins_over_the_environment(rig: Rig):
    await rig.run(transfer())
    config = (
        f"{CONFIG}\ntower {{\n accessToken = 'sandbox-seqera-token'\n workspaceId = 7\n"
        f" endpoint = '{rig.seqera.url}'\n}}\n"
    )
    env = {
        "TOWER_ACCESS_TOKEN": "bad",
        "TOWER_WORKSPACE_ID": "8",
        "TOWER_API_ENDPOINT": "http://127.0.0.1:9",
    }

    assert await rig.run(calculation(config=config, env=env)) == 0

    assert rig.row()["status"] == "SUCCEEDED"


async def test_refused_calls_are_tried_again(rig: Rig):
    await rig.run(transfer())
    rig.seqera.faults.add("PUT", "/begin", "status", status=503, count=2)
    rig.storage.faults.add("POST", "/upload/", "reset", count=1)

    assert await rig.run(calculation()) == 0

    assert rig.row()["status"] == "SUCCEEDED"


async def test_last_call_that_is_lost_leaves_the_row_running(rig: Rig):
    await rig.run(transfer())
    rig.seqera.faults.add("PUT", "/complete", "status", status=400)

    assert await rig.run(calculation()) == 0

    assert rig.row()["status"] == "RUNNING"


async def test_refused_call_is_tried_five_times(rig: Rig):
    await rig.run(transfer())
    rig.seqera.faults.add("POST", "/trace/create", "status", status=503)

    assert await rig.run(calculation()) == 0

    assert rig.trace_calls.count("create") == 5


async def test_run_without_an_id_goes_on_as_null(rig: Rig):
    await rig.run(transfer())
    rig.seqera.faults.add("POST", "/trace/create", "status", status=400)

    assert await rig.run(calculation()) == 0

    paths = [item.path.partition("?")[0] for item in rig.seqera.requests]
    asked = [path for path in paths if path.startswith("/trace")]
    assert asked == ["/trace/create", "/trace/null/begin", "/trace/null/complete"]
    assert rig.seqera.runs.all() == []


async def test_end_is_told_after_a_refused_beginning_without_progress(rig: Rig):
    await rig.run(transfer())
    rig.seqera.faults.add("PUT", "/begin", "status", status=400)

    assert await rig.run(calculation()) == 0

    assert rig.trace_calls == ["create", "begin", "complete"]
    assert rig.seqera.runs.all() == []


async def test_driver_stays_while_nobody_answers_its_last_call(rig: Rig):
    await rig.run(transfer())
    silence = rig.seqera.faults.add("PUT", "/complete", "hang")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.run(calculation(), Plan(run_seconds=900)))
        await wait_for(lambda: rig.seqera.status_of(RUN) == "RUNNING")
        rig.stop.set()
        await wait_for(lambda: silence.hits == 2)
        assert not task.done()
        task.cancel()

    assert task.cancelled()


def test_beginning_holds_parameters_and_configuration_in_clear():
    told = described(calculation(), read_launch(calculation()))

    assert told["params"]["outdir"] == f"gs://{RESULTS}/results"
    assert f"gs://{WORK}/work" in told["configText"]
    assert RUN in told["commandLine"]


async def test_other_containers_are_shell_programs(rig: Rig):
    container = ContainerSpec(name="c", image="busybox", command=["sh", "-c", "echo hi; exit 4"])

    assert await rig.run(container) == 4
    assert rig.lines == ["hi"]


# --- plans


def test_plans_are_chosen_by_job_name():
    plans = by_job({"intp00000000513": PLANS["slow"]})

    assert plans(POD) is PLANS["slow"]
    assert plans({"metadata": {}}) is PLANS["success"]


def test_plan_can_name_a_fault_of_the_pod_and_an_annotation_wins():
    select = faults_of(everyone(PLANS["image_cannot_be_pulled"]))
    annotated = {"metadata": {"annotations": {"sandbox.local/fault": "node-lost"}}}

    assert select(POD) is Fault.IMAGE_PULL_INIT
    assert select(annotated) is Fault.NODE_LOST


def test_every_plan_has_a_known_outcome():
    assert {plan.outcome for plan in PLANS.values()} == set(Outcome)


# --- a whole pod


async def test_driver_pod_runs_from_its_secrets(rig: Rig):
    async with (
        bench(kubelet=False) as world,
        Kubelet(world.store, world.logs, rig.runtime(), speed=world.speed),
    ):
        init, main = transfer(), calculation()
        world.store.create(SECRETS, NAMESPACE, secret("driver", init, main, "/opt/nxf/"))
        world.store.create(SECRETS, NAMESPACE, secret("keys", init, init, "/opt/globflow/"))
        world.create(driver_job(init, main))
        await world.until(lambda: world.is_in("running", "calculation"))
        world.store.delete(SECRETS, NAMESPACE, "keys")

        finished = await world.finished()

        assert finished["status"]["succeeded"] == 1
        assert rig.row()["status"] == "SUCCEEDED"
        assert "results are in" in world.logs.text(world.pod()["metadata"]["uid"], "calculation")


async def test_driver_pod_without_transfer_secret_fails_clearly(rig: Rig):
    async with (
        bench(kubelet=False) as world,
        Kubelet(world.store, world.logs, rig.runtime(), speed=world.speed),
    ):
        init, main = transfer(), calculation()
        world.store.create(SECRETS, NAMESPACE, secret("driver", init, main, "/opt/nxf/"))
        world.create(driver_job(init, main))

        await world.finished()

        (pod,) = world.store.list(PODS)
        assert state(pod, "transfer") == "terminated:78:Error"
        end = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]
        assert "credential file /opt/globflow/application.properties is missing" in end["message"]


def secret(name: str, init: ContainerSpec, main: ContainerSpec, prefix: str) -> dict[str, Any]:
    data = {
        f"{container.name}.{path.removeprefix(prefix)}": base64.b64encode(content).decode()
        for container in (init, main)
        for path, content in container.files.items()
        if path.startswith(prefix)
    }
    return {"metadata": {"name": name}, "data": data}


def driver_job(init: ContainerSpec, main: ContainerSpec) -> dict[str, Any]:
    def volume(container: ContainerSpec, name: str, prefix: str) -> dict[str, Any]:
        paths = [path.removeprefix(prefix) for path in container.files if path.startswith(prefix)]
        items = [{"key": f"{container.name}.{path}", "path": path} for path in paths]
        source = {"secretName": name, "items": items, "optional": name == "keys"}
        return {"name": f"{container.name}-{name}", "secret": source}

    def spec(container: ContainerSpec, *volumes: str) -> dict[str, Any]:
        return {
            "name": container.name,
            "image": container.image,
            "command": container.command,
            "args": container.args,
            "env": [{"name": key, "value": value} for key, value in container.env.items()],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {
                    "name": f"{container.name}-{name}",
                    "mountPath": "/opt/nxf" if name == "driver" else "/opt/globflow",
                }
                for name in volumes
            ],
        }

    volumes = [
        volume(init, "driver", "/opt/nxf/"),
        volume(main, "driver", "/opt/nxf/"),
        volume(init, "keys", "/opt/globflow/"),
    ]
    pod = {
        "restartPolicy": "Never",
        "initContainers": [spec(init, "driver", "keys")],
        "containers": [spec(main, "driver")],
        "volumes": volumes,
    }
    job = {"backoffLimit": 0, "template": {"spec": pod}}
    return {"metadata": {"name": "intp1"}, "spec": job}


async def wait_for(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)
