"""What the rendering tests draw: texts that break careless templates, accepted and forced requests.

No assertions.
"""

from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st

from pyvatti.launch import LaunchRequest
from pyvatti.launch.request import (
    GlobusDetails,
    PipelineParam,
    ScoreParameters,
    SecretKeyDetails,
    StoredFile,
    TargetGenome,
)

NASTY = st.sampled_from(
    [
        "$(touch x)",
        "${HOME}",
        "#{T(x)}",
        "`x`",
        "'; evil(); '",
        '"\n- evil',
        "a: b\nmin_overlap: 0",
        "{{ settings }}",
        "{% raw %}",
        "\\u0027",
        "\\\\u0027 \\",
        "\\\u00e9",
        "*alias",
        "&anchor",
        "!!python/object",
        "yes",
        "null",
        "1e3",
        "0x1f",
        "2001-01-01",
        "~",
        "=",
        "<<",
        "%TAG",
        " leading and trailing ",
        "\ttab\t",
        "\r\n",
        "\x00\x01\x1f\x7f",
        "\x85\u2028\u2029\ufeff",
        "\U0001f600\U0010ffff",
        "// comment",
        "/* comment */",
        "# comment",
        "! comment",
        "a=b:c",
        "",
    ]
)


TEXT = st.one_of(NASTY, st.text(), st.tuples(NASTY, st.text(max_size=5), NASTY).map("".join))


KEYS = TEXT.filter(lambda key: len(key) < 90)  # ten characters each at most, as YAML escapes


QUICK = examples(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def word(pattern):
    return st.from_regex(pattern, fullmatch=True)


STEM = word(r"[A-Za-z0-9]([A-Za-z0-9_+-]|\.[A-Za-z0-9_+-]){0,20}")


ENDINGS = st.sampled_from(
    [
        ("pfile", ".pgen", ".pvar", ".psam"),
        ("pfile", ".pgen", ".pvar.zst", ".psam"),
        ("bfile", ".bed", ".bim", ".fam"),
        ("bfile", ".bed", ".bim.zst", ".fam"),
        ("vcf", ".vcf.gz", ".vcf.gz", ".vcf.gz"),
    ]
)


SCORES = st.one_of(
    st.fixed_dictionaries({"pgs_id": word(r"PGS[0-9]{6}(,PGS[0-9]{6}){0,5}")}),
    st.fixed_dictionaries({"pgp_id": word(r"PGP[0-9]{6}(,PGP[0-9]{6}){0,5}")}),
    st.fixed_dictionaries({"trait_efo": word(r"[A-Za-z]{1,6}_[0-9]{1,9}(,EFO_[0-9]{1,9}){0,5}")}),
)


@st.composite
def accepted_bodies(draw):
    form, *endings = draw(ENDINGS)
    stem, size = draw(STEM), st.integers(1, 2**63 - 1)
    names = dict(zip(("geno", "variants", "pheno"), (stem + end for end in endings), strict=True))
    genome = {
        "sampleset": draw(word(r"[A-Za-z0-9][A-Za-z0-9-]{0,60}").filter("reference".__ne__)),
        "chrom": draw(st.none() | st.integers(1, 22) | st.sampled_from(["X", "chr1", "MT"])),
        "vcf_import_dosage": draw(st.booleans()),
        "format": form,
        **names,
    }
    folder = word(r"[A-Za-z0-9_@+ -]{1,20}(/[A-Za-z0-9._@+-][A-Za-z0-9_@+ -]{0,20}){0,3}/?")
    files = [{"filename": f"{n}.c4gh", "size": draw(size)} for n in sorted(set(names.values()))]
    return {
        "pipeline_param": {
            "id": draw(word(r"INTP[0-9]{1,11}")),
            "target_genomes": [genome],
            "nxf_params_file": {
                **draw(SCORES),
                "format": "json",
                "target_build": draw(st.sampled_from(["GRCh37", "GRCh38"])),
            },
        },
        "globus_details": {
            "dir_path_on_guest_collection": draw(folder.filter(str.strip)),
            "files": draw(st.permutations(files)),
        },
        "secret_key_details": {
            "secret_id": str(draw(st.uuids())).upper(),
            "secret_id_version": draw(word(r"[A-Za-z0-9/_.-]{1,60}")),
        },
    }


@st.composite
def forced_requests(draw):
    """Requests no check has seen: every string is anything."""
    genome = TargetGenome.model_construct(
        sampleset=draw(TEXT),
        chrom=draw(st.none() | TEXT),
        vcf_import_dosage=draw(st.booleans()),
        format=draw(TEXT),
        geno=draw(TEXT),
        variants=draw(TEXT),
        pheno=draw(TEXT),
    )
    scores = ScoreParameters.model_construct(
        pgs_id=draw(st.none() | TEXT),
        pgp_id=draw(st.none() | TEXT),
        trait_efo=draw(st.none() | TEXT),
        target_build=draw(TEXT),
        format=draw(TEXT),
    )
    files = draw(st.lists(st.tuples(TEXT, st.integers()), max_size=3))
    return LaunchRequest.model_construct(
        pipeline_param=PipelineParam.model_construct(
            id=draw(TEXT), target_genomes=[genome], nxf_params_file=scores
        ),
        globus_details=GlobusDetails.model_construct(
            dir_path_on_guest_collection=draw(TEXT),
            files=[StoredFile.model_construct(filename=name, size=size) for name, size in files],
        ),
        secret_key_details=SecretKeyDetails.model_construct(
            secret_id=draw(TEXT), secret_id_version=draw(TEXT)
        ),
    )
