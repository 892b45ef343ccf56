"""Takes back launches that were never accepted completely. When is decided elsewhere.

Any replica may: the one that could not finish an accept, and the acting one for those that died.
"""

import structlog

from pyvatti import jobs, labels
from pyvatti.kube import JOBS, SECRETS
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Job

log = structlog.get_logger(__name__)


async def withdraw(doors: Doors, job: Job) -> None:
    """Remove a Job whose accept failed: silently, for nobody was promised anything.

    The mark comes first and the look for the Secret after it; who completes an accept stores the
    Secret first and looks for the mark after it. So never do both believe they succeeded.
    """
    if not job.withdrawn:
        raw = await doors.kube.merge_patch(JOBS, job.names.base, jobs.withdrawal_patch(job))
        job = doors.cache.note_job(raw)
    if await is_stored(doors, job):
        raw = await doors.kube.merge_patch(JOBS, job.names.base, jobs.restore_patch(job))
        doors.cache.note_job(raw)
        return
    await doors.kube.delete(JOBS, job.names.base, uid=job.uid, propagation="Foreground")
    log.warning("launch withdrawn: it was never accepted completely", job=job.names.base)


async def is_stored(doors: Doors, job: Job) -> bool:
    """Tell whether the driver's Secret of this very Job is there: its accept was complete."""
    secret = await doors.kube.get(SECRETS, job.names.base)
    doors.cache.note_request(job, secret)
    return secret is not None and labels.owner_uid(secret) == job.uid
