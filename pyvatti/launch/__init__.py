"""The launch request of the backend: exactly what is accepted, and what is said of the rest.

Pure. No resource names, no HTTP answers, and never a value of a request inside an error.
"""

from pyvatti.launch.reading import parse_launch
from pyvatti.launch.request import EXAMPLE, LaunchRequest, fingerprint_of

__all__ = ["EXAMPLE", "LaunchRequest", "fingerprint_of", "parse_launch"]
