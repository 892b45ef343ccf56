"""What of a request must never be repeated: in no log, record, Event, answer or notice.

Pure. How it is found in a text is `redaction`'s.
"""

import re

from pyvatti.launch.request import ENCRYPTED, LaunchRequest
from pyvatti.redaction import LEAST, Redactor

ANYWHERE = 8  # characters from which a value is taken out inside of words too
_CHROMOSOME = re.compile(r"(?i)(chr)?([0-9]{1,2}|[xymt]{1,2})")
# Words that messages are made of, and that say nothing about a person
PLAIN = frozenset(
    """
    admin analysis array batch bucket calculation chromosome cohort collection contact container
    data dataset default demo download driver encrypted error example failed file files folder
    genome genomes genotype genotypes geno globus group hello home hospital imputed index info
    input inputs java job jobs kubernetes list login mail main message name names nextflow null
    office output outputs path patient patients personal pgsc_calc pheno phenotype pipeline
    private process production project public reference release report request research results
    root run sample samples sampleset samplesheet score scores secret server service shared study
    support target task team test testing tests transfer true upload uploads user users variant
    variants version work workflow
    """.split()  # noqa: SIM905 - to be read
)


def redactor_of(request: LaunchRequest) -> Redactor:
    """Give what takes a request's personal data out of texts.

    These are: the folder, each part of its path, an e-mail address among them with what stands
    before and after the @ and the words before it; the sampleset; the names of all files, encrypted
    or not, and what stands before their first full stop; the id and the version of the key.
    Values of 4 to 7 characters go only where they are words of their own, plain words such as
    `results` and the names of chromosomes not at all, except as a part of a longer value.
    """
    values = {value for value in _values(request) if _is_telling(value)}
    long = {value for value in values if len(value) >= ANYWHERE}
    return Redactor(long, values - long)


def _is_telling(value: str) -> bool:
    is_word = value.lower() in PLAIN or _CHROMOSOME.fullmatch(value) is not None
    return len(value) >= LEAST and not is_word


def _values(request: LaunchRequest) -> set[str]:
    parameters, key = request.pipeline_param, request.secret_key_details
    folder = request.globus_details.dir_path_on_guest_collection
    found = {folder, folder.strip("/"), key.secret_id, key.secret_id_version}
    for part in folder.split("/"):
        found |= _parts_of_path(part)
    names = {file.filename.removesuffix(ENCRYPTED) for file in request.globus_details.files}
    for genome in parameters.target_genomes:
        found.add(genome.sampleset)
        names |= {genome.geno, genome.variants, genome.pheno}
    for name in names:
        found |= {name, name.partition(".")[0]}
    return found


def _parts_of_path(part: str) -> set[str]:
    before, _, host = part.partition("@")
    words = re.split(r"[._+-]", before) if host else []
    return {part, before, host, *words} if host else {part}
