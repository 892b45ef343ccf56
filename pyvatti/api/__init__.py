"""The HTTP face: routes, authentication, the one table from our errors to status codes.

No decisions about jobs: those are the lifecycle's and the policy's.
"""

from pyvatti.api.application import make_api
from pyvatti.api.service import Service

__all__ = ["Service", "make_api"]
