"""Removes single things of one job and reads afterwards whether they are gone.

Used by the job's clean-up, and by the sweeper for what an earlier clean-up had to leave. Whose a
thing is, is looked up before it is touched. Each function raises NotOurs with what did not fit.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from pyvatti import labels
from pyvatti.errors import NotOurs, Unavailable
from pyvatti.jobs import is_pod_with_edited_owner, why_pod_not_of, why_secret_not_of
from pyvatti.kube import PODS, SECRETS
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.turns import minding_the_rate
from pyvatti.models import Manifest, Names, Owner, Removal

Turn = Callable[[], Awaitable[None]]


async def delete_secret(doors: Doors, names: Names, name: str) -> bool:
    """Ask for the deletion of a Secret of this job; tell whether there was one."""
    secret = await doors.kube.get(SECRETS, name)
    if secret is None:
        return False
    if why := why_secret_not_of(secret, names, doors.installation):
        raise NotOurs(f"Secret {name}: {why}")
    uid = secret["metadata"]["uid"]
    return await doors.kube.delete(SECRETS, name, uid=uid, propagation="Background") is not None


async def clear_secret(doors: Doors, names: Names, name: str) -> Removal:
    """Delete a Secret of this job if it is there, and read again.

    Raises Unavailable while it is still there, as with a finalizer of somebody else.
    """
    asked_at = doors.clock() if await delete_secret(doors, names, name) else None
    if asked_at is not None and await doors.kube.get(SECRETS, name) is not None:
        raise Unavailable(f"Secret {name} is still there after its deletion")
    return Removal(resource=f"secret/{name}", removed_at=asked_at, proven_absent_at=doors.clock())


async def list_pods(doors: Doors, names: Names) -> list[Manifest]:
    """List the pods of this very job, as the API server knows them now.

    Those that the cache has known as the job's are its own, whatever was edited since.
    """
    return (await _look_for_pods(doors, names))[0]


async def _look_for_pods(doors: Doors, names: Names) -> tuple[list[Manifest], list[Manifest]]:
    """Give the pods of this job, and those that only their owner says not to be its."""
    selector = f"{labels.CONTROLLER_UID}={names.uid}"
    listed = (await doors.kube.list_page(PODS, selector=selector)).items
    known = {pod.uid: pod.name for pod in doors.cache.pods(names.uid)}
    for uid in known.keys() - {pod["metadata"]["uid"] for pod in listed}:
        found = await doors.kube.get(PODS, known[uid])
        if found is not None and found["metadata"]["uid"] == uid:
            listed.append(found)
    whose, mine, odd = doors.installation, list[Manifest](), list[Manifest]()
    for pod in listed:
        if pod["metadata"]["uid"] in known or not why_pod_not_of(pod, names, whose):
            mine.append(pod)
        elif is_pod_with_edited_owner(pod, names, whose):
            odd.append(pod)
    return mine, odd


async def delete_pods(doors: Doors, pods: list[Manifest]) -> None:
    """Ask for the deletion of pods that nobody has asked it for."""
    for pod in pods:
        metadata = pod["metadata"]
        if not metadata.get("deletionTimestamp"):
            await doors.kube.delete(PODS, metadata["name"], uid=metadata["uid"])


async def clear_pods(doors: Doors, names: Names) -> Removal:
    """Delete the pods of this job and list again. Raises Unavailable while one is there.

    Raises NotOurs where one stands that seems to be the job's and has another owner.
    """
    pods, odd = await _look_for_pods(doors, names)
    asked_at = doors.clock() if pods else None
    if pods:
        await delete_pods(doors, pods)
        pods, odd = await _look_for_pods(doors, names)
    for pod in pods:
        metadata = pod["metadata"]
        held = ", ".join(metadata.get("finalizers") or ("nothing",))
        raise Unavailable(f"Pod {metadata['name']} is still there, held by {held}")
    for pod in odd:
        why = why_pod_not_of(pod, names, doors.installation)
        raise NotOurs(f"Pod {pod['metadata']['name']} carries the job's labels, but {why}")
    return Removal(
        resource=f"pods/{names.base}", removed_at=asked_at, proven_absent_at=doors.clock()
    )


async def remove_bucket(doors: Doors, name: str, owner: Owner, turn: Turn) -> Removal:
    """Empty and delete a bucket of this job; `turn` waits for its turn or raises NotYet.

    Raises Undeletable where a person must act.
    """
    if await doors.storage.empty_bucket(name, owner=owner):
        await turn()  # emptying takes time and needs none
    with minding_the_rate(doors):
        removal = await doors.storage.delete_bucket(name, owner=owner)
    was_there = removal.objects is not None
    return removal if was_there else replace(removal, removed_at=None)
