"""The rendered objects: whole, valid on every supported cluster, safe, and true to the contract."""

import json
import re
from pathlib import Path

import javaproperties
import kubernetes_validate
import pytest
from rendering_samples import (
    ACCEPTED,
    OWNER_UID,
    PAYLOADS,
    SECRETS,
    WHOSE,
    every_manifest,
    files_of,
    golden,
    names,
    readable,
    request,
    settings,
)

from pyvatti import labels
from pyvatti.manifests import Renderer, redact
from pyvatti.manifests.rendering import DRIVER_FILES

CLUSTERS = ("1.27", "1.30", "1.37")

# Processes of pgsc_calc that its own source names, by release
SINCE_2_0 = {
    "DOWNLOAD_SCOREFILES",
    "MATCH_VARIANTS",
    "MATCH_COMBINE",
    "PLINK2_RELABELBIM",
    "PLINK2_RELABELPVAR",
    "PLINK2_SCORE",
    "PLINK2_VCF",
    "SCORE_AGGREGATE",
    "SCORE_REPORT",
}
PROCESSES = {
    "v2.0.0-alpha.5": SINCE_2_0 | {"COMBINE_SCOREFILES"},
    "v2.0.0": SINCE_2_0 | {"COMBINE_SCOREFILES"},
    "v2.0.1": SINCE_2_0 | {"COMBINE_SCOREFILES"},
    "v2.1.0": SINCE_2_0 | {"FORMAT_SCOREFILES"},
    "v2.2.0": SINCE_2_0 | {"FORMAT_SCOREFILES"},
    "main": SINCE_2_0 | {"FORMAT_SCOREFILES"},
}


def driver_files(**changes):
    return files_of(Renderer(settings(**changes)).driver_secret(request(), names(), WHOSE))


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_object_is_exactly_its_golden_one(name):
    assert readable(every_manifest(Renderer(settings()), request(name))) == golden(name)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_every_object_is_valid_on_every_cluster(name, cluster):
    made = every_manifest(Renderer(settings(kubernetes_version=cluster)), request(name))

    for manifest in made.values():
        kubernetes_validate.validate(manifest, cluster, strict=True)


@pytest.mark.parametrize(
    ("version", "written"), [("1.27", False), ("1.28", True), ("v1.36.2-gke.1", True)]
)
def test_pod_replacement_is_written_where_the_cluster_knows_it(version, written):
    job = Renderer(settings(kubernetes_version=version)).job(request(), WHOSE)

    assert ("podReplacementPolicy" in job["spec"]) is written


@pytest.mark.parametrize(
    ("payload", "of", "changed"),
    [
        pytest.param("transfer-input", "transfer-input.json", {}, id="input of globflow"),
        pytest.param("transfer-key", "transfer-key.json", {}, id="key of globflow"),
        pytest.param("transfer-params", "transfer-params.json", {}, id="parameters of globflow"),
        pytest.param("pgsc-samplesheet", "calculation-input.json", {}, id="samplesheet"),
        pytest.param(
            "pgsc-params",
            "calculation-params.json",
            {"max_cpus": 16, "max_memory": "64.GB", "max_time": "24.h"},
            id="parameters of pgsc_calc, with its caps",
        ),
    ],
)
def test_files_for_the_pipelines_are_those_of_the_contract(payload, of, changed):
    text = (PAYLOADS / f"{payload}.json").read_text()
    # In the recorded runs the work bucket was named after the id alone.
    expected = json.loads(text.replace("intp00000000513-work", "intp00000000513-work-0b1c8a52"))

    expected = {**expected, **changed} if changed else expected
    assert json.loads(driver_files()[of]) == expected


@pytest.mark.parametrize(
    ("file", "payload", "changes"),
    [
        (
            "application.properties",
            "transfer-application",
            {
                "globus_domain": "https://g-xxxxxx.data.globus.org",
                "globus_client_id": "CLIENT-ID",
                "globus_client_secret": "CLIENT-SECRET",
                "globus_scopes": "SCOPES",
            },
        ),
        (
            "application-crypt4gh-secret-manager.properties",
            "transfer-crypt4gh-secret-manager",
            {
                "key_handler_token": "BASE64-TOKEN",
                "key_handler_password": "PASSWORD",
                "key_handler_url": "https://example.com/key-handler/",
            },
        ),
    ],
)
def test_property_files_are_those_of_the_contract(file, payload, changes):
    made = files_of(Renderer(settings(**changes)).transfer_secret(names(), WHOSE))

    assert made[file].splitlines() == (PAYLOADS / f"{payload}.properties").read_text().splitlines()


def test_only_the_job_carries_a_state_and_the_request_is_known_by_its_hash():
    job = Renderer(settings()).job(request(), WHOSE)
    metadata = job["metadata"]

    assert metadata["labels"][labels.STATE] == "Requested"
    assert labels.STATE not in job["spec"]["template"]["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"][labels.JOB_ID] == "intp00000000513"
    assert metadata["finalizers"] == [labels.FINALIZER]
    assert labels.KUEUE_QUEUE not in metadata["labels"]
    assert metadata["annotations"] == {
        labels.REQUEST_HASH: request().fingerprint(),
    }


@pytest.mark.parametrize("kind", ["driver_secret", "transfer_secret"])
def test_secrets_belong_to_the_job_without_blocking_its_deletion(kind):
    secret = every_manifest(Renderer(settings()), request())[kind]

    assert secret["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": "intp00000000513",
            "uid": OWNER_UID,
            "controller": True,
        }
    ]
    assert labels.owner_uid({"metadata": {"labels": secret["metadata"]["labels"]}}) == OWNER_UID
    assert "stringData" not in secret


def test_the_record_outlives_the_job():
    record = every_manifest(Renderer(settings()), request())["record"]

    assert "ownerReferences" not in record["metadata"]
    assert record["metadata"]["labels"][labels.STATE] == "Failed"
    assert labels.owner_uid(record) == OWNER_UID


def test_fault_45_each_secret_value_is_in_its_one_place():
    made = readable(every_manifest(Renderer(settings()), request()))

    places = {
        secret: [
            f"{name}/{key}"
            for name, manifest in made.items()
            for key, content in {**manifest, **manifest.get("data", {})}.items()
            if key != "data" and value in json.dumps(content)
        ]
        for secret, value in SECRETS.items()
    }

    assert places == {
        "tower_token": ["driver_secret/tower-token"],
        "globus_client_secret": ["transfer_secret/application.properties"],
        "key_handler_token": ["transfer_secret/application-crypt4gh-secret-manager.properties"],
        "key_handler_password": ["transfer_secret/application-crypt4gh-secret-manager.properties"],
        "notify_token": [],
    }


def test_fault_45_redacted_manifests_hold_no_value_of_a_secret():
    made = every_manifest(Renderer(settings()), request())

    shown = {name: redact(manifest) for name, manifest in made.items()}

    assert set(shown["driver_secret"]["data"].values()) == {"(redacted)"}
    assert set(shown["transfer_secret"]["data"].values()) == {"(redacted)"}
    assert shown["job"] == made["job"]
    assert "(redacted)" not in made["driver_secret"]["data"].values()


def test_fault_46_generated_configuration_is_plain():
    for revision in PROCESSES:
        files = driver_files(pgsc_calc_revision=revision, batch_service_account="a@example.org")
        for name in ("transfer.config", "calculation.config", "scm"):
            code = re.sub(r"^\s*//.*$", "", files[name], flags=re.MULTILINE)
            assert '"' not in code
            assert not re.search(r"\b(def|if|try|import|check_max|includeConfig)\b", code)
        assert "resourceLimits = [" in files["transfer.config"]
        assert "resourceLimits = [" in files["calculation.config"]


def test_fault_46_parameters_are_json_and_placeholders_survive():
    files = driver_files()
    for name in DRIVER_FILES:
        if name.endswith(".json"):
            json.loads(files[name])
    made = files_of(Renderer(settings()).transfer_secret(names(), WHOSE))
    application = javaproperties.loads(made["application.properties"])
    crypt4gh = javaproperties.loads(made["application-crypt4gh-secret-manager.properties"])

    assert application["webclient.connection.pipe-size"] == "${data.copy.buffer-size}"
    assert crypt4gh["intervene.key-handler.keys.uri"] == "/key/{secretId}/version/{secretIdVersion}"
    assert crypt4gh["intervene.key-handler.basic-auth"] == f"Basic {SECRETS['key_handler_token']}"
    assert json.loads(files["transfer-key.json"])["secretId"] == (
        "81D5C400-21B4-4E88-8208-8D64C9920283"
    )


@pytest.mark.parametrize("revision", PROCESSES)
def test_fault_48_every_process_named_exists_in_the_revision(revision):
    config = driver_files(pgsc_calc_revision=revision)["calculation.config"]

    named = set(re.findall(r"withName: '([^']+)'", config))

    assert named
    assert named <= PROCESSES[revision]


def test_all_golden_files_belong_to_a_payload():
    folder = Path(__file__).parent / "data" / "golden"

    assert sorted(path.stem for path in folder.iterdir()) == ACCEPTED
