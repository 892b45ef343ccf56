"""Which parts a real cluster has: found out by what they do, since no API names them."""

import uuid

import orjson
from kube_access import Access

ABSENT_AFTER = 20.0  # seconds without reaction prove that a controller is missing
FIRST_VERSION = "1"  # of every etcd


def probe(access: Access, namespace: str) -> frozenset[str]:
    """Give what runs there, in the words of the marker `needs`."""
    parts = {
        "compaction": _has_forgotten,
        "kubelet": _has_kubelet,
        "job-controller": _has_job_controller,
        "gc": _has_collector,
        "policies": _serves_policies,
        "kueue": _serves_kueue,
    }
    return frozenset(name for name, is_there in parts.items() if is_there(access, namespace))


def _has_forgotten(access: Access, namespace: str) -> bool:
    """Whether the first resourceVersion has expired: a cluster just made still serves it."""
    query = f"watch=true&timeoutSeconds=2&resourceVersion={FIRST_VERSION}"
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs?{query}"
    lines = access.read("GET", path).splitlines()
    return bool(lines) and orjson.loads(lines[0])["type"] == "ERROR"


def _serves_policies(access: Access, _namespace: str) -> bool:
    """Whether the API server decides by ValidatingAdmissionPolicies of version v1."""
    served = access.call("GET", "/apis/admissionregistration.k8s.io/v1").get("resources", [])
    return any(item["name"] == "validatingadmissionpolicies" for item in served)


def _serves_kueue(access: Access, _namespace: str) -> bool:
    """Whether the cluster has the API of Kueue; that it runs is taken for granted."""
    groups = access.call("GET", "/apis").get("groups", [])
    return any(item["name"] == "kueue.x-k8s.io" for item in groups)


def _has_kubelet(access: Access, _namespace: str) -> bool:
    nodes = access.call("GET", "/api/v1/nodes").get("items", [])
    found = [item for node in nodes for item in node.get("status", {}).get("conditions", [])]
    return any((item["type"], item["status"]) == ("Ready", "True") for item in found)


def _has_job_controller(access: Access, namespace: str) -> bool:
    template = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
    spec = {"suspend": True, "template": {"spec": template}}
    base = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    access.call("POST", base, {"metadata": {"name": "probe"}, "spec": spec})
    found = access.poll(
        f"{base}/probe", lambda body: body.get("status", {}).get("conditions"), ABSENT_AFTER
    )
    access.call("DELETE", f"{base}/probe?propagationPolicy=Background")
    return found


def _has_collector(access: Access, namespace: str) -> bool:
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "none", "uid": str(uuid.uuid4())}
    base = f"/api/v1/namespaces/{namespace}/configmaps"
    access.call("POST", base, {"metadata": {"name": "probe", "ownerReferences": [owner]}})
    return access.poll(f"{base}/probe", lambda body: body.get("code") == 404, ABSENT_AFTER)
