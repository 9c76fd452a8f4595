"""Where a request may be redirected: each hop's encryption, address and headers."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from inference_models.download.limits import Transient
from inference_models.errors import DownloadFailed, shown_url

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given out
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Redirects:
    """The rules for one source: `check` sees each request before it is sent.

    The source's own host may be anywhere, since the user named it. What it redirects to
    is resolved here, and the connection goes to an address that was looked at: a name
    that has another address a moment later gains nothing by it. A proxy resolves names
    itself, so there only addresses written as such are refused.
    """

    def __init__(self, origin: Any, headers: Mapping[str, str]) -> None:
        self._origin = origin
        self._headers = headers
        self._addresses: dict[str, list[str]] = {}
        self.connection: socket.socket | None = None
        """The last that was made."""
        self.has_another_address = False
        """Whether the host that was not reached has an address that was not tried."""

    def check(self, request: Any) -> None:
        """Refuse a hop that leaves encryption or the public network.

        The source's headers are for its first server alone, and taken off for others.
        """
        url, origin = request.url, self._origin
        inside = origin.host in LOOPBACK and url.host in LOOPBACK
        if url.scheme != "https" and not (inside and origin.scheme == "http"):
            raise DownloadFailed(
                f"{url.scheme}://{url.host:.200} is not encrypted; give an https source"
            )
        checked = None
        if url.host != origin.host and not inside:
            if _is_local_name(url.host):
                raise self._refusal(url.host)
            checked = url.raw_host.decode("ascii")
        if (url.scheme, url.netloc) != (origin.scheme, origin.netloc):
            for name in self._headers:
                request.headers.pop(name, None)
        request.extensions["trace"] = lambda event, info: self._watch(
            checked, event, info
        )

    def _watch(self, checked: str | None, event: str, info: dict[str, Any]) -> None:
        """Follow a hop's connection; `checked` is its host, if that must be public."""
        _, _, step = event.partition(".")
        if step == "connect_tcp.started" and checked and checked == info["host"]:
            # httpcore connects with the very arguments that it shows here.
            info["host"] = self._address(checked, info["port"])
        elif step == "connect_tcp.failed" and checked in self._addresses:
            del self._addresses[checked][0]
            self.has_another_address = bool(self._addresses[checked])
        elif step in ("connect_tcp.complete", "start_tls.complete"):
            stream = info["return_value"]
            self.connection = stream.get_extra_info("socket")
            if checked in self._addresses:
                self._check_peer(checked, stream)

    def _address(self, host: str, port: int) -> str:
        if not self._addresses.get(host):
            found = _resolved(host, port)
            if not all(map(is_public, found)):
                raise self._refusal(host)
            self._addresses[host] = found
        return self._addresses[host][0]

    def _check_peer(self, host: str, stream: Any) -> None:
        """Refuse a private address, should httpcore not take the one it was given."""
        if not is_public(stream.get_extra_info("server_addr")[0]):
            stream.close()
            raise self._refusal(host)

    def _refusal(self, host: str) -> DownloadFailed:
        return DownloadFailed(
            f"{shown_url(str(self._origin))} redirects to {host:.200}, which is in a "
            "private network; name a server there in the source itself"
        )


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Transient(f"{host:.200} could not be resolved: {error}") from error
    return [str(address[0]) for *_, address in found]


def _is_local_name(host: str) -> bool:
    """Whether a host is written as an address, in any form, that is not public."""
    if f".{host.rstrip('.')}".endswith(".localhost"):
        return True
    with contextlib.suppress(OSError, ValueError):
        # Also "127.1" and "0x7f000001", which systems take for addresses.
        host = socket.inet_ntoa(socket.inet_aton(host))
    try:
        return not is_public(host.strip("[]"))
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an address is one of the public network, for a single machine there."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not (found.is_multicast or found.is_reserved)
    inner = found.ipv4_mapped or found.sixtofour
    if found in _NAT64:
        inner = ipaddress.IPv4Address(found.packed[-4:])
    return is_public(str(inner)) if inner else found.is_global and found in _UNICAST
