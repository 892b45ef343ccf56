"""PURE but for reading template files: a launch and the settings, rendered into Kubernetes objects.

No calls to a cluster and no clock.
"""

from pyvatti.manifests.nextflow import doubts
from pyvatti.manifests.rendering import REQUEST, RUN_NAME_KEY, Renderer, redact

__all__ = ["REQUEST", "RUN_NAME_KEY", "Renderer", "doubts", "redact"]
