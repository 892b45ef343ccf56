"""The operator's last resort: lets a Job go when pyvatti is gone and its finalizer remains.

Deletes nothing: what the job made is named, for somebody has to delete it.
"""

from collections.abc import Sequence

from pyvatti import labels
from pyvatti.errors import JobNotFound, NotOurs
from pyvatti.jobs import finalizer_patch, read_job
from pyvatti.kube import JOBS, KubeClient
from pyvatti.kube.credentials import Credentials
from pyvatti.policy import proof


async def release(job_id: str, *, namespace: str, kubeconfig: str) -> Sequence[str]:
    """Remove our finalizer from a Job; give the buckets that may still be there and must go.

    Results of a success are not among them: they expire by the bucket's lifecycle.

    Raises JobNotFound, NotOurs for a Job that is not pyvatti's, Conflict if the Job changes
    meanwhile (then somebody still acts on it), Unavailable.
    """
    client = await KubeClient.open(Credentials(kubeconfig), namespace)
    try:
        raw = await client.get(JOBS, job_id.lower())
        if raw is None:
            raise JobNotFound(f"{job_id.upper()} has no Job in namespace {namespace}")
        if (raw["metadata"].get("labels") or {}).get(labels.MANAGED_BY) != labels.MANAGER:
            raise NotOurs(f"Job {job_id.lower()} is not managed by {labels.MANAGER}")
        job = read_job(raw)
        await client.merge_patch(JOBS, job.names.base, finalizer_patch(job))
    finally:
        await client.close()
    return proof.doomed_buckets(job.names, job.state)
