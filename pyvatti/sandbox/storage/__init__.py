"""A stand-in for Google Cloud Storage on a loopback socket: JSON API, batches, all uploads.

Rebuilt from Google's documents; it shares no code with the client it is called by.
"""

from pyvatti.sandbox.storage.server import StorageStandIn
from pyvatti.sandbox.storage.state import Bucket, SoftDeleted, Upload, Version
from pyvatti.sandbox.storage.wire import error_form

__all__ = [
    "Bucket",
    "SoftDeleted",
    "StorageStandIn",
    "Upload",
    "Version",
    "error_form",
]
