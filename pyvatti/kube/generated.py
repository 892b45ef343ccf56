"""The parts of kubernetes_asyncio this service uses, imported without the rest of it.

Nothing but imports here. Its packages import every model and every API, 1,300 modules: 65 MiB and
two seconds for classes that raw JSON has no use for.
"""

import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def _bare(name: str) -> ModuleType:
    """Give a package without what its `__init__` imports; its modules can be imported from it."""
    if name in sys.modules:  # somebody has imported the whole of it
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"no module named {name}", name=name)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


_bare("kubernetes_asyncio")
_client: Any = _bare("kubernetes_asyncio.client")
_bare("kubernetes_asyncio.client.models")

# What `kubernetes_asyncio.config` looks for in the package
Configuration: Any = import_module("kubernetes_asyncio.client.configuration").Configuration
ApiClient: Any = import_module("kubernetes_asyncio.client.api_client").ApiClient
ApiException: Any = import_module("kubernetes_asyncio.client.exceptions").ApiException
_client.Configuration, _client.ApiClient = Configuration, ApiClient

config: Any = import_module("kubernetes_asyncio.config")
ConfigException: Any = config.ConfigException
