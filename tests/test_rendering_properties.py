"""Any accepted request, and any text forced past the checks, comes back unchanged from each file.

Each is read by its real parser: PyYAML, json, javaproperties. Groovy has its own file.
"""

import json

import javaproperties
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rendering_samples import (
    WHOSE,
    files_of,
    names,
    settings,
)
from rendering_strategies import KEYS, NASTY, QUICK, TEXT, accepted_bodies, forced_requests

from pyvatti import labels
from pyvatti.launch import parse_launch
from pyvatti.manifests import Renderer
from pyvatti.manifests.serialisers import to_json, to_properties, to_yaml
from pyvatti.models import Installation, Names

RENDERER = Renderer(settings())


def expected_files(launch, made):
    """What the JSON files of the driver must say of a launch."""
    scores = launch.pipeline_param.nxf_params_file
    ids = {
        name: value
        for name in ("pgs_id", "pgp_id", "trait_efo")
        if (value := getattr(scores, name)) is not None
    }
    data = f"gs://{made.work_bucket}/data"
    return {
        "transfer-params.json": {
            "input": "/opt/nxf/input.json",
            "outdir": data,
            "secret_key": "/opt/nxf/key.json",
            "config_application": "/opt/globflow/application.properties",
            "config_crypt4gh": "/opt/globflow/application-crypt4gh-secret-manager.properties",
        },
        "transfer-input.json": {
            "dir_path_on_guest_collection": launch.globus_details.dir_path_on_guest_collection,
            "files": [
                {"filename": file.filename, "size": file.size}
                for file in launch.globus_details.files
            ],
        },
        "transfer-key.json": {
            "secretId": launch.secret_key_details.secret_id,
            "secretIdVersion": launch.secret_key_details.secret_id_version,
        },
        "calculation-params.json": {
            "input": "/opt/nxf/input.json",
            "outdir": f"gs://{made.results_bucket}/results",
            "format": scores.format,
            "target_build": scores.target_build,
            "min_overlap": 0.75,
            "max_cpus": 16,
            "max_memory": "64.GB",
            "max_time": "24.h",
            **ids,
        },
        "calculation-input.json": [
            {
                "sampleset": genome.sampleset,
                "chrom": genome.chrom,
                "vcf_import_dosage": genome.vcf_import_dosage,
                "format": genome.format,
                "geno": f"{data}/{genome.geno}",
                "variants": f"{data}/{genome.variants}",
                "pheno": f"{data}/{genome.pheno}",
            }
            for genome in launch.pipeline_param.target_genomes
        ],
        "request.json": launch.canonical(),
    }


def assert_all_is_rendered(launch, made):
    job = RENDERER.job(launch, WHOSE)
    secret = RENDERER.driver_secret(launch, made, WHOSE)
    files = files_of(secret)

    for name, expected in expected_files(launch, made).items():
        assert json.loads(files[name]) == expected
        assert "$" not in files[name]
    assert job["metadata"]["name"] == secret["metadata"]["name"] == made.base
    assert job["metadata"]["labels"][labels.JOB_ID] == made.base
    assert files["run-name"] == made.run_name
    assert secret["metadata"]["ownerReferences"][0]["name"] == made.base


@QUICK
@given(accepted_bodies())
def test_any_accepted_request_comes_back_unchanged(body):
    launch = parse_launch(json.dumps(body))

    assert_all_is_rendered(launch, names(launch))


@QUICK
@given(forced_requests())
def test_fault_08_any_text_forced_past_the_checks_comes_back_unchanged(launch):
    assert_all_is_rendered(launch, names(launch))


@QUICK
@given(TEXT, TEXT)
def test_fault_08_any_name_and_data_come_back_from_yaml(uid, content):
    hostile = Names(
        job_id=uid,
        base=content,
        uid=uid,
        run_name=uid,
        work_bucket=uid,
        results_bucket=uid,
    )
    whose = Installation(namespace="intervene-dev", namespace_uid=content, instance=uid)

    record = RENDERER.record(hostile, whose, state="Failed", data={"record.json": content})
    transfer = RENDERER.transfer_secret(hostile, whose)

    assert record["metadata"]["name"] == hostile.record
    assert record["data"] == {"record.json": content}
    assert labels.owner_uid(record) == uid
    assert transfer["metadata"]["name"] == hostile.transfer_secret


@QUICK
@given(st.dictionaries(KEYS, TEXT | st.lists(TEXT) | st.booleans() | st.none(), max_size=3))
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader], ids=["python", "libyaml"])
def test_yaml_is_read_back_by_both_parsers_and_as_one_line(loader, value):
    text = to_yaml(value)

    assert yaml.load(f"a: [{text}]", Loader=loader) == {"a": [value]}  # noqa: S506 - both are safe
    assert "\n" not in text
    assert text.isascii()


@QUICK
@given(st.dictionaries(TEXT, TEXT | st.floats(allow_nan=False) | st.none(), max_size=3))
def test_json_is_read_back_and_holds_no_dollar(value):
    assert json.loads(to_json(value)) == value
    assert "$" not in to_json(value)


@QUICK
@given(st.text() | NASTY)
def test_properties_are_read_back_or_refused(value):
    if "${" in value or "#{" in value:
        with pytest.raises(ValueError, match="Spring"):
            to_properties(value)
    else:
        text = f"key={to_properties(value)}\nnext=1\n"
        assert javaproperties.loads(text) == {"key": value, "next": "1"}
        assert text.isascii()


def is_credential(text: str) -> bool:
    """Tell what the settings hand on unchanged: they drop blanks around a secret."""
    return text == text.strip() != "" and "${" not in text and "#{" not in text


@QUICK
@given(
    st.fixed_dictionaries(
        {
            name: st.text(min_size=1).filter(is_credential)
            for name in (
                "globus_client_id",
                "globus_client_secret",
                "globus_scopes",
                "key_handler_token",
                "key_handler_password",
            )
        }
    )
)
def test_any_credential_comes_back_from_the_property_files(values):
    made = files_of(Renderer(settings(**values)).transfer_secret(names(), WHOSE))
    application = javaproperties.loads(made["application.properties"])
    crypt4gh = javaproperties.loads(made["application-crypt4gh-secret-manager.properties"])

    assert application["globus.aai.client-id"] == values["globus_client_id"]
    assert application["globus.aai.client-secret"] == values["globus_client_secret"]
    assert application["globus.aai.scopes"] == values["globus_scopes"]
    assert crypt4gh["intervene.key-handler.basic-auth"] == f"Basic {values['key_handler_token']}"
    assert crypt4gh["intervene.key-handler.secret-key.password"] == values["key_handler_password"]
