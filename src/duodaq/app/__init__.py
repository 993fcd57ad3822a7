"""The wiring: a lab from its file, for async programs, for scripts and notebooks, and as a program of its own.

Names are resolved when they are first used: a script that attaches to a running lab loads neither runtimes nor drivers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.app._alarms_handle import AlarmsHandle
    from duodaq.app._client import LabClient, connect, in_lab, open_lab
    from duodaq.app._control import Client, ControlChange, Holder, acting, acting_client
    from duodaq.app._handles import AxisHandle, Control, DriverProxy, InstrumentHandle
    from duodaq.app._host import LabHost
    from duodaq.app._lab import Lab
    from duodaq.app._panel import panel_of
    from duodaq.app._preset_row import Row
    from duodaq.app._presets_handle import PresetDiff, PresetsHandle
    from duodaq.app._reading import Reading
    from duodaq.app._samples import exposition, samples_of
    from duodaq.app._scan_facts import ScanStatus, ScanWish
    from duodaq.app._scans_handle import ScanHandle, ScansHandle
    from duodaq.app._service import LabService
    from duodaq.app._stopping import stop_all_of
    from duodaq.app._user import user_name
    from duodaq.link import find_lab, running_labs

__all__ = [
    "AlarmsHandle",
    "AxisHandle",
    "Client",
    "Control",
    "ControlChange",
    "DriverProxy",
    "Holder",
    "InstrumentHandle",
    "Lab",
    "LabClient",
    "LabHost",
    "LabService",
    "PresetDiff",
    "PresetsHandle",
    "Reading",
    "Row",
    "ScanHandle",
    "ScanStatus",
    "ScanWish",
    "ScansHandle",
    "acting",
    "acting_client",
    "connect",
    "exposition",
    "find_lab",
    "in_lab",
    "open_lab",
    "panel_of",
    "running_labs",
    "samples_of",
    "stop_all_of",
    "user_name",
]

_HOMES = {
    "AlarmsHandle": "duodaq.app._alarms_handle",
    "AxisHandle": "duodaq.app._handles",
    "Client": "duodaq.app._control",
    "Control": "duodaq.app._handles",
    "ControlChange": "duodaq.app._control",
    "DriverProxy": "duodaq.app._handles",
    "Holder": "duodaq.app._control",
    "InstrumentHandle": "duodaq.app._handles",
    "Lab": "duodaq.app._lab",
    "LabClient": "duodaq.app._client",
    "LabHost": "duodaq.app._host",
    "LabService": "duodaq.app._service",
    "PresetDiff": "duodaq.app._presets_handle",
    "PresetsHandle": "duodaq.app._presets_handle",
    "Reading": "duodaq.app._reading",
    "Row": "duodaq.app._preset_row",
    "ScanHandle": "duodaq.app._scans_handle",
    "ScanStatus": "duodaq.app._scan_facts",
    "ScanWish": "duodaq.app._scan_facts",
    "ScansHandle": "duodaq.app._scans_handle",
    "acting": "duodaq.app._control",
    "acting_client": "duodaq.app._control",
    "connect": "duodaq.app._client",
    "exposition": "duodaq.app._samples",
    "find_lab": "duodaq.link",
    "in_lab": "duodaq.app._client",
    "open_lab": "duodaq.app._client",
    "panel_of": "duodaq.app._panel",
    "running_labs": "duodaq.link",
    "samples_of": "duodaq.app._samples",
    "stop_all_of": "duodaq.app._stopping",
    "user_name": "duodaq.app._user",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
