"""`kubectl delete namespace` under a running job, on the sandbox's cluster or a real one.

The service runs here, with the account and the Role of the chart; a pod of busybox stands where its
pod would be, so that the cluster goes about the namespace as if pyvatti ran in it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_tools import rendered_rules
from cluster_stage import ClusterStage, cluster_stage, kubeconfig_of
from kube_cluster import Body, Cluster

pytest_plugins = ("kube_fixtures",)
pytestmark = [pytest.mark.cluster, pytest.mark.needs("job-controller", "gc", "kubelet")]

ACCOUNT = {"kind": "ServiceAccount", "name": "hattivatti"}
OWN_POD: Body = {
    "metadata": {"name": "hattivatti"},
    "spec": {
        "serviceAccountName": "hattivatti",
        "terminationGracePeriodSeconds": 600,
        "containers": [{"name": "it", "imagePullPolicy": "IfNotPresent"}],
    },
}


async def settled(cluster: Cluster) -> Cluster:
    """Make a namespace with the chart's account and rights; everything goes with it."""
    home = replace(cluster, namespace=await cluster.space())
    meta = {"metadata": {"name": "hattivatti"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hattivatti"}
    api = "rbac.authorization.k8s.io/v1"
    rules = [rule for rule in rendered_rules() if rule["resources"] != ["namespaces"]]
    rules.append(
        {
            "apiGroups": [""],
            "resources": ["namespaces"],
            "resourceNames": [home.namespace],
            "verbs": ["get"],
        }
    )
    await home.made(home.core("serviceaccounts"), meta)
    await home.made(home.path(api, "roles"), {**meta, "rules": rules})
    await home.made(
        home.path(api, "rolebindings"),
        {**meta, "roleRef": role, "subjects": [{**ACCOUNT, "namespace": home.namespace}]},
    )
    return home


async def own_pod(home: Cluster) -> Body:
    """Start what stands for the service's pod: it goes on after SIGTERM until it is ended."""
    pod: Body = {**OWN_POD, "spec": {**OWN_POD["spec"]}}
    (container,) = pod["spec"]["containers"]
    script = "trap '' TERM; while true; do sleep 1; done"
    container |= {"image": home.image, "command": ["sh", "-c", script]}
    made = await home.made(home.core("pods"), pod)
    await home.until_any(
        home.core("pods"),
        lambda body: body.get("status", {}).get("phase") == "Running",
        fieldSelector="metadata.name=hattivatti",
    )
    return made


async def kubeconfig_for(home: Cluster, folder: Path, pod: Body) -> str:
    """Write a kubeconfig with a token of the account, bound to the pod as the kubelet's are."""
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "hattivatti", "uid": pod["metadata"]["uid"]}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"boundObjectRef": bound, "expirationSeconds": 3600},
    }
    answer = await home.post(home.core("serviceaccounts", "hattivatti", "token"), request)
    assert answer.status == 201, answer.body
    path = kubeconfig_of(home, folder)
    config = yaml.safe_load(path.read_text())
    for entry in config["users"]:
        entry["user"] = {"token": answer.body["status"]["token"]}
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def delete_namespace(home: Cluster) -> None:
    await home.delete(f"/api/v1/namespaces/{home.namespace}")


async def namespace_is_gone(home: Cluster) -> bool:
    return (await home.get(f"/api/v1/namespaces/{home.namespace}")).status == 404


async def until_namespace_is_gone(home: Cluster) -> None:
    async with asyncio.timeout(120):
        while not await namespace_is_gone(home):
            await asyncio.sleep(0.1)


async def end_pod(home: Cluster) -> None:
    """Do what the kubelet does when the service's process has ended."""
    now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    await home.delete(home.core("pods", "hattivatti"), now)


@asynccontextmanager
async def running_job(
    home: Cluster, folder: Path, **changes: str
) -> AsyncIterator[tuple[ClusterStage, AsyncExitStack]]:
    """Run the service with one running job; closing the stack is its SIGTERM."""
    async with AsyncExitStack() as service:
        on = await service.enter_async_context(
            cluster_stage(home, folder, STOP_GRACE="90", **changes)
        )
        assert (await on.launch()).status_code == 201
        await on.until_running()
        await on.run_is("RUNNING")
        await on.until(lambda view: view.get("state") == "Deployed")
        yield on, service


def reasons(on: ClusterStage) -> list[Any]:
    return [item.body.get("trace_name") for item in on.world.backend.received]


async def test_a_namespace_is_deleted_with_the_service_in_it(cluster: Cluster, tmp_path: Path):
    home = await settled(cluster)
    pod = await own_pod(home)
    kubeconfig = await kubeconfig_for(home, tmp_path, pod)
    async with running_job(home, tmp_path, KUBECONFIG=kubeconfig) as (on, service):
        storage = on.world.storage
        assert len(storage.buckets) == 2

        await delete_namespace(home)
        await service.aclose()  # the kubelet says SIGTERM; this returns when the process ends
        jobs = await home.get(home.jobs())
        await end_pod(home)
        await until_namespace_is_gone(home)

        assert on.told() == ["deployed", "failed"]
        assert "namespace" in reasons(on)[-1]
        assert list(storage.buckets) == []
        assert jobs.status == 404 or jobs.body["items"] == []


async def test_a_namespace_is_deleted_and_the_service_lives_elsewhere(
    cluster: Cluster, tmp_path: Path
):
    home = await settled(cluster)
    async with running_job(home, tmp_path) as (on, _service):
        await delete_namespace(home)  # nothing of ours is in it but the Job: the Lease goes too
        await until_namespace_is_gone(home)

        assert on.told() == ["deployed", "failed"]
        assert "namespace" in reasons(on)[-1]
        assert list(on.world.storage.buckets) == []
