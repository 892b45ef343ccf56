"""The only door to Kubernetes: raw JSON requests, informers, leader election.

No decisions about jobs here, and no errors but those of `pyvatti.errors`.
"""

from pyvatti.kube.client import (
    CONFIGMAPS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    WORKLOADS,
    Kind,
    KubeClient,
    Page,
)
from pyvatti.kube.home import Home
from pyvatti.kube.informer import Informer, WatchLimits
from pyvatti.kube.lease import Elector
from pyvatti.kube.transport import Limits

__all__ = [
    "CONFIGMAPS",
    "EVENTS",
    "JOBS",
    "LEASES",
    "NAMESPACES",
    "PODS",
    "SECRETS",
    "WORKLOADS",
    "Elector",
    "Home",
    "Informer",
    "Kind",
    "KubeClient",
    "Limits",
    "Page",
    "WatchLimits",
]
