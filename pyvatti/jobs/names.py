"""PURE: the names of everything a job makes, derived from its id, its uid and the namespace.

Names are never read from an object: anybody may have edited it.
"""

from pyvatti.models import IdNames, Names

UID_PART = 8  # characters of the Job's uid in the names of its run and its work bucket
NAMESPACE_PART = 33  # characters of the namespace before them: 63 are allowed in all


def id_names(job_id: str, namespace: str) -> IdNames:
    """Name what follows from the id alone; `job_id` as on the wire or in lower case."""
    base = job_id.lower()
    return IdNames(job_id=job_id.upper(), base=base, results_bucket=f"{namespace}-{base}-results")


def names_for(job_id: str, namespace: str, uid: str, attempt: int = 1) -> Names:
    """Name everything the Job with this uid makes; `attempt` counts from 1."""
    known = id_names(job_id, namespace)
    stem, part = f"{bucket_prefix(namespace)}{known.base}", uid[:UID_PART]
    return Names(
        job_id=known.job_id,
        base=known.base,
        results_bucket=known.results_bucket,
        uid=uid,
        run_name=_run_name(f"{stem}-{part}", attempt),
        work_bucket=f"{stem}-work-{part}",
    )


def _run_name(first: str, attempt: int) -> str:
    """Name the run of an attempt: Seqera and Nextflow take each name once."""
    return first if attempt == 1 else f"{first}-a{attempt}"


def listing_prefix(namespace: str) -> str:
    """Give what the names of all buckets of a namespace begin with, work and results.

    A results bucket carries the whole namespace, a work bucket the beginning of it.
    """
    return bucket_prefix(namespace).rstrip("-")


def bucket_prefix(namespace: str) -> str:
    """Give what the names of all work buckets and runs of a namespace begin with.

    Other namespaces may share it: it proves nothing.
    """
    return f"{namespace[:NAMESPACE_PART].rstrip('-')}-"
