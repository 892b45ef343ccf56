"""The launch request: what is accepted, what is refused and in which words."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from rendering_samples import (
    ACCEPTED,
    GENOME,
    PAYLOADS,
    SCORES,
    body,
    drop,
    parse,
    put,
    request,
)

from pyvatti.errors import InvalidRequest
from pyvatti.launch import parse_launch


def problems(value: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(value)
    return dict(caught.value.problems)


@pytest.mark.parametrize("name", ACCEPTED)
def test_fault_06_real_payloads_are_accepted(name):
    accepted = request(name)

    assert accepted.job_id == body(name)["pipeline_param"]["id"]
    assert accepted.base == accepted.job_id.lower()


def test_fault_06_formats_zst_and_extra_dots_are_accepted():
    extra_dots = body("launch-ok-trait-pfile")
    files = ("my.data.v2.pgen", "my.data.v2.pvar.zst", "a.b.c.psam")
    extra_dots["pipeline_param"]["target_genomes"][0].update(
        zip(("geno", "variants", "pheno"), files, strict=True)
    )
    extra_dots["globus_details"]["files"] = [
        {"filename": f"{name}.c4gh", "size": 1} for name in files
    ]

    genome = parse(extra_dots).pipeline_param.target_genomes[0]

    assert (genome.geno, genome.variants, genome.pheno) == files


def test_fault_06_old_and_unknown_fields_are_ignored():
    accepted = request("launch-ok-extra-and-missing-optional")

    assert accepted.pipeline_param.target_genomes[0].vcf_import_dosage is False
    assert "future_field" not in accepted.canonical()
    assert "nxf_work" not in accepted.canonical()["pipeline_param"]
    assert "guest_collection_id" not in accepted.canonical()["globus_details"]
    assert not accepted.globus_details.dir_path_on_guest_collection.endswith("/")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param(
            "launch-old-2022",
            {"globus_details.files", "secret_key_details"},
            id="first generation has no files",
        ),
        pytest.param(
            "launch-old-2024-early",
            {f"globus_details.files.{n}.filename" for n in range(3)} | {"secret_key_details"},
            id="refused for the missing encryption, not for its extra keys",
        ),
        pytest.param(
            "launch-old-2024-may-unencrypted",
            {f"globus_details.files.{n}.filename" for n in range(3)} | {"secret_key_details"},
            id="unencrypted files",
        ),
        pytest.param(
            "launch-bad-sampleset-injection", {f"{GENOME}.sampleset"}, id="YAML in the sampleset"
        ),
    ],
)
def test_fault_05_refused_payloads_name_each_field(name, fields):
    assert set(problems(body(name))) == fields


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        pytest.param("pipeline_param", [], "pipeline_param", id="list for object"),
        pytest.param("pipeline_param.id", 513, "pipeline_param.id", id="number for id"),
        pytest.param("pipeline_param.target_genomes", [], "pipeline_param.target_genomes", id="0"),
        pytest.param("pipeline_param.target_genomes", {}, "pipeline_param.target_genomes", id="{}"),
        pytest.param(f"{GENOME}.sampleset", "reference", f"{GENOME}.sampleset", id="reserved"),
        pytest.param(f"{GENOME}.sampleset", "a_b", f"{GENOME}.sampleset", id="underscore"),
        pytest.param(f"{GENOME}.sampleset", "a" * 513, f"{GENOME}.sampleset", id="513 characters"),
        pytest.param(f"{GENOME}.sampleset", None, f"{GENOME}.sampleset", id="null sampleset"),
        pytest.param(f"{GENOME}.format", "bgen", f"{GENOME}.format", id="unknown format"),
        pytest.param(f"{GENOME}.vcf_import_dosage", 1, f"{GENOME}.vcf_import_dosage", id="1"),
        pytest.param(f"{GENOME}.vcf_import_dosage", [], f"{GENOME}.vcf_import_dosage", id="[]"),
        pytest.param(f"{GENOME}.chrom", True, f"{GENOME}.chrom", id="true for chrom"),
        pytest.param(f"{GENOME}.chrom", 1.5, f"{GENOME}.chrom", id="fraction for chrom"),
        pytest.param(f"{GENOME}.geno", "hapnest.pgen.c4gh", f"{GENOME}.geno", id="still encrypted"),
        pytest.param(f"{GENOME}.geno", "a/hapnest.pgen", f"{GENOME}.geno", id="a path"),
        pytest.param(f"{GENOME}.geno", "a..pgen", f"{GENOME}.geno", id="two dots"),
        pytest.param(f"{GENOME}.geno", "hapnest.bed", f"{GENOME}.geno", id="bed for pfile"),
        pytest.param(f"{GENOME}.geno", "other.pgen", f"{GENOME}.geno", id="not among the files"),
        pytest.param(f"{GENOME}.pheno", "hapnest.psam.zst", f"{GENOME}.pheno", id="psam.zst"),
        pytest.param(f"{SCORES}.pgs_id", "PGS000001", SCORES, id="two kinds of identifiers"),
        pytest.param(f"{SCORES}.trait_efo", " ", SCORES, id="no identifier"),
        pytest.param(f"{SCORES}.trait_efo", "EFO-1", f"{SCORES}.trait_efo", id="no trait"),
        pytest.param(
            f"{SCORES}.trait_efo",
            ",".join(f"EFO_{n:07}" for n in range(101)),
            f"{SCORES}.trait_efo",
            id="101 traits",
        ),
        pytest.param(f"{SCORES}.target_build", "hg19", f"{SCORES}.target_build", id="hg19"),
        pytest.param(f"{SCORES}.format", "csv", f"{SCORES}.format", id="csv"),
        pytest.param("globus_details.files", [], "globus_details.files", id="no files"),
        pytest.param(
            "globus_details.files.1.filename",
            "hapnest.pgen.c4gh",
            "globus_details.files",
            id="a file twice",
        ),
        pytest.param("globus_details.files.0.size", 0, "globus_details.files.0.size", id="size 0"),
        pytest.param(
            "globus_details.files.0.size", 2**63, "globus_details.files.0.size", id="size 2^63"
        ),
        pytest.param(
            "globus_details.files.0.size", "1", "globus_details.files.0.size", id="size as text"
        ),
        pytest.param(
            "globus_details.files.0.size", True, "globus_details.files.0.size", id="size true"
        ),
        *(
            pytest.param(
                "globus_details.dir_path_on_guest_collection",
                value,
                "globus_details.dir_path_on_guest_collection",
                id=f"folder {value!r}",
            )
            for value in ("", " ", "/", "a//b", "a/../b", "..", "a\n", "ä", "a" * 1025)
        ),
        pytest.param(
            "secret_key_details.secret_id", "81D5C400", "secret_key_details.secret_id", id="no UUID"
        ),
        pytest.param(
            "secret_key_details.secret_id_version",
            "",
            "secret_key_details.secret_id_version",
            id="empty version",
        ),
    ],
)
def test_fault_05_a_bad_value_is_refused_by_its_field(path, value, field):
    assert field in problems(put(body("launch-ok-trait-pfile"), path, value))


@pytest.mark.parametrize(
    "path",
    [
        "pipeline_param",
        "pipeline_param.id",
        "pipeline_param.target_genomes",
        f"{GENOME}.sampleset",
        f"{GENOME}.format",
        f"{GENOME}.geno",
        f"{GENOME}.variants",
        f"{GENOME}.pheno",
        SCORES,
        f"{SCORES}.target_build",
        f"{SCORES}.format",
        "globus_details",
        "globus_details.dir_path_on_guest_collection",
        "globus_details.files",
        "globus_details.files.0.filename",
        "globus_details.files.0.size",
        "secret_key_details",
        "secret_key_details.secret_id",
        "secret_key_details.secret_id_version",
    ],
)
def test_fault_05_a_missing_field_is_named(path):
    assert problems(drop(body("launch-ok-trait-pfile"), path))[path] == "is required"


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param(b"", "must be JSON: wrong at line 1, column 1", id="empty"),
        pytest.param(b'{"a": ', "must be JSON: wrong at line 1, column 7", id="cut off"),
        pytest.param(b"\xff\xfe{}", "must be UTF-8", id="not UTF-8"),
        pytest.param(b"[]", "must be an object", id="list"),
        pytest.param(b"null", "must be an object", id="null"),
        pytest.param(b'{"a": {"b": 1, "b": 1}}', "must not hold a key twice in one object", id="2"),
        pytest.param(b'{"a": NaN}', "must not hold NaN or Infinity", id="NaN"),
        pytest.param(b'{"a": -Infinity}', "must not hold NaN or Infinity", id="-Infinity"),
        pytest.param(b"[" * 500_000, "must not be nested that deeply", id="500 000 levels"),
        pytest.param(
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "must not be nested that deeply",
            id="100 000 objects",
        ),
    ],
)
def test_fault_05_an_unreadable_body_is_refused(raw, rule):
    with pytest.raises(InvalidRequest) as caught:
        parse_launch(raw)

    assert caught.value.problems == [("body", rule)]


def test_huge_numbers_are_harmless():
    text = (PAYLOADS / "launch-ok-trait-pfile.json").read_text()
    huge = "9" * 100_000

    ignored = parse_launch(text.replace("{", '{"unknown": ' + huge + ",", 1))
    with pytest.raises(InvalidRequest) as caught:
        parse_launch(text.replace("278705850", huge))

    assert ignored.job_id == "INTP00000000513"
    assert caught.value.problems == [("globus_details.files.0.size", "must be a whole number")]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            ("pipeline_param.id", value)
            for value in ("INTPx", "xINTP1", "INTP1\n", "INTP", "intp1", "INTP123456789012", "")
        ),
        *(
            (f"{SCORES}.pgs_id", value)
            for value in (
                "PGS0000001",
                "PGS000001;",
                "PGS000001\n",
                "xPGS000001",
                "PGS000001,",
                ",PGS000001",
                "PGS000001 PGS000002",
                "PGS00000\u0661",
            )
        ),
        *((f"{SCORES}.pgp_id", value) for value in ("PGP0000001", "PGS000001", "PGP000001\n")),
        *(
            (f"{SCORES}.trait_efo", value)
            for value in (
                "EFO_1\n",
                "EFO_",
                "_1",
                "EFO_1;x",
                "OBA_1VT",
                "OBA_VT",
                "OBA_V-T1",
                "OBA_VT1,",
            )
        ),
        *((f"{GENOME}.sampleset", value) for value in ("a\n", "-a", "a b", "é", "")),
        *((f"{GENOME}.geno", value) for value in ("hapnest.pgen\n", ".pgen", "-x.pgen")),
        ("globus_details.files.0.filename", "hapnest.pgen.c4gh\n"),
        ("secret_key_details.secret_id", "81D5C400-21B4-4E88-8208-8D64C9920283\n"),
        ("secret_key_details.secret_id_version", "1\n"),
    ],
)
def test_fault_07_patterns_are_anchored(path, value):
    changed = body("launch-ok-trait-pfile")
    if path in (f"{SCORES}.pgs_id", f"{SCORES}.pgp_id"):
        changed = drop(changed, f"{SCORES}.trait_efo")

    assert path in problems(put(changed, path, value))


@pytest.mark.parametrize(
    "payload",
    [
        "$(touch x)",
        "`touch x`",
        '"; touch x; "',
        "a; touch x",
        "a && touch x",
        "a | touch x",
        "a\ntouch x",
        "${HOME}",
        "a'b",
        "a\\b",
        "a: b\nmin_overlap: 0",
        "*id",
        "{{ settings.tower_token }}",
        "'; evil(); '",
        "a\x00b",
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "pipeline_param.id",
        f"{GENOME}.sampleset",
        f"{GENOME}.chrom",
        f"{GENOME}.geno",
        f"{GENOME}.variants",
        f"{GENOME}.pheno",
        f"{SCORES}.trait_efo",
        "globus_details.dir_path_on_guest_collection",
        "globus_details.files.0.filename",
        "secret_key_details.secret_id",
        "secret_key_details.secret_id_version",
    ],
)
def test_fault_08_code_in_any_string_is_refused(path, payload):
    found = problems(put(body("launch-ok-trait-pfile"), path, payload))

    assert path in found
    assert payload not in json.dumps(found)


def chromosomes(*chroms: Any, samplesets: tuple[str, ...] = ("test",)) -> Any:
    changed = body("launch-ok-trait-pfile")
    genome = changed["pipeline_param"]["target_genomes"][0]
    changed["pipeline_param"]["target_genomes"] = [
        {**genome, "chrom": chrom, "sampleset": samplesets[at % len(samplesets)]}
        for at, chrom in enumerate(chroms)
    ]
    return changed


def test_several_genomes_of_one_sampleset_with_distinct_chromosomes_are_accepted():
    assert len(parse(chromosomes(1, "2", "chrX")).pipeline_param.target_genomes) == 3


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: chromosomes("1", "1"), id="a chromosome twice"),
        pytest.param(lambda: chromosomes("1", "chr1"), id="twice, once with prefix"),
        pytest.param(lambda: chromosomes("1", None), id="one and all"),
        pytest.param(lambda: chromosomes("1", "2", samplesets=("a", "b")), id="two samplesets"),
    ],
)
def test_several_genomes_that_do_not_fit_together_are_refused(make: Callable[[], Any]):
    assert set(problems(make())) == {"pipeline_param.target_genomes"}


@pytest.mark.parametrize("traits", ["OBA_VT0001253", "EFO_1,OBA_VT0001253,MONDO_0007254"])
def test_traits_of_other_ontologies_are_taken(traits: str):
    found = parse(put(body("launch-ok-trait-pfile"), f"{SCORES}.trait_efo", traits))

    assert found.pipeline_param.nxf_params_file.trait_efo == traits


@pytest.mark.parametrize("kind", ["geno", "variants", "pheno"])
def test_vcf_is_the_same_name_three_times(kind):
    changed = body("launch-ok-vcf-two-traits")
    changed["globus_details"]["files"].append({"filename": "other.vcf.gz.c4gh", "size": 1})
    changed["pipeline_param"]["target_genomes"][0][kind] = "other.vcf.gz"

    assert set(problems(changed)) == {f"{GENOME}.geno"}
