"""The fields of a launch request, the rules across them, its canonical form.

No parsing of bodies and no wording of errors: that is `reading`.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

ENCRYPTED = ".c4gh"
MAX_IDS = 100
MAX_GENOMES = 100  # with MAX_FILES: what is rendered fits the 1 MiB of a Secret
MAX_FILES = 1000
MAX_TEXT = 8192  # characters of a list of identifiers, repetitions included
INT64 = 2**63 - 1

# Patterns are matched by pydantic's Rust engine, where $ is the very end: no line break gets past.
# What globflow and pgsc_calc paste into shell scripts is limited to harmless characters here.
JOB_ID = r"^INTP[0-9]{1,11}$"
SAMPLESET = r"^[A-Za-z0-9][A-Za-z0-9-]*$"
CHROMOSOME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$"
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$"
FOLDER = r"^[A-Za-z0-9._@+/ -]{1,1024}$"
PGS_IDS = r"^PGS[0-9]{6}(,PGS[0-9]{6})*$"
PGP_IDS = r"^PGP[0-9]{6}(,PGP[0-9]{6})*$"
TRAITS = r"^[A-Za-z]+_[A-Za-z]*[0-9]+(,[A-Za-z]+_[A-Za-z]*[0-9]+)*$"
UUID = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
SECRET_VERSION = r"^[A-Za-z0-9/_.-]{1,512}$"  # noqa: S105 - a pattern

ENDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "pfile": {"geno": (".pgen",), "variants": (".pvar", ".pvar.zst"), "pheno": (".psam",)},
    "bfile": {"geno": (".bed",), "variants": (".bim", ".bim.zst"), "pheno": (".fam",)},
    "vcf": {"geno": (".vcf.gz",), "variants": (".vcf.gz",), "pheno": (".vcf.gz",)},
}
ID_FIELDS = ("pgs_id", "pgp_id", "trait_efo")


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _blank_as_absent(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _flag(value: Any) -> Any:
    if value is None:
        return False
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _at_most_100(value: str) -> str:
    if len(value) > MAX_TEXT:  # repetitions count only here
        raise ValueError(f"must have at most {MAX_TEXT} characters")
    if len(set(value.split(","))) > MAX_IDS:
        raise ValueError(f"must name at most {MAX_IDS}")
    return value


def _no_reference(value: str) -> str:
    if value == "reference":
        raise ValueError("must not be the reserved name reference")
    return value


def _no_dots(value: str) -> str:
    if ".." in value:
        raise ValueError("must not hold two dots in a row")
    return value


def _decrypted(value: str) -> str:
    if value.lower().endswith(ENCRYPTED):
        raise ValueError(f"must be the decrypted name, without {ENCRYPTED}")
    return value


def _encrypted(value: str) -> str:
    if not value.endswith(ENCRYPTED):
        raise ValueError(f"must end in {ENCRYPTED}: only encrypted files are accepted")
    return value


def _folder(value: str) -> str:
    if "//" in value or ".." in value.split("/"):
        raise ValueError("must not hold // or a .. segment")
    if not value.strip(" /"):
        raise ValueError("must not be blank")
    return value.rstrip("/")


DecryptedName = Annotated[
    str, Field(pattern=FILE_NAME), AfterValidator(_no_dots), AfterValidator(_decrypted)
]


class Wire(BaseModel):
    """What the parts of a request share: frozen, unknown and old fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TargetGenome(Wire):
    """One set of genomes; the file names are those after decryption."""

    sampleset: Annotated[
        str, Field(pattern=SAMPLESET, max_length=512), AfterValidator(_no_reference)
    ] = Field(description="Name of the data set; results are stored under it")
    chrom: Annotated[
        Annotated[str, Field(pattern=CHROMOSOME)] | None, BeforeValidator(_number_as_text)
    ] = Field(None, description="Chromosome; null means all")
    vcf_import_dosage: Annotated[StrictBool, BeforeValidator(_flag)] = Field(
        False, description="Whether dosages are read from a VCF"
    )
    format: Literal["pfile", "bfile", "vcf"] = Field(description="Format of the genomes")
    geno: DecryptedName = Field(description=".pgen, .bed or .vcf.gz")
    variants: DecryptedName = Field(description=".pvar or .bim, also .zst, or the same .vcf.gz")
    pheno: DecryptedName = Field(description=".psam, .fam or the same .vcf.gz")


class ScoreParameters(Wire):
    """Which scores to calculate: exactly one of the three kinds of identifiers."""

    pgs_id: Annotated[
        Annotated[str, Field(pattern=PGS_IDS), AfterValidator(_at_most_100)] | None,
        BeforeValidator(_blank_as_absent),
    ] = Field(None, description="Scores of the PGS Catalog")
    pgp_id: Annotated[
        Annotated[str, Field(pattern=PGP_IDS), AfterValidator(_at_most_100)] | None,
        BeforeValidator(_blank_as_absent),
    ] = Field(None, description="Publications of the PGS Catalog")
    trait_efo: Annotated[
        Annotated[str, Field(pattern=TRAITS), AfterValidator(_at_most_100)] | None,
        BeforeValidator(_blank_as_absent),
    ] = Field(None, description="Traits of an ontology: EFO_…, MONDO_…, OBA_…")
    target_build: Literal["GRCh37", "GRCh38"] = Field(description="Genome build of the genomes")
    format: Literal["json"] = Field(description="Format of the samplesheet")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, name) is not None for name in ID_FIELDS) != 1:
            raise ValueError("must hold exactly one of pgs_id, pgp_id and trait_efo")
        return self


class PipelineParam(Wire):
    """What to calculate."""

    id: Annotated[str, Field(pattern=JOB_ID)] = Field(description="Id of the job")
    target_genomes: Annotated[list[TargetGenome], Field(min_length=1, max_length=MAX_GENOMES)]
    nxf_params_file: ScoreParameters


class StoredFile(Wire):
    """One encrypted file of the guest collection; `size` in bytes."""

    filename: Annotated[
        str, Field(pattern=FILE_NAME), AfterValidator(_no_dots), AfterValidator(_encrypted)
    ]
    size: Annotated[StrictInt, Field(gt=0, le=INT64)]


class GlobusDetails(Wire):
    """Where the encrypted genomes are."""

    dir_path_on_guest_collection: Annotated[str, Field(pattern=FOLDER), AfterValidator(_folder)] = (
        Field(description="Folder; a final / is dropped")
    )
    files: Annotated[list[StoredFile], Field(min_length=1, max_length=MAX_FILES)]


class SecretKeyDetails(Wire):
    """Which key decrypts the genomes, in the words of the key handler."""

    secret_id: Annotated[str, Field(pattern=UUID)] = Field(description="UUID, case is kept")
    secret_id_version: Annotated[
        str, Field(pattern=SECRET_VERSION), BeforeValidator(_number_as_text)
    ]


EXAMPLE: dict[str, Any] = {
    "pipeline_param": {
        "id": "INTP00000000513",
        "target_genomes": [
            {
                "sampleset": "test",
                "chrom": None,
                "vcf_import_dosage": False,
                "format": "pfile",
                "geno": "hapnest.pgen",
                "variants": "hapnest.pvar",
                "pheno": "hapnest.psam",
            }
        ],
        "nxf_params_file": {
            "trait_efo": "EFO_1000068",
            "format": "json",
            "target_build": "GRCh38",
        },
    },
    "globus_details": {
        "dir_path_on_guest_collection": (
            "user@example.org/Sample-Set-Wednesday-18-Sep-15-17-fc578e94"
        ),
        "files": [
            {"filename": "hapnest.pgen.c4gh", "size": 278705850},
            {"filename": "hapnest.pvar.c4gh", "size": 215004174},
            {"filename": "hapnest.psam.c4gh", "size": 8517},
        ],
    },
    "secret_key_details": {
        "secret_id": "81D5C400-21B4-4E88-8208-8D64C9920283",
        "secret_id_version": "1",
    },
}


def fingerprint_of(canonical: bytes) -> str:
    """Give the fingerprint of a request from its canonical form as JSON. Raises ValueError."""
    return _fingerprint(json.loads(canonical))


def _fingerprint(canonical: Any) -> str:
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class LaunchRequest(Wire):
    """A polygenic score job on encrypted genomes. Every instance keeps all rules."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    pipeline_param: PipelineParam
    globus_details: GlobusDetails
    secret_key_details: SecretKeyDetails

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := list(_problems_across(self)):
            raise PydanticCustomError("across", "breaks a rule", {"problems": problems})
        return self

    @property
    def job_id(self) -> str:
        """The id as sent, such as INTP00000000513."""
        return self.pipeline_param.id

    @property
    def base(self) -> str:
        """The id in lower case: the name of the job's objects."""
        return self.job_id.lower()

    def canonical(self) -> dict[str, Any]:
        """Give the one form of all bodies that mean the same: lists that are sets are sorted."""
        body = self.model_dump()
        scores = body["pipeline_param"]["nxf_params_file"]
        for name in ID_FIELDS:
            if scores[name] is not None:
                scores[name] = ",".join(sorted(set(scores[name].split(","))))
        body["globus_details"]["files"].sort(key=lambda file: file["filename"])
        return body

    def fingerprint(self) -> str:
        """Give the SHA-256 (hex) of the canonical form: equal for the same launch."""
        return _fingerprint(self.canonical())


def _problems_across(request: LaunchRequest) -> Iterator[tuple[str, str]]:
    genomes, files = request.pipeline_param.target_genomes, request.globus_details.files
    names = {file.filename for file in files}
    if len(names) != len(files):
        yield "globus_details.files", "must not name a file twice"
    for index, genome in enumerate(genomes):
        for field, rule in _genome_problems(genome, names):
            yield f"pipeline_param.target_genomes.{index}.{field}", rule
    if len(genomes) > 1:
        yield from _set_problems(genomes)


def _genome_problems(genome: TargetGenome, names: set[str]) -> Iterator[tuple[str, str]]:
    for field, endings in ENDINGS[genome.format].items():
        name = getattr(genome, field)
        if not name.endswith(endings):
            yield field, f"must end in {' or '.join(endings)} for format {genome.format}"
        if name + ENCRYPTED not in names:
            yield field, f"must be one of globus_details.files, there with {ENCRYPTED}"
    if genome.format == "vcf" and len({genome.geno, genome.variants, genome.pheno}) > 1:
        yield "geno", "must be the same name as variants and pheno for format vcf"


def _set_problems(genomes: list[TargetGenome]) -> Iterator[tuple[str, str]]:
    place = "pipeline_param.target_genomes"
    if len({genome.sampleset for genome in genomes}) > 1:
        yield place, "must all have the same sampleset"
    # pgsc_calc drops the prefix chr, and null means every chromosome
    chromosomes = [(genome.chrom or "").removeprefix("chr") for genome in genomes]
    if "" in chromosomes or len(set(chromosomes)) != len(chromosomes):
        yield place, "must each name another chrom when there are several"
