"""How Google's libraries reach their servers: as all doors do, see `ways`.

No bucket and no answer here.
"""

import ssl
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from pyvatti.ways import proxy_for, trust


class Adapter(HTTPAdapter):
    """Goes by the proxy of all doors and trusts further authorities beside its usual bundle."""

    def __init__(self, authorities: str, **more: Any) -> None:
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the usual bundle is added by each call
        self._more: dict[str, Any] = (
            {"ssl_context": trust(bare, authorities)} if authorities else {}
        )
        super().__init__(**more)

    def init_poolmanager(self, connections: int, maxsize: int, *args: Any, **more: Any) -> None:
        """Make the connections of the direct way."""
        super().init_poolmanager(connections, maxsize, *args, **{**more, **self._more})

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Give the connections through a proxy."""
        return super().proxy_manager_for(proxy, **more, **self._more)

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        """Send by the way of all doors, whatever the session read from the environment."""
        proxy = proxy_for(request.url)
        more["proxies"] = {urlsplit(request.url).scheme: proxy} if proxy else {}
        return super().send(request, *args, **more)
