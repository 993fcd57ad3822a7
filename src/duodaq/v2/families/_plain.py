"""Classes that belong to no library: a lab's own blocking code, changed in not one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from duodaq.errors import ConfigError
from duodaq.model import InstrumentDefinition
from duodaq.ports import visa_alias
from duodaq.v2.families._attributes import AttributeSurface
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._serial import SharedSerial
from duodaq.v2.families._surface import Limit, Surface

PORT_PARAMETERS = ("port", "serial", "connection", "adapter", "ser")
PLACEHOLDER = "{port}"
VISA_PLACEHOLDER = "{visa}"
"""An argument that is to be the VISA name of the port, for a class that opens its resource itself by ``@duodaq``."""

_CLOSERS = ("close", "disconnect")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


class PlainFamily:
    """Any class: it is given a pyserial-compatible object on a shared port, or opens its device itself."""

    name = "plain"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Every class that no other family claims."""
        return True

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """Call the class with the stanza's arguments, the port's serial object among them."""
        del limit  # its calls are its own
        arguments = dict(definition.args)
        if line is not None and (addresses := visa_arguments(definition, line)):
            arguments.update(addresses)
        elif line is not None:
            serial = SharedSerial(line, definition.options.get("timeout_s"))
            arguments.update(place_port(driver, definition, serial))
        check_arguments(driver, definition, arguments)
        return AttributeSurface(driver(**arguments), close_by_name)


def close_by_name(driver: Any) -> None:
    """Call its `close` or `disconnect`, if it has one."""
    for name in _CLOSERS:
        method = getattr(driver, name, None)
        if callable(method):
            method()
            return


def visa_arguments(definition: InstrumentDefinition, line: SharedLine) -> dict[str, str]:
    """The arguments that are to be the VISA name of the port, with that name."""
    names = [name for name, value in definition.args.items() if value == VISA_PLACEHOLDER]
    return dict.fromkeys(names, visa_alias(line.name))


def place_port(
    driver: Callable[..., Any], definition: InstrumentDefinition, serial: SharedSerial
) -> dict[str, SharedSerial]:
    """The argument that is to get the port's serial object: the marked one, or the one that is usually called so."""
    marked = [name for name, value in definition.args.items() if value == PLACEHOLDER]
    if marked:
        return dict.fromkeys(marked, serial)
    parameters = _parameters(driver)
    for name in PORT_PARAMETERS:
        if name in parameters and name not in definition.args:
            return {name: serial}
    raise ConfigError(
        f"{_name(driver)} takes no {', '.join(PORT_PARAMETERS[:-1])} or {PORT_PARAMETERS[-1]}",
        key=f"instruments.{definition.id}.port",
        remedy=f'Say which argument is to get the port: args = {{ name = "{PLACEHOLDER}" }}, or, by VISA, '
        f'"{VISA_PLACEHOLDER}"; '
        "or drop `port` if the class opens its device itself.",
    )


def check_arguments(driver: Callable[..., Any], definition: InstrumentDefinition, arguments: dict[str, Any]) -> None:
    """Raise ConfigError unless the class takes `arguments`; a TypeError from within it is something else."""
    try:
        signature = signature_of(driver)
    except (TypeError, ValueError):
        return  # a class of C code that does not tell
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{_name(driver)}{signature}: {error}",
            key=f"instruments.{definition.id}.args",
            remedy="Name its arguments in `args`.",
        ) from error


def call_with(driver: Callable[..., Any], definition: InstrumentDefinition, arguments: dict[str, Any]) -> Any:
    """A driver, constructed with `arguments`.

    A class that hands on whatever it does not know itself (``**kwargs``) is known to refuse one of them only then.

    Raises:
        ConfigError: It does not take them.
        Exception: Whatever its constructor raised.
    """
    check_arguments(driver, definition, arguments)
    try:
        return driver(**arguments)
    except TypeError as error:
        found = _UNEXPECTED.search(str(error))
        if found is None or found[1] not in definition.args:
            raise
        raise ConfigError(
            f"{_name(driver)} takes no {found[1]!r}",
            key=f"instruments.{definition.id}.args.{found[1]}",
            remedy="Leave it out, or see how its class calls it.",
        ) from error


def signature_of(driver: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a driver's class.

    Of a class that takes none because it has no constructor, `inspect` parses the text of that of `object`, with a look
    at every module there is: 2 ms in a worker that has just been forked.
    """
    if not isinstance(driver, type):
        return inspect.signature(driver)
    if type(driver).__call__ is type.__call__:
        plain = (driver.__new__, driver.__init__) == (object.__new__, object.__init__)
        return inspect.Signature() if plain else inspect.signature(driver)
    own = inspect.signature(driver.__init__)  # its metaclass takes anything, and hands it on
    return own.replace(parameters=list(own.parameters.values())[1:])


def _parameters(driver: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(signature_of(driver).parameters)
    except (TypeError, ValueError):
        return ()


def _name(driver: Callable[..., Any]) -> str:
    return getattr(driver, "__name__", repr(driver))
