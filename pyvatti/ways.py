"""How neighbours are reached: by which proxy, and whom their certificates may be signed by.

One reading of the environment for all doors. No requests here.
"""

import ssl
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pyvatti.errors import ConfigurationError

PORTS = {"http": 80, "https": 443}


def proxy_for(url: str) -> str | None:
    """Give the proxy the environment names for this URL, None for a direct way.

    The exceptions are those of programs in Go, for which a cluster's environment is written: this
    machine always, and networks such as 10.96.0.0/12 in NO_PROXY; ALL_PROXY means nothing.
    Raises ConfigurationError for a proxy that is none of HTTP.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        return None  # whoever asks it will say so
    proxies = getproxies()
    proxy = proxies.get(parts.scheme)
    if not host or not proxy or _is_excepted(host, port, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_usable(proxy):
        raise ConfigurationError(
            f"{parts.scheme.upper()}_PROXY: must be the address of an HTTP proxy"
        )
    return proxy


def _is_usable(proxy: str) -> bool:
    """Whether this is an address; the doors' own errors would repeat parts of its password."""
    try:
        parts = urlsplit(proxy)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_whole and parts.scheme in PORTS and proxy.isprintable() and " " not in proxy


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether this is our machine, a name or address without proxy, or in one of the networks."""
    named = [part.strip() for part in exceptions.split(",")]
    if host == "localhost" or "*" in named or proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for part in named:
        with suppress(ValueError):  # a name
            if address in ip_network(part.strip("[]"), strict=False):
                return True
    return False


def trust(context: ssl.SSLContext, authorities: str) -> ssl.SSLContext:
    """Add the authorities of a PEM file, if one is named, to those a context trusts.

    Those of companies often lack what Python 3.13 asks of an authority (see kube.credentials).
    Raises ConfigurationError.
    """
    if not authorities:
        return context
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, ValueError) as error:
        text = f"EXTRA_CA_FILE ({authorities}): must hold certificates in PEM form"
        raise ConfigurationError(text) from error
    except OSError as error:
        raise ConfigurationError(f"EXTRA_CA_FILE ({authorities}): {error.strerror}") from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
