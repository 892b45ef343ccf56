"""Any text comes back unchanged from the Nextflow configurations when a real Groovy reads them."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rendering_samples import (
    OWNER_UID,
    WHOSE,
    files_of,
    names,
    request,
    settings,
)
from rendering_strategies import TEXT

from pyvatti.manifests import Renderer
from pyvatti.manifests.serialisers import to_groovy
from pyvatti.models import Names

GROOVY = shutil.which("groovy")


SCRIPT = Path(__file__).parent / "data" / "read_configs.groovy"


def collected(count, strategy):
    """Draw examples into one list: a Java virtual machine is started once for all of them."""
    found = []

    @examples(max_examples=count, deadline=None, phases=[Phase.generate], database=None)
    @given(strategy)
    def collect(value):
        found.append(value)

    collect()
    return found


def read_groovy(folder, texts):
    java = shutil.which("java")
    assert java is not None
    paths = []
    for at, text in enumerate(texts):
        paths.append(folder / f"{at}.config")
        paths[-1].write_text(text, encoding="utf-8")
    home = Path(java).resolve().parents[1]  # Debian's default may point nowhere
    ended = subprocess.run(
        ["env", f"JAVA_HOME={home}", str(GROOVY), str(SCRIPT), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return json.loads(ended.stdout)


CODES = [*range(256), *range(50001, 50007)]
BY_BATCH = {50001, 50002, 50004}

needs_groovy = pytest.mark.skipif(GROOVY is None, reason="groovy is not installed")


@needs_groovy
def test_fault_08_any_text_comes_back_from_groovy(tmp_path):
    values = collected(400, TEXT)
    # A list of each 20, since Groovy compiles every file into methods of limited size
    chunks = [values[at : at + 20] for at in range(0, len(values), 20)]

    read = read_groovy(tmp_path, [f"value = {to_groovy(chunk)}\n" for chunk in chunks])

    assert [config["value"] for config in read] == chunks


def config_cases():
    hostile = st.fixed_dictionaries(
        {
            name: TEXT.filter(bool)
            for name in ("gcp_project", "gcp_location", "batch_service_account", "work", "base")
        }
    )
    return collected(20, hostile)


@needs_groovy
def test_fault_08_configurations_with_any_text_say_the_same_to_groovy(tmp_path):
    cases = config_cases()
    texts = []
    for case in cases:
        made = Names(
            **{**asdict(names()), "work_bucket": case["work"], "base": case["base"]},
        )
        fields = ("gcp_project", "gcp_location", "batch_service_account")
        renderer = Renderer(settings(**{name: case[name] for name in fields}))
        files = files_of(renderer.driver_secret(request(), made, WHOSE))
        texts += [files["transfer.config"], files["calculation.config"]]

    read = read_groovy(tmp_path, texts)

    for at, case in enumerate(cases):
        for config, folder in zip(
            read[2 * at : 2 * at + 2], ("work/transfer", "work"), strict=True
        ):
            assert config["workDir"] == f"gs://{case['work']}/{folder}"
            assert config["google"]["project"] == case["gcp_project"]
            assert config["google"]["location"] == case["gcp_location"]
            assert config["google"]["batch"]["serviceAccountEmail"] == case["batch_service_account"]
            assert config["process"]["resourceLabels"]["job-id"] == case["base"]


@needs_groovy
def test_fault_46_groovy_reads_the_configurations_as_meant(tmp_path):
    changed = settings(wave=True, fusion=True, spot=False, max_spot_attempts=5, max_cpus=8)
    files = files_of(Renderer(changed).driver_secret(request(), names(), WHOSE))

    transfer, calculation, scm = read_groovy(
        tmp_path, [files["transfer.config"], files["calculation.config"], files["scm"]]
    )

    limits = {"cpus": 8, "memory": "64.GB", "time": "24.h"}
    batch = {"spot": False, "maxSpotAttempts": 5, "autoRetryExitCodes": [50001, 50002, 50004]}
    google = {"project": "stand-in-project", "location": "europe-west2", "batch": batch}
    tags = {
        "managed-by": "pyvatti",
        "instance": "pyvatti",
        "namespace-uid": WHOSE.namespace_uid,
        "job-id": "intp00000000513",
        "job-uid": OWNER_UID,
    }
    work = f"gs://{names().work_bucket}/work"
    assert transfer == {
        "workDir": f"{work}/transfer",
        "process": {
            "executor": "google-batch",
            "errorStrategy": sorted(set(CODES) - {50005, *BY_BATCH}),
            "maxRetries": 1,
            "time": "24.h",
            "resourceLimits": limits,
            "resourceLabels": tags,
        },
        "google": google,
    }
    assert calculation == {
        "workDir": work,
        "process": {
            "executor": "google-batch",
            "errorStrategy": [104, *range(130, 146), 50003, 50006],
            "maxRetries": 2,
            "error_retry": {
                "errorStrategy": sorted(set(CODES) - {12, 14, 15, 50005, *BY_BATCH}),
                "maxRetries": 2,
            },
            "resourceLimits": limits,
            "resourceLabels": tags,
            "FORMAT_SCOREFILES": {"time": "closure"},
            "PLINK2_RELABELPVAR": {"memory": "closure"},
            "MATCH_VARIANTS": {"memory": "closure"},
            "MATCH_COMBINE": {"memory": "closure"},
        },
        "google": google,
        "tower": {"enabled": True},
        "wave": {"enabled": True},
        "fusion": {"enabled": True},
    }
    assert scm == {
        "providers": {"ebi": {"server": "https://gitlab.ebi.ac.uk", "platform": "gitlab"}}
    }


@needs_groovy
def test_a_preempted_task_is_begun_again_by_batch_or_by_nextflow_never_by_both(tmp_path):
    asked = [settings(), settings(max_spot_attempts=0), settings(max_spot_attempts=4)]
    made = [files_of(Renderer(one).driver_secret(request(), names(), WHOSE)) for one in asked]
    kinds = ("transfer.config", "calculation.config")

    read = read_groovy(tmp_path, [files[kind] for files in made for kind in kinds])

    for at, config in enumerate(read):
        batch, process = config["google"]["batch"], config["process"]
        by_batch = set(batch["autoRetryExitCodes"]) if batch["maxSpotAttempts"] else set()
        strategies = [process, *(process[name] for name in process.keys() & {"error_retry"})]
        assert batch["maxSpotAttempts"] == (0, 0, 4)[at // 2]
        assert len(strategies) == 1 + at % 2
        for strategy in strategies:
            ours = set(strategy["errorStrategy"])
            assert ours & by_batch == set()
            assert ours | by_batch >= BY_BATCH
            assert 50005 not in ours | by_batch
            assert strategy["maxRetries"] > 0  # Nextflow takes 0 for 1
