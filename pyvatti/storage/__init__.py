"""The door to Google Cloud Storage: buckets made whole, emptied and removed, with a turn for each.

No Kubernetes, no job states, no decision which bucket goes when.
"""

from pyvatti.storage.connection import Patience
from pyvatti.storage.door import Storage
from pyvatti.storage.limiter import BucketLimiter
from pyvatti.storage.protection import Purpose
from pyvatti.storage.reading import BucketInfo

__all__ = ["BucketInfo", "BucketLimiter", "Patience", "Purpose", "Storage"]
