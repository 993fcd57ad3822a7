"""The wiring: a lab from its file, for async programs, for scripts and notebooks, and as a program of its own."""

from duodaq.app._alarms_handle import AlarmsHandle
from duodaq.app._client import LabClient, connect, in_lab, open_lab
from duodaq.app._control import Client, ControlChange, Holder, acting, acting_client
from duodaq.app._handles import AxisHandle, Control, DriverProxy, InstrumentHandle
from duodaq.app._host import LabHost
from duodaq.app._lab import Lab
from duodaq.app._panel import panel_of
from duodaq.app._preset_rules import Row
from duodaq.app._presets_handle import PresetDiff, PresetsHandle
from duodaq.app._reading import Reading
from duodaq.app._samples import exposition, samples_of
from duodaq.app._service import LabService
from duodaq.app._stopping import stop_all_of
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
]
