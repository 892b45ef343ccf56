"""GET of pods/log.

Only reads; what containers print is appended by the kubelet.
"""

from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from pyvatti.sandbox.kube.calls import Call
from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.logs import PodLogs
from pyvatti.sandbox.kube.resources import PODS
from pyvatti.sandbox.kube.store import Store

Body = dict[str, Any]

# The kubelet's words for what a container waits for, where they are not the reason itself.
IMAGE_TROUBLE = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


async def serve_log(
    store: Store, logs: PodLogs, request: web.Request, call: Call
) -> web.StreamResponse:
    """Stream a container's log. Raises ApiError 400 (container not started), 404."""
    pod = store.get(PODS, call.namespace, call.name)
    container = _container(pod, call.query.get("container", ""))
    _check_started(pod, container)
    answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await answer.prepare(request)
    limit = call.number("limitBytes")
    lines = logs.stream(
        pod["metadata"]["uid"],
        container,
        follow=call.flag("follow"),
        tail_lines=call.number("tailLines"),
        timestamps=call.flag("timestamps"),
        since=_since(store, call),
    )
    async for chunk in lines:
        part = chunk if limit is None else chunk[:limit]
        await answer.write(part)
        if limit is not None:
            limit -= len(part)
            if limit <= 0:
                break
    await answer.write_eof()
    return answer


def _since(store: Store, call: Call) -> datetime | None:
    seconds, moment = call.number("sinceSeconds"), call.query.get("sinceTime")
    if seconds is not None:
        return store.now() - timedelta(seconds=seconds)
    return datetime.fromisoformat(moment) if moment else None


def _container(pod: Body, wanted: str) -> str:
    name, spec = pod["metadata"]["name"], pod["spec"]
    main = [item["name"] for item in spec["containers"]]
    init = [item["name"] for item in spec.get("initContainers", [])]
    if wanted and wanted not in main + init:
        raise ApiError(400, f"container {wanted} is not valid for pod {name}")
    if not wanted and len(main) > 1:
        also = f" or one of the init containers: [{' '.join(init)}]" if init else ""
        raise ApiError(
            400,
            f"a container name must be specified for pod {name}, choose one of:"
            f" [{' '.join(main)}]{also}",
        )
    return wanted or main[0]


def _check_started(pod: Body, container: str) -> None:
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    state: Body = next(
        (item.get("state", {}) for item in statuses if item["name"] == container), {}
    )
    if "running" in state or "terminated" in state:
        return
    reason = state.get("waiting", {}).get("reason", "")
    reason = IMAGE_TROUBLE.get(reason, reason)
    raise ApiError(
        400,
        f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}',
    )
