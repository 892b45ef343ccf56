"""A stand-in Kubernetes cluster: API server, garbage collector, Job controller and kubelet.

Nothing of pyvatti's own conventions is known here.
"""

from pyvatti.sandbox.kube.standin import KubeStandIn

__all__ = ["KubeStandIn"]
