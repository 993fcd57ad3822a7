"""A VISA library for PyVISA whose devices are a script: ``"/path/of/its/log@scripted"``.

Each call is a line in the log when it begins and when it ends, with the board, so that a test sees what overlapped.
What a device does with a query is in its name; see `_reply`.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict

from pyvisa import constants, errors, highlevel, rname
from pyvisa.constants import ResourceAttribute, StatusCode
from pyvisa.util import LibraryPath

from duodaq.clock import block


class ScriptedLibrary(highlevel.VisaLibraryBase):
    @staticmethod
    def get_library_paths():
        return (LibraryPath("unset"),)

    def _init(self):
        self._numbers = itertools.count(1)
        self._names = {}
        self._waiting = defaultdict(bytes)
        self._timeouts = defaultdict(lambda: 2000)

    def _log(self, what, session, detail=""):
        name = self._names[session]
        line = f"{what} {name.partition('::')[0]} {name} {os.getpid()} {threading.get_ident()} {detail}\n"
        with open(str(self.library_path), "a") as log:
            log.write(line)

    def open_default_resource_manager(self):
        return next(self._numbers), StatusCode.success

    def open(self, session, resource_name, access_mode=None, open_timeout=0):
        if "::30::" in resource_name:
            raise errors.VisaIOError(StatusCode.error_resource_not_found)
        if "::29::" in resource_name:
            raise errors.VisaIOError(StatusCode.error_resource_busy)
        number = next(self._numbers)
        self._names[number] = resource_name
        self._log("open", number)
        return number, StatusCode.success

    def close(self, session):
        if session in self._names:
            self._log("close", session)
            if "::27::" in self._names[session]:
                block(600.0)
            del self._names[session]
        return StatusCode.success

    def disable_event(self, session, event_type, mechanism):
        return StatusCode.success

    def discard_events(self, session, event_type, mechanism):
        return StatusCode.success

    def get_attribute(self, session, attribute):
        if attribute == ResourceAttribute.timeout_value:
            return self._timeouts[session], StatusCode.success
        parsed = rname.ResourceName.from_string(self._names[session])
        known = {
            ResourceAttribute.resource_class: parsed.resource_class,
            ResourceAttribute.interface_type: parsed.interface_type_const,
            ResourceAttribute.termchar_enabled: constants.VI_FALSE,
        }
        return known[attribute], StatusCode.success

    def set_attribute(self, session, attribute, attribute_state):
        if attribute == ResourceAttribute.timeout_value:
            self._timeouts[session] = attribute_state
        return StatusCode.success

    def write(self, session, data):
        self._log("begin", session, f"write {data!r}")
        block(0.001)
        if data.startswith(b"DEAF"):
            self._log("end", session, "write: time-out")
            raise errors.VisaIOError(StatusCode.error_timeout)
        self._waiting[session] = self._reply(data)
        self._log("end", session, "write")
        return len(data), StatusCode.success

    @staticmethod
    def _reply(data):
        if data.startswith(b"DIE"):
            os._exit(7)
        if data.startswith(b"BARE?"):
            return b"no newline, END alone"
        if data.startswith(b"LINE?"):
            return b"a\nb\n"
        if data.startswith(b"TWO?"):
            return b"first\nsecond\n"
        if data.startswith(b"MANY?"):
            return b"line\n" * 8000
        if data.startswith(b"EXACT?"):
            return b"#516376" + bytes(16376) + b"\n"
        if data.startswith(b"BIG?"):
            return b"#71500000" + bytes(range(256)) * 5859 + bytes(96) + b"\n"
        return data.strip().rstrip(b"?") + b"!\n" if b"?" in data else b""

    def read(self, session, count):
        self._log("begin", session, "read")
        waiting = self._waiting[session]
        if waiting.startswith(b"HANG"):
            block(600.0)
        if waiting.startswith(b"TENTH"):
            block(0.1)
        if waiting.startswith(b"SLOW"):
            block(0.03)
        if not waiting or waiting.startswith(b"NEVER"):
            block(self._timeouts[session] / 1000)
            self._log("end", session, "read: time-out")
            raise errors.VisaIOError(StatusCode.error_timeout)
        if waiting.startswith(b"BROKEN"):
            raise errors.VisaIOError(StatusCode.error_connection_lost)
        data, self._waiting[session] = waiting[:count], waiting[count:]
        if "::28::" in self._names[session] and len(data) == count:  # a library that loses END where a read is full
            return data, StatusCode.success_max_count_read
        self._log("end", session, "read")
        return data, StatusCode.success_max_count_read if self._waiting[session] else StatusCode.success

    def clear(self, session):
        self._waiting[session] = b""
        self._log("clear", session)
        return StatusCode.success

    def read_stb(self, session):
        return 0x50, StatusCode.success


WRAPPER_CLASS = ScriptedLibrary
