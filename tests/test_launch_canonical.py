"""Which launch requests are equal, and that any value anywhere ends in acceptance or our words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rendering_samples import ACCEPTED, GENOME, SCORES, body, parse, put, request

from pyvatti.errors import InvalidRequest
from pyvatti.launch import EXAMPLE, LaunchRequest, parse_launch


@pytest.mark.parametrize("name", ACCEPTED)
def test_fault_03_the_same_launch_in_another_order_is_equal(name):
    first = body(name)
    shuffled = reverse(first)
    scores = shuffled["pipeline_param"]["nxf_params_file"]
    for kind in ("pgs_id", "trait_efo", "pgp_id"):
        if kind in scores:
            scores[kind] = ",".join(reversed(scores[kind].split(",")))
    shuffled["globus_details"]["files"].sort(key=lambda file: file["size"])

    assert parse(shuffled).canonical() == parse(first).canonical()
    assert parse(shuffled).fingerprint() == parse(first).fingerprint()


def reverse(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reverse(item) for key, item in reversed(value.items())}
    return [reverse(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        pytest.param("same", f"{GENOME}.chrom", None, id="chrom null"),
        pytest.param("same", f"{GENOME}.vcf_import_dosage", "false", id="dosage as text"),
        pytest.param("same", "secret_key_details.secret_id_version", 1, id="version as number"),
        pytest.param("same", f"{SCORES}.pgs_id", "", id="blank kind is absent"),
        pytest.param(
            "same", f"{SCORES}.trait_efo", "EFO_1000068,EFO_1000068", id="identifier named twice"
        ),
        pytest.param(
            "same",
            "globus_details.dir_path_on_guest_collection",
            "user@example.org/Sample-Set-Wednesday-18-Sep-15-17-fc578e94/",
            id="final slash",
        ),
        pytest.param("other", f"{GENOME}.sampleset", "other", id="sampleset"),
        pytest.param("other", f"{GENOME}.vcf_import_dosage", "true", id="dosage"),
        pytest.param("other", f"{GENOME}.chrom", 22, id="chrom"),
        pytest.param("other", f"{SCORES}.trait_efo", "EFO_1000069", id="trait"),
        pytest.param("other", f"{SCORES}.target_build", "GRCh37", id="build"),
        pytest.param("other", "globus_details.files.0.size", 1, id="size"),
        pytest.param(
            "other",
            "secret_key_details.secret_id",
            "81d5c400-21b4-4e88-8208-8d64c9920283",
            id="case of the secret id",
        ),
    ],
)
def test_fault_03_what_makes_a_launch_another_one(change, path, value):
    first = body("launch-ok-trait-pfile")

    equal = parse(put(first, path, value)).fingerprint() == parse(first).fingerprint()

    assert equal is (change == "same")


def test_numbers_become_text_where_the_backend_may_send_them():
    changed = put(body("launch-ok-trait-pfile"), f"{GENOME}.chrom", 22)
    changed = put(changed, "secret_key_details.secret_id_version", 7)

    accepted = parse(changed)

    assert accepted.pipeline_param.target_genomes[0].chrom == "22"
    assert accepted.secret_key_details.secret_id_version == "7"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
PATHS = st.sampled_from(
    [
        "pipeline_param",
        "pipeline_param.id",
        "pipeline_param.target_genomes",
        GENOME,
        f"{GENOME}.sampleset",
        f"{GENOME}.chrom",
        f"{GENOME}.vcf_import_dosage",
        f"{GENOME}.format",
        f"{GENOME}.geno",
        SCORES,
        f"{SCORES}.pgs_id",
        f"{SCORES}.trait_efo",
        "globus_details",
        "globus_details.dir_path_on_guest_collection",
        "globus_details.files",
        "globus_details.files.0",
        "globus_details.files.0.size",
        "secret_key_details.secret_id_version",
    ]
)


@examples(max_examples=300, deadline=None)
@given(PATHS, ANYTHING)
def test_any_value_anywhere_is_accepted_or_refused_in_our_words(path, value):
    changed = put(body("launch-ok-trait-pfile"), path, value)

    try:
        canonical = parse(changed).canonical()
    except InvalidRequest as error:
        refused = error.problems
    else:
        refused = []
        assert parse(canonical).canonical() == canonical

    assert all(field.isascii() and rule != "is not valid" for field, rule in refused)


@examples(max_examples=300, deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_refused_in_our_words(raw):
    with pytest.raises(InvalidRequest):
        parse_launch(raw)


def test_schema_documents_patterns_and_an_example_that_is_accepted():
    schema = LaunchRequest.model_json_schema()

    assert schema["examples"] == [EXAMPLE]
    assert parse(EXAMPLE).canonical() == request().canonical()
    assert schema["$defs"]["PipelineParam"]["properties"]["id"]["pattern"] == "^INTP[0-9]{1,11}$"
    pgs_id = schema["$defs"]["ScoreParameters"]["properties"]["pgs_id"]
    assert pgs_id["anyOf"][0]["pattern"] == "^PGS[0-9]{6}(,PGS[0-9]{6})*$"


def test_a_request_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        request().pipeline_param.id = "INTP1"
