"""Every way to get a port of a lab file wrong has one clear sentence; see test_config_sentences for the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

VISA = 'visa = "TCPIP0::127.0.0.1::5025::SOCKET"'

# what is replaced · by what · what is said, after the file's name
MISTAKES: dict[str, tuple[str, str, str]] = {
    "port with nothing behind it": (
        f"{VISA}\n",
        "",
        "5: ports.dmm: says nowhere what it is connected to; write serial = "
        '{ path = "/dev/ttyUSB0", baud = 9600 } or tcp = "host:port"',
    ),
    "port with two lines": (
        VISA,
        f'tcp = "a:1"\n{VISA}',
        "5: ports.dmm: has tcp and visa, and a port is one line; keep one of them",
    ),
    "two ports with one line": (
        VISA,
        'serial = { path = "/dev/ttyUSB0" }',
        "5: ports.dmm: is the same line as ports.stage (/dev/ttyUSB0). "
        'Keep one of the two, and let both instruments say port = "stage"',
    ),
    "serial path and usb": (
        "rtscts = true",
        'usb = "0403:6001"',
        '2: ports.stage.serial: needs either path = "/dev/ttyUSB0" or usb = "0403:6001:SERIAL", and not both',
    ),
    "usb that is none": (
        'path = "/dev/ttyUSB0"',
        'usb = "FTDI"',
        '2: ports.stage.serial: usb = "FTDI" is not vendor:product[:serial], such as "0403:6001:A50285BI"',
    ),
    "a socket for a path": (
        "rtscts = true",
        'location = "1-2"',
        '2: ports.stage.serial: location goes with usb = "vendor:product"; a path needs none',
    ),
    "a socket that is none": (
        'path = "/dev/ttyUSB0"',
        'usb = "0403:6001", location = "left"',
        '2: ports.stage.serial.location: "left" is no USB socket, such as "1-2.3" (`duodaq check` shows those in use)',
    ),
    "tcp without a port number": (
        VISA,
        'tcp = "dmm"',
        '6: ports.dmm.tcp: "dmm" is not "host:port", such as "192.168.1.20:5025"',
    ),
    "visa that is none": (
        VISA,
        'visa = "GBIP0::3::INSTR"',
        '6: ports.dmm.visa: "GBIP0::3::INSTR" is no VISA resource name, such as '
        '"TCPIP0::192.168.1.20::hislip0::INSTR", "GPIB0::9::INSTR" or "USB0::0x0957::0x1F01::MY12345678::INSTR"',
    ),
    "visa with another key": (
        VISA,
        'visa = { resource = "GPIB0::3::INSTR", lib = "@py" }',
        '6: ports.dmm.visa.lib: unknown key. Did you mean "library"? The keys here: attributes, library, resource',
    ),
    "visa without a resource": (
        VISA,
        'visa = { library = "@py" }',
        "6: ports.dmm.visa.resource: is required, and missing. "
        'Write for example resource = "GPIB0::9::INSTR", the name of a VISA resource',
    ),
    "visa with a number for a library": (
        VISA,
        'visa = { resource = "GPIB0::3::INSTR", library = 3 }',
        "6: ports.dmm.visa.library: must be a string, not the number 3",
    ),
    "visa with a list of attributes": (
        VISA,
        'visa = { resource = "GPIB0::3::INSTR", attributes = [] }',
        "6: ports.dmm.visa.attributes: must be a table, not the list []",
    ),
    "visa on a serial port": (
        VISA,
        'visa = "ASRL/dev/ttyUSB1::INSTR"',
        '6: ports.dmm.visa: "ASRL/dev/ttyUSB1::INSTR" needs no VISA library: write '
        'serial = { path = "/dev/ttyUSB1", baud = 9600 }; or, to use one all the same, '
        'visa = { resource = "ASRL/dev/ttyUSB1::INSTR", library = "@ivi" }',
    ),
    "virtual port where nobody knows the end of an exchange": (
        'codec = "scpi"',
        'virtual = { pty = "run/dmm" }',
        "7: ports.dmm.virtual: needs to know where an exchange ends, and this port has neither codec nor idle_ms. "
        "Name the codec, or write idle_ms = 20: the silence, in milliseconds, that ends an exchange",
    ),
    "virtual port without a way in": (
        VISA,
        f"{VISA}\nvirtual = {{ clients = 3 }}",
        '7: ports.dmm.virtual: needs pty = "run/stage" (a device that programs open), tcp = 5030, or both',
    ),
    "virtual tcp port that is none": (
        VISA,
        f"{VISA}\nvirtual = {{ tcp = 70000 }}",
        "7: ports.dmm.virtual.tcp: must be a TCP port between 1 and 65535, not 70000",
    ),
    "virtual tcp port without a host": (
        VISA,
        f'{VISA}\nvirtual = {{ tcp = "5030" }}',
        '7: ports.dmm.virtual.tcp: "5030" is not "host:port", such as "192.168.1.20:5025"',
    ),
    "virtual pty without a name": (
        VISA,
        f'{VISA}\nvirtual = {{ pty = "" }}',
        '7: ports.dmm.virtual.pty: must name the device that programs open, such as pty = "run/stage"',
    ),
    "unknown key of a virtual port": (
        VISA,
        f'{VISA}\nvirtual = {{ pyt = "run/dmm" }}',
        '7: ports.dmm.virtual.pyt: unknown key. Did you mean "pty"? The keys here: clients, pty, stall, tcp',
    ),
    "virtual port where the port itself is": (
        VISA,
        f"{VISA}\nvirtual = {{ tcp = 5025 }}",
        "7: ports.dmm.virtual.tcp: 127.0.0.1:5025 is taken by ports.dmm itself. Choose a place of its own",
    ),
    "unknown codec": (
        '"esp300"',
        '"esp30"',
        '3: ports.stage.codec: there is no codec "esp30". Did you mean "esp300"? '
        "The codecs: ell14, esp300, maitai, newport1830c, scpi; without one, leave the key out and set idle_ms",
    ),
    "codec that the actor does not speak": (
        '"esp300"',
        '"scpi"',
        '26: instruments.stage.port: "duodaq:Esp300" speaks "esp300", and ports.stage has the codec "scpi". '
        'Write codec = "esp300" in [ports.stage]',
    ),
    "no codec where the actor needs one": (
        'codec = "esp300"\n',
        "",
        '25: instruments.stage.port: "duodaq:Esp300" speaks "esp300", and ports.stage has no codec. '
        'Write codec = "esp300" in [ports.stage]',
    ),
    "missing port": (
        'port = "dmm"',
        'port = "dm"',
        '12: instruments.dmm.port: there is no port "dm". Did you mean "dmm"? The ports here: dmm, stage; '
        "a new one begins with [ports.dm]",
    ),
    "no port where the actor needs one": (
        'port = "stage"\n',
        "",
        '23: instruments.stage.port: "duodaq:Esp300" needs a port, and has none. '
        "Write port = … (the ports here: stage, dmm)",
    ),
    "device that a port owns": (
        "/dev/ttyUSB3",
        "/dev/ttyUSB0",
        "20: instruments.chopper.args.device: /dev/ttyUSB0 belongs to ports.stage, and only one program part may open "
        'it. Write port = "stage" and leave it out of args, or remove that port',
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_has_one_clear_sentence(mistake: str, sentence: Callable[[str, str], str]) -> None:
    right, wrong, said = MISTAKES[mistake]
    assert sentence(right, wrong) == said
