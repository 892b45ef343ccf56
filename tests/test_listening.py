"""The address the service listens on: one family, or both where it is `::`."""

import socket

import pytest
from patience import PATIENCE

from pyvatti.api.connections import listen
from pyvatti.errors import ConfigurationError


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


HAS_IPV6 = has_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


def is_heard(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=PATIENCE):
            return True
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize(
    ("host", "heard"),
    [
        pytest.param("0.0.0.0", {"127.0.0.1"}, id="IPv4"),
        pytest.param("127.0.0.1", {"127.0.0.1"}, id="loopback"),
        pytest.param("::1", {"::1"}, id="loopback of IPv6", marks=needs_ipv6),
        # on a dual-stack cluster the kubelet probes the pod's first address, often IPv4
        pytest.param("::", {"127.0.0.1", "::1"}, id="both families", marks=needs_ipv6),
    ],
)
def test_the_service_hears_the_families_of_its_address(host, heard):
    addresses = {"127.0.0.1", "::1"} if HAS_IPV6 else {"127.0.0.1"}
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]

        assert {address for address in addresses if is_heard(address, port)} == heard


def test_an_address_that_is_not_ours_is_refused_by_its_setting():
    with pytest.raises(ConfigurationError, match="HOST, PORT: cannot listen on 2001:db8::1"):
        listen("2001:db8::1", 0)
