"""The page of a lab and its HTTP API: a server beside the lab, on the lab's own loop. Needs the extra ``web``."""

from duodaq.web._server import PageServer

__all__ = ["PageServer"]
