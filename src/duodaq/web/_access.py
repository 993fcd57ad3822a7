"""Who may come in and what he may do: pure decisions about names, origins and tokens.

Rules that whoever edits this must keep:

* A page of another site must not be able to act: where a browser says from where a request comes, that must be here.
* A name that leads here by somebody's trick (DNS rebinding) is not ours: only addresses and names known here are.
* Without a token everybody may do everything, so without one nobody from outside this machine is let in.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from enum import IntEnum
from urllib.parse import urlsplit

from duodaq.errors import ConfigError
from duodaq.model import WebDefinition
from duodaq.web._refusal import Refusal

FOREIGN = ("cross-site", "same-site")
"""What a browser says in ``Sec-Fetch-Site`` of requests from pages that are not this server's."""


class Role(IntEnum):
    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2


class Access:
    """The rules of one server.

    Raises:
        ConfigError: It would let strangers in: other machines may reach it, and there is no token.
    """

    def __init__(self, web: WebDefinition, lab: str) -> None:
        if web.is_open and not (web.is_local and not web.names):
            raise ConfigError(
                f"host {web.host} lets other machines in, and there is no token",
                key="web.token",
                remedy='Write token = "…" of 16 characters or more, or leave host out',
            )
        self._web = web
        self._lab = lab
        self.cookie_name = f"duodaq-{hashlib.sha256(lab.encode()).hexdigest()[:8]}"
        self._tokens = {
            Role.OPERATOR: web.token,
            Role.VIEWER: web.viewer_token,
        }
        own = {"localhost", web.host.lower(), *web.names}
        self._names = own if web.is_local else own | {socket.gethostname().lower()}

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked for a token."""
        return self._web.is_open

    def may_arm(self, instrument: str) -> bool:
        """Whether the lab file lets people arm `instrument` from here."""
        return instrument in self._web.arming

    def check_name(self, host: str | None) -> None:
        """Refuse a request for a name that is not this machine's.

        Raises:
            Refusal: 403.
        """
        name = _name_of(host)
        if name is None or not self._is_ours(name):
            detail = (
                f"this lab is not served under the name {name or '(none)'}; use its address, or add it to web.names"
            )
            raise Refusal(403, "WrongName", detail)

    def check_origin(self, origin: str | None, host: str | None, site: str | None, *, linked: bool) -> None:
        """Refuse what a page of another site sends. Programs, which say no origin, are not meant.

        Args:
            origin: The header ``Origin``.
            host: The header ``Host``.
            site: The header ``Sec-Fetch-Site``.
            linked: Whether it is a page to which other sites may link; what acts, or asks instruments, is none.

        Raises:
            Refusal: 403.
        """
        foreign = origin is not None and _place_of(origin) != (host or "").lower()
        if foreign or (site in FOREIGN and (not linked or origin is not None)):
            raise Refusal(403, "CrossSite", f"requests from other pages ({origin or site}) are not answered")

    def role_of(self, token: str | None, cookie: str | None) -> Role:
        """What somebody with this token, or this cookie of an earlier one, may do."""
        if self.is_open:
            return Role.OPERATOR
        for role, known in self._tokens.items():
            if known is None:
                continue
            if token is not None and hmac.compare_digest(token.encode(), known.encode()):
                return role
            if cookie is not None and hmac.compare_digest(cookie.encode(), self.cookie_of(role).encode()):
                return role
        return Role.NOBODY

    def cookie_of(self, role: Role) -> str:
        """What a browser keeps instead of the token: good for this lab, and for as long as the token is."""
        key = (self._tokens[role] or "").encode()
        return hmac.new(key, f"{self._lab}/{role.name}".encode(), hashlib.sha256).hexdigest()

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._web.is_local  # an address cannot be rebound


def _place_of(origin: str) -> str | None:
    """Name and port of an origin; None if it is malformed, and so nobody's."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name_of(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None
