"""What follows from the versions of Nextflow and pgsc_calc: retries, plugins, kept genotypes."""

import json

import pytest
from rendering_samples import WHOSE, files_of, names, request, settings

from pyvatti.errors import ConfigurationError
from pyvatti.manifests import Renderer, doubts
from pyvatti.manifests.nextflow import spot_attempts

IMAGE = "registry.example.org/nextflow-driver"
SHEET = "google-batch/calculation-input.json.j2"
PARAMETERS = "google-batch/calculation-params.json.j2"


def environments(**changes):
    """Give the environment of each container of a driver pod."""
    pod = Renderer(settings(**changes)).job(request(), WHOSE)["spec"]["template"]["spec"]
    return {
        container["name"]: {item["name"]: item.get("value") for item in container["env"]}
        for container in pod["initContainers"] + pod["containers"]
    }


@pytest.mark.parametrize(
    ("tag", "given", "attempts", "doubtful"),
    [
        pytest.param("25.10.4", None, 0, "", id="before 26.04 none"),
        pytest.param("24.10.0", None, 0, "", id="long before"),
        pytest.param("26.04.0", None, 3, "", id="from 26.04 on three"),
        pytest.param("26.10", None, 3, "", id="later"),
        pytest.param("25.10.4", 2, 2, "MAX_SPOT_ATTEMPTS", id="the setting wins, loudly"),
        pytest.param("26.04.1", 2, 2, "", id="the setting wins"),
        pytest.param("26.04.1", 0, 0, "", id="none is asked for"),
        pytest.param("latest", None, 0, "NEXTFLOW_IMAGE", id="nobody knows"),
    ],
)
def test_retries_of_batch_follow_from_the_tag_of_the_image(tag, given, attempts, doubtful):
    asked = settings(nextflow_image=f"{IMAGE}:{tag}", max_spot_attempts=given)

    said = list(doubts(asked))

    assert spot_attempts(asked) == attempts
    assert [text.partition(":")[0] for text in said] == ([doubtful] if doubtful else [])


def test_a_version_that_is_named_needs_no_tag():
    asked = settings(nextflow_image=f"{IMAGE}@sha256:00", nextflow_version="26.04.0")

    assert (spot_attempts(asked), list(doubts(asked))) == (3, [])


@pytest.mark.parametrize(
    ("changes", "transfer", "calculation"),
    [
        ({}, "nf-google@1.23.5", "nf-google@1.23.5,nf-tower@1.17.5"),
        ({"wave": True}, "nf-google@1.23.5", "nf-google@1.23.5,nf-tower@1.17.5,nf-wave@1.16.1"),
        ({"nextflow_image": f"{IMAGE}:26.04.0"}, None, None),
        ({"nextflow_image": f"{IMAGE}:latest"}, None, None),
    ],
)
def test_plugins_are_those_of_exactly_this_nextflow(changes, transfer, calculation):
    made = environments(**changes)

    assert made["transfer"].get("NXF_PLUGINS_DEFAULT") == transfer
    assert made["calculation"].get("NXF_PLUGINS_DEFAULT") == calculation


def test_nobody_outside_is_asked_for_prices():
    assert {made["NXF_CLOUDINFO_ENABLED"] for made in environments().values()} == {"false"}


def overlaid(folder, revision, **files):
    """Render parameters with an operator's own files; the packaged samplesheet refuses 3.x."""
    (folder / "google-batch").mkdir()
    for name, text in {SHEET: "[]", **files}.items():
        (folder / name).write_text(text)
    asked = settings(templates_dir=folder, pgsc_calc_revision=revision)
    secret = Renderer(asked).driver_secret(request(), names(), WHOSE)
    return json.loads(files_of(secret)["calculation-params.json"])


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        ("v2.0.0-alpha.5", None),
        ("v2.2.0", None),
        ("v3.0.0-alpha.1", False),
        ("3.1", False),
        ("main", False),
        ("4f2c1a9", False),
    ],
)
def test_pgsc_calc_3_keeps_the_genotypes_to_itself(tmp_path, revision, told):
    assert overlaid(tmp_path, revision).get("publish_cache") is told


@pytest.mark.parametrize("text", ["{}", '{"publish_cache": true}', '{"publish_cache": "false"}'])
@pytest.mark.parametrize("revision", ["3.0.0-alpha.1", "main"])
def test_parameters_of_an_operator_that_would_publish_genotypes_are_refused(
    tmp_path, text, revision
):
    with pytest.raises(ConfigurationError, match="publish_cache"):
        overlaid(tmp_path, revision, **{PARAMETERS: text})
