"""Whether a request was meant for this service, and not made by a page of another site.

Looks at Host, Origin, Sec-Fetch-Site and Content-Length alone; who may call is `access`.
"""

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pyvatti.api.middleware import PROBES
from pyvatti.api.problems import problem
from pyvatti.settings import Settings

LONGEST_LENGTH = 20  # digits
SERVICE = "hattivatti"  # by which the backend calls
HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
OWN_SITE = frozenset({"same-origin", "none"})  # none: a person, not a page

Refusal = tuple[int, str]


class Addressee:
    """Refuses requests with a doubtful Host, without tokens also those for or from other sites.

    Without tokens every page that a browser inside the network shows could otherwise launch jobs,
    or read them under a name of its own that it lets point here (DNS rebinding). An IP address
    cannot be made to point elsewhere, so addresses are accepted: of the pod, the Service, loopback.
    Probes are answered under any name.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._is_open = settings.api_auth == "none"
        self._hosts = own_hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 403 or 421, or pass the request on."""
        refusal = None
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            refusal = malformed(headers, scope["http_version"])
            if refusal is None and self._is_open and scope["path"] not in PROBES:
                refusal = misdirected(headers, self._hosts) or foreign_page(headers)
        if refusal is None:
            return await self._app(scope, receive, send)
        status, detail = refusal
        answer = problem(status, detail, {"Connection": "close"} if status == 400 else None)
        return await answer(scope, receive, send)


def own_hosts(settings: Settings) -> frozenset[str]:
    """Give the names the service may be called by; one without a dot is that of a Service."""
    allowed = settings.allowed_hosts.lower().replace(",", " ").split()
    names = {SERVICE, settings.instance, *allowed}
    home = settings.namespace
    inside = ("", f".{home}", f".{home}.svc", f".{home}.svc.cluster.local")
    services = {name + suffix for name in names if "." not in name for suffix in inside}
    return frozenset({"localhost", *names, *services})


def malformed(headers: Headers, version: str) -> Refusal | None:
    """Refuse what RFC 9112 demands to refuse: no Host, two or a crooked one, an absurd length."""
    hosts = headers.getlist("host")
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return 400, "exactly one Host header is needed"
    if hosts and not HOST.fullmatch(hosts[0]):
        return 400, "the Host header is not valid"
    if len(headers.get("content-length", "")) > LONGEST_LENGTH:
        return 400, "the Content-Length header is not valid"
    return None


def misdirected(headers: Headers, own: frozenset[str]) -> Refusal | None:
    """Refuse a name that is not ours."""
    match = HOST.fullmatch(headers.get("host", ""))
    name = match["name"].lower().rstrip(".") if match else ""
    if not name or name in own or _is_address(name):
        return None
    return 421, "this host name is not served; see ALLOWED_HOSTS"


def foreign_page(headers: Headers) -> Refusal | None:
    """Refuse what a browser sends for a page of another site."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    host = headers.get("host", "").lower()
    is_ours = origin is None or origin.lower().partition("://")[2] == host
    return None if is_ours and site in OWN_SITE else (403, "pages of other sites may not call")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
