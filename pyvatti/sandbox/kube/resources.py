"""The resources the stand-in serves, as the API server's discovery describes them.

No behaviour: what may be done with an object is in the modules beside this one.
"""

from dataclasses import dataclass

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource. `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1` or `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """The kind in lower case."""
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        """`JobList` for `Job`."""
        return f"{self.kind}List"


PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    short_names=("po",),
    categories=("all",),
    subresources=("status", "log", "eviction"),
)
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",))
# Events of both groups are one set of objects, kept in their core/v1 form.
EVENTS = Resource("", "v1", "events", "Event", short_names=("ev",))
EVENTS_V1 = Resource("events.k8s.io", "v1", "events", "Event", short_names=("ev",))
SERVICEACCOUNTS = Resource(
    "", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",), subresources=("token",)
)
RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", short_names=("quota",))
NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    namespaced=False,
    short_names=("ns",),
    subresources=("status", "finalize"),
    verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
)
NODES = Resource(
    "", "v1", "nodes", "Node", namespaced=False, short_names=("no",), subresources=("status",)
)
JOBS = Resource("batch", "v1", "jobs", "Job", categories=("all",), subresources=("status",))
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
# What a chart brings besides: checked and kept, so that Helm can install it; nothing acts on them.
DEPLOYMENTS = Resource(
    "apps",
    "v1",
    "deployments",
    "Deployment",
    short_names=("deploy",),
    categories=("all",),
    subresources=("status",),
)
SERVICES = Resource(
    "",
    "v1",
    "services",
    "Service",
    short_names=("svc",),
    categories=("all",),
    subresources=("status",),
)
LIMITRANGES = Resource("", "v1", "limitranges", "LimitRange", short_names=("limits",))
INGRESSES = Resource(
    "networking.k8s.io",
    "v1",
    "ingresses",
    "Ingress",
    short_names=("ing",),
    subresources=("status",),
)
NETWORKPOLICIES = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",)
)
DISRUPTIONBUDGETS = Resource(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    short_names=("pdb",),
    subresources=("status",),
)

RESOURCES = (
    PODS, SECRETS, CONFIGMAPS, EVENTS, SERVICEACCOUNTS, RESOURCEQUOTAS, NAMESPACES, NODES,
    SERVICES, LIMITRANGES, DEPLOYMENTS, JOBS, EVENTS_V1, LEASES, ROLES, ROLEBINDINGS,
    INGRESSES, NETWORKPOLICIES, DISRUPTIONBUDGETS,
)  # fmt: skip

BY_PATH = {(item.group, item.version, item.plural): item for item in RESOURCES}
BY_KIND = {(item.api_version, item.kind): item for item in RESOURCES}
