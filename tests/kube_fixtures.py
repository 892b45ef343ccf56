"""The fixtures `cluster` and `real_cluster`: a plug-in for tests that talk to a cluster by HTTP.

A module asks for it by `pytest_plugins = ("kube_fixtures",)`.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from kube_access import Access
from kube_cluster import ABSENT_AFTER, EVERYTHING, Cluster, Sandbox, connect, real_access


@dataclass(frozen=True, slots=True)
class RealCluster:
    """A real cluster with the namespace made for this run."""

    access: Access
    namespace: str
    capabilities: frozenset[str]


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[RealCluster | None]:
    """The real cluster of this run, None for the sandbox."""
    with real_access() as access:
        if access is None:
            yield None
            return
        namespace = f"pyvatti-test-{uuid.uuid4().hex[:8]}"
        made = access.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        assert made["kind"] == "Namespace", made
        try:
            yield RealCluster(access, namespace, _probe(access, namespace))
        finally:
            access.call("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest, real_cluster: RealCluster | None
) -> AsyncIterator[Cluster]:
    """A client of the cluster; skips a test that needs what the cluster lacks."""
    capabilities = real_cluster.capabilities if real_cluster else EVERYTHING
    wanted = {name for mark in request.node.iter_markers("needs") for name in mark.args}
    if not wanted <= capabilities:
        pytest.skip(f"the cluster has no {', '.join(sorted(wanted - capabilities))}")
    async with AsyncExitStack() as stack:
        if real_cluster is None:
            sandbox = await stack.enter_async_context(Sandbox())
            sandbox.kube.store.compact()  # as any cluster older than five minutes
            namespace = sandbox.kube.namespace
            access = Access(
                sandbox.kube.url,
                {"Authorization": f"Bearer {sandbox.kube.token}"},
                sandbox.kube.ssl_context(),
                sandbox.kube.ssl_context(),
            )
        else:
            access, namespace = real_cluster.access, real_cluster.namespace
        client = await stack.enter_async_context(connect(access, namespace, capabilities))
        yield client
        await client.clean()


def _probe(access: Access, namespace: str) -> frozenset[str]:
    """Find out which controllers run: by what they do, since no API names them."""
    found = set()
    if access.call("GET", "/api/v1/nodes")["items"]:
        found.add("kubelet")
    job = {
        "metadata": {"name": "probe"},
        "spec": {
            "suspend": True,
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
            },
        },
    }
    base = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    access.call("POST", base, job)
    if access.poll(
        f"{base}/probe", lambda body: body.get("status", {}).get("conditions"), ABSENT_AFTER
    ):
        found.add("job-controller")
    access.call("DELETE", f"{base}/probe?propagationPolicy=Background")
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "none", "uid": str(uuid.uuid4())}
    base = f"/api/v1/namespaces/{namespace}/configmaps"
    access.call("POST", base, {"metadata": {"name": "probe", "ownerReferences": [owner]}})
    if access.poll(f"{base}/probe", lambda body: body.get("code") == 404, ABSENT_AFTER):
        found.add("gc")
    return frozenset(found)
