"""The kinds of instrument that `duodaq init` writes stanzas for."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind: how its line is set up, and its stanza. `$id` stands for its name in the lab file."""

    name: str
    says: str
    serial: str
    codec: str
    stanza: str
    port_more: str = ""


_SAFE = 'safe = { shutdown = "stop", crash = "stop", stop_all = "stop" }'

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "esp300",
            "Newport ESP300 motion controller, as an actor",
            "baud = 19200, rtscts = true",
            "esp300",
            f"""\
[instruments.$id]
runtime = "v4"
driver = "duodaq:Esp300"
port = "$id"
# one line for each axis: its number, unit, and the limits that nothing may pass
axes.x = {{ number = 1, unit = "mm", limits = [0, 25] }}
{_SAFE}
""",
        ),
        Kind(
            "newport1830c",
            "Newport 1830-C power meter, as an actor",
            "baud = 9600",
            "newport1830c",
            """\
[instruments.$id]
runtime = "v4"
driver = "duodaq:Newport1830C"
port = "$id"
options = { acquire = true }        # stream from the start
""",
        ),
        Kind(
            "hp34401a",
            "HP 34401A multimeter, by PyMeasure's own driver",
            "baud = 9600",
            "scpi",
            """\
[instruments.$id]                   # unmodified PyMeasure
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "$id"
passive = true                      # reading it moves and emits nothing
deadline = { default = "5 s", reading = "30 s" }
poll.voltage = { read = "reading", unit = "V", every = "1 s" }
""",
        ),
        Kind(
            "maitai",
            "Spectra-Physics Mai Tai laser, as an actor",
            "baud = 38400, xonxoff = true",
            "maitai",
            f"""\
[instruments.$id]
runtime = "v4"
driver = "duodaq:MaiTai"
port = "$id"
{_SAFE}
""",
        ),
        Kind(
            "ell14",
            "Thorlabs Elliptec rotators on one line, as an actor",
            "baud = 9600",
            "ell14",
            f"""\
[instruments.$id]
runtime = "v4"
driver = "duodaq:Elliptec"
port = "$id"
# one line for each rotator: its address on the line, and its limits
axes.hwp = {{ number = 0, unit = "deg", limits = [0, 360] }}
{_SAFE}
""",
        ),
        Kind(
            "own",
            "a class of your own: own=./chopper.py:Chopper@/dev/ttyUSB3",
            "baud = 9600",
            "",
            """\
[instruments.$id]                   # your class gets an object like pyserial's
runtime = "v2"
driver = "$driver"
port = "$id"
# what is polled, by the name of a method (call) or an attribute (read):
# poll.rate = { call = "get_rate", unit = "Hz", every = "500 ms" }
""",
            "idle_ms = 20                        # an exchange ends with 20 ms of silence\n",
        ),
    )
}
