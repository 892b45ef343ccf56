"""Where the API server is and who we are, read again before a token can be too old.

No requests to the API server here.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
import yaml

from pyvatti.errors import ConfigurationError, trim
from pyvatti.kube.generated import ConfigException, Configuration, config

log = structlog.get_logger(__name__)

TOKEN = "BearerToken"  # noqa: S105 - the client's name for the header, no secret
PLUGIN_SECONDS = 30.0
EXPIRY_MARGIN = timedelta(minutes=2)

_READ_ERRORS = (
    ConfigException,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    yaml.YAMLError,
)


class Credentials:
    """A kubeconfig, or with an empty path the pod's service account.

    `refresh_seconds` is how often files and exec plugins are looked at again: kubelet rotates a
    service account token in place, and plugins hand out short-lived ones. `in_cluster` goes to
    the client's loader (`token_filename`, `cert_filename`, `environ`).
    """

    def __init__(
        self, kubeconfig: str = "", *, refresh_seconds: float = 60.0, **in_cluster: Any
    ) -> None:
        self._kubeconfig = kubeconfig
        self._refresh_seconds = refresh_seconds
        self._in_cluster = in_cluster
        self._loader: Any = None
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def load(self) -> Any:
        """Build the client's configuration. Raises ConfigurationError."""
        configuration = await self._read()
        configuration.refresh_api_key_hook = self._refresh
        # Python 3.13 refuses certificates that Go, Python 3.12 and so every other client of older
        # clusters take: authorities without a key identifier. Chain and name are still verified.
        configuration.disable_strict_ssl_verification = True
        return configuration

    async def renew(self, configuration: Any) -> bool:
        """Read the credentials now, after a 401; tell whether the token is another one."""
        before = configuration.api_key.get(TOKEN)
        async with self._lock:
            if configuration.api_key.get(TOKEN) == before:
                await self._update(configuration)
        return bool(configuration.api_key.get(TOKEN) != before)

    async def _refresh(self, configuration: Any) -> None:
        """Run before each request: look again when due, one caller at a time."""
        async with self._lock:
            if time.monotonic() - self._read_at >= self._refresh_seconds and not self._is_young():
                await self._update(configuration)

    def _is_young(self) -> bool:
        """Whether an exec plugin promised that its token lives on, so that it need not run."""
        expiry = getattr(self._loader, "exec_plugin_expiry", None)
        return isinstance(expiry, datetime) and expiry - EXPIRY_MARGIN > datetime.now(UTC)

    async def _update(self, configuration: Any) -> None:
        """Take over the current token; keep the old one when it cannot be read."""
        self._read_at = time.monotonic()
        try:
            fresh = await self._read()
        except ConfigurationError as error:
            log.warning("credentials not readable", error=str(error))
            return
        if TOKEN in fresh.api_key:
            configuration.api_key[TOKEN] = fresh.api_key[TOKEN]

    async def _read(self) -> Any:
        configuration = Configuration()
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                await self._read_into(configuration)
        except _READ_ERRORS as error:
            source = self._kubeconfig or "service account"
            raise ConfigurationError(f"KUBECONFIG ({source}): {trim(str(error))}") from error
        self._read_at = time.monotonic()
        if TOKEN in configuration.api_key:
            # A token file may end in a newline, which no header may hold.
            configuration.api_key[TOKEN] = configuration.api_key[TOKEN].strip()
        return configuration

    async def _read_into(self, configuration: Any) -> None:
        if self._kubeconfig:
            self._loader = await config.load_kube_config(
                config_file=self._kubeconfig,
                client_configuration=configuration,
                persist_config=False,
            )
            return
        config.load_incluster_config(configuration, try_refresh_token=False, **self._in_cluster)
