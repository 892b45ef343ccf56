"""The fixture `kubectl`: a plug-in for tests that run the real kubectl on the stand-in cluster.

A module asks for it by `pytest_plugins = ("kubectl_fixtures",)`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kube_cluster import Sandbox
from kubectl_calls import Kubectl


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with Sandbox() as sandbox:
        yield Kubectl(sandbox, tmp_path)
