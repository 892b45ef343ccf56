"""PURE: the names of everything a job makes, derived from its id and the namespace."""

from pyvatti.models import Names


def run_name(namespace: str, base: str, attempt: int = 1) -> str:
    """Name a run in Nextflow and Seqera: `{namespace}-{base}`, from the second attempt on `-a2`."""
    return f"{namespace}-{base}" + (f"-a{attempt}" if attempt > 1 else "")


def names_for(job_id: str, namespace: str) -> Names:
    """Name everything a job makes; `job_id` as on the wire (`INTP00000000513`)."""
    base = job_id.lower()
    return Names(
        job_id=job_id.upper(),
        base=base,
        run_name=run_name(namespace, base),
        work_bucket=f"{namespace}-{base}-work",
        results_bucket=f"{namespace}-{base}-results",
    )
