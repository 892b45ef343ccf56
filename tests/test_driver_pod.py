"""The driver pod: one guarded attempt, restricted, to each container its own files and secrets."""

import stat
import subprocess

import pytest
from patience import PATIENCE
from rendering_samples import (
    ACCEPTED,
    OWNER_UID,
    WHOSE,
    files_of,
    names,
    request,
    settings,
)

from pyvatti.jobs import names_for
from pyvatti.manifests import Renderer
from pyvatti.manifests.rendering import DRIVER_FILES, RUN_NAME, TRANSFER_FILES


def pod_of(job):
    return job["spec"]["template"]["spec"]


def containers(job):
    return {
        container["name"]: container
        for container in pod_of(job)["initContainers"] + pod_of(job)["containers"]
    }


def environment(container):
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_fault_45_the_token_is_an_environment_variable_of_the_calculation_alone():
    job = Renderer(settings()).job(request(), WHOSE)
    mounted = [
        item["key"]
        for volume in pod_of(job)["volumes"]
        for item in volume.get("secret", {}).get("items", ())
    ]
    whole = [
        volume["secret"]["secretName"]
        for volume in pod_of(job)["volumes"]
        if "secret" in volume and "items" not in volume["secret"]
    ]

    assert "TOWER_ACCESS_TOKEN" not in environment(containers(job)["transfer"])
    told = {item["name"]: item.get("valueFrom") for item in containers(job)["calculation"]["env"]}
    assert told["TOWER_ACCESS_TOKEN"] == {
        "secretKeyRef": {"name": "intp00000000513", "key": "tower-token"}
    }
    assert "tower-token" not in mounted
    assert set(mounted) == set(DRIVER_FILES)
    assert whole == ["intp00000000513-transfer"]


def test_credentials_of_the_transfer_are_mounted_by_the_transfer_alone():
    job = Renderer(settings()).job(request(), WHOSE)
    volume = next(v for v in pod_of(job)["volumes"] if v["name"] == "transfer-credentials")
    mounts = {
        name: [mount["name"] for mount in container["volumeMounts"]]
        for name, container in containers(job).items()
    }

    assert volume["secret"]["optional"] is True
    assert volume["secret"]["defaultMode"] == 0o440
    assert "transfer-credentials" in mounts["transfer"]
    assert not [name for name in mounts["calculation"] if name.startswith("transfer")]
    made = Renderer(settings()).transfer_secret(names(), WHOSE)
    assert set(made["data"]) == set(TRANSFER_FILES)


@pytest.mark.parametrize("namespace", ["intervene-dev", "intervene-test", "intervene-prod", "a"])
def test_fault_47_the_run_name_is_valid_and_of_this_very_job(namespace):
    uids = (OWNER_UID, "9" + OWNER_UID[1:])
    made = [names_for("INTP00000000513", namespace, uid).run_name for uid in uids]

    assert made == [f"{namespace}-intp00000000513-{part}" for part in ("0b1c8a52", "9b1c8a52")]
    assert all(RUN_NAME.fullmatch(name) for name in made)


def test_the_driver_learns_its_run_name_from_its_secret_for_the_job_is_made_before_its_uid():
    calculation = containers(Renderer(settings()).job(request(), WHOSE))["calculation"]
    secret = files_of(Renderer(settings()).driver_secret(request(), names(), WHOSE))

    assert calculation["args"][calculation["args"].index("-name") + 1] == "$(RUN_NAME)"
    (told,) = [item for item in calculation["env"] if item["name"] == "RUN_NAME"]
    assert told["valueFrom"] == {"secretKeyRef": {"name": "intp00000000513", "key": "run-name"}}
    assert secret["run-name"] == names().run_name


@pytest.mark.parametrize(
    ("image", "globflow", "pgsc_calc", "transfer", "calculation"),
    [
        ("nextflow/nextflow:25.10.4", "2.0.0", "v2.2.0", None, None),
        ("nextflow/nextflow:24.10.0", "2.0.0", "v2.0.0", None, None),
        ("nextflow/nextflow:26.04", "2.0.0", "v2.2.0", "v1", "v1"),
        ("nextflow/nextflow:26.04.0", "2.0.0", "v2.2.0", "v1", "v1"),
        ("nextflow/nextflow:26.04.6", "1.0.0", "v2.0.0-alpha.5", "v1", "v1"),
        ("nextflow/nextflow:26.10.3", "2.0.0", "v2.0.1", "v1", "v1"),
        ("nextflow/nextflow:26.10.3", "2.1.0", "v2.1.0", None, "v1"),
        ("nextflow/nextflow:26.10.3", "2.0.0", "3.0.0-alpha.1", "v1", None),
        ("nextflow/nextflow:latest", "main", "main", "v1", "v1"),
        ("registry.example.org:5000/nextflow", "2.0.0", "v2.2.0", "v1", "v1"),
        ("nextflow/nextflow@sha256:00", "2.0.0", "v2.2.0", "v1", "v1"),
    ],
)
def test_fault_48_the_old_parser_is_asked_for_where_a_pipeline_needs_it(
    image, globflow, pgsc_calc, transfer, calculation
):
    changed = settings(
        nextflow_image=image, globflow_revision=globflow, pgsc_calc_revision=pgsc_calc
    )

    made = containers(Renderer(changed).job(request(), WHOSE))

    assert environment(made["transfer"]).get("NXF_SYNTAX_PARSER") == transfer
    assert environment(made["calculation"]).get("NXF_SYNTAX_PARSER") == calculation


def test_fault_49_the_job_is_one_guarded_attempt():
    job = Renderer(
        settings(timeout_seconds=3600, deployed_timeout_seconds=172800, driver_grace_seconds=420)
    ).job(request(), WHOSE)
    spec, pod = job["spec"], pod_of(job)

    assert spec["suspend"] is True
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["completions"] == spec["parallelism"] == 1
    assert "podFailurePolicy" not in spec
    assert "managedBy" not in spec
    assert spec["activeDeadlineSeconds"] > 3600 + 172800
    assert spec["ttlSecondsAfterFinished"] >= 3600
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 420
    assert spec["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"
    }


def test_the_pod_is_restricted():
    job = Renderer(settings()).job(request(), WHOSE)
    pod = pod_of(job)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}} == {
        "secret",
        "emptyDir",
    }
    for container in containers(job).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/tmp", "/home/nextflow"}  # noqa: S108 - inside the container
        assert container["workingDir"] in writable
        assert environment(container)["NXF_HOME"].startswith("/home/nextflow/")


def test_resources_and_service_account_are_those_of_the_settings():
    job = Renderer(
        settings(
            driver_cpu="500m",
            driver_memory="3Gi",
            driver_storage="20Gi",
            driver_service_account="runner",
            driver_service_account_token=True,
        )
    ).job(request(), WHOSE)
    amounts = {"cpu": "500m", "memory": "3Gi", "ephemeral-storage": "20Gi"}

    assert pod_of(job)["serviceAccountName"] == "runner"
    assert pod_of(job)["automountServiceAccountToken"] is True
    for container in containers(job).values():
        assert container["resources"] == {"requests": amounts, "limits": amounts}


def test_no_container_shares_what_it_writes_with_the_other():
    mounts = [
        {mount["name"] for mount in container["volumeMounts"]}
        for container in containers(Renderer(settings()).job(request(), WHOSE)).values()
    ]

    assert mounts[0].isdisjoint(mounts[1])


@pytest.mark.parametrize(
    ("present", "code", "said"),
    [
        pytest.param(TRANSFER_FILES, 0, "", id="all credentials"),
        pytest.param((), 78, "application.properties is missing", id="no credentials"),
        pytest.param(TRANSFER_FILES[:1], 78, f"{TRANSFER_FILES[1]} is missing", id="one missing"),
    ],
)
def test_the_transfer_starts_only_with_its_credentials(tmp_path, present, code, said):
    container = containers(Renderer(settings()).job(request(), WHOSE))["transfer"]
    nextflow = tmp_path / "nextflow"
    nextflow.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    nextflow.chmod(nextflow.stat().st_mode | stat.S_IEXEC)
    for name in present:
        (tmp_path / name).write_text("x")
    shell, flag, script, *rest = container["command"]
    script = script.replace("/opt/globflow", str(tmp_path))

    ended = subprocess.run(
        ["env", f"PATH={tmp_path}:/usr/bin:/bin", shell, flag, script, *rest, *container["args"]],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )

    assert ended.returncode == code
    assert said in ended.stderr
    assert ended.stdout.splitlines() == ([] if code else container["args"])


def test_scripts_hold_nothing_of_the_request_and_hand_over_their_process():
    scripts = set()
    for name in ACCEPTED:
        job = Renderer(settings()).job(request(name), WHOSE)
        for container in containers(job).values():
            scripts.add(container["command"][2])
            assert container["command"][2].splitlines()[-1] == 'exec nextflow "$@"'

    assert len(scripts) == 2
