"""The fixtures `cluster` and `real_cluster`: a plug-in for tests that talk to a cluster by HTTP.

A module asks for it by `pytest_plugins = ("kube_fixtures",)`.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from kube_access import Access
from kube_capabilities import probe
from kube_cluster import EVERYTHING, Cluster, Sandbox, connect, real_access

REMOVAL_SECONDS = 330.0  # the longest grace of a pod, and some
# Whatever the cluster's default is: what these tests run are plain pods.
LABELS = {"pod-security.kubernetes.io/enforce": "privileged"}


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
        path = f"/api/v1/namespaces/{namespace}"
        metadata = {"name": namespace, "labels": LABELS}
        made = access.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        assert made["kind"] == "Namespace", made
        capabilities: frozenset[str] = frozenset()
        try:
            capabilities = probe(access, namespace)
            yield RealCluster(access, namespace, capabilities)
        finally:
            access.call("DELETE", path)
            if "gc" in capabilities:  # where it runs, the controller of namespaces does
                gone = access.poll(path, lambda body: body.get("code") == 404, REMOVAL_SECONDS)
                assert gone, access.call("GET", path)


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
