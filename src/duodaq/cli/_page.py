"""The page beside a lab, if its parts are there; the lab never depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from duodaq.app import Lab
from duodaq.errors import PortOpenError
from duodaq.model import install_command

if TYPE_CHECKING:
    from duodaq.web import PageServer

Web = int | bool
"""Where the page is: at this TCP port; True: where the lab file says; False: nowhere."""


class LabPage:
    """The page of `lab`; what there is to know of it is given to `say`, in a sentence.

    Raises:
        ConfigError: The lab file would let strangers in without a token. Nothing was started.
    """

    def __init__(self, lab: Lab, web: Web, say: Callable[[str], None]) -> None:
        self._say = say
        self._server = None if web is False else self._made(lab, web)

    def _made(self, lab: Lab, web: Web) -> PageServer | None:
        try:
            from duodaq.web import PageServer
        except ImportError as error:
            self._say(f"There is no page without {error.name}: {install_command('fastapi')}")
            return None
        here = lab.definition.web
        return PageServer(lab, here if isinstance(web, bool) else replace(here, port=web))

    async def start(self) -> None:
        """Begin to serve it, and say where; or why not."""
        if self._server is None:
            return
        try:
            await self._server.start()
        except PortOpenError as error:
            self._server = None
            self._say(str(error))
        else:
            self._say(f"Its page is at {self._server.address}")

    async def aclose(self) -> None:
        """Serve it no longer. Idempotent."""
        if self._server is not None:
            await self._server.aclose()
