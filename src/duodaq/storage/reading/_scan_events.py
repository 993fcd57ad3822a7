"""What the events of a recorded scan are called: for whoever writes them, too."""

SCAN_DOCUMENT = "document"
"""The name of events that are documents: ``{"kind": "start", "run": its uid, "doc": the document}``."""

SCAN_CONTINUED = "scan_continued"
"""The name of the event that a scan goes on here: ``{"run": its uid, "earlier": [directories with the rest]}``."""
