"""PURE but for reading template files: a launch and the settings, rendered into Kubernetes objects.

No calls to a cluster and no clock.
"""

from pyvatti.jobs import names_for, run_name
from pyvatti.manifests.rendering import REQUEST, Renderer, redact

__all__ = ["REQUEST", "Renderer", "names_for", "redact", "run_name"]
