"""What names and values say about danger: whether setting or calling this may arm, open, switch on, emit or move.

Names are all that there is to go by of a driver that duodaq does not know, and they promise nothing. So whoever asks
here lets through what is known to be harmless, and never what is merely not known to be harmful.
"""

from __future__ import annotations

import re
from typing import Any

from duodaq.model._command import Execute, SetParameter
from duodaq.model._definition import InstrumentDefinition


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+")
_ARMING = _set("arm arms armed arming rearm emission emissions emit emits emitting lase lases lasing fire firing")
_ARMING_STEMS = ("emission", "emitting", "lasing")
_LIGHT = _set("shutter laser lasers lamp lamps led source beam output outputs outp pump heater flash")
_LIGHT_STEMS = ("shutter", "laser", "output")
_SWITCH = _set(
    "on open opened opening enable enabled relay relays valve valves gate gated switch bypass override ignite "
    "unlock unlocked hv trigger triggered start running"
)
_SWITCH_STEMS = ("relay", "valve", "enable", "poweron", "highvoltage")
_GUARDING = _set(
    "closed close shut safe safety blocked block blocker dump disabled disable off inhibit inhibited mute muted "
    "interlock interlocks interlocked protection protect protected ovp ocp limit limits standby idle guard "
    "attenuator attenuation filter lock locked brake blank blanked blanking not no sleep clamp crowbar stop"
)
_GUARDING_STEMS = ("interlock", "attenuat", "inhibit", "protect")
_MOTION = _set(
    "position positions pos location angle angles setpoint target destination move moves moving motion goto jog "
    "home homing travel displacement distance rotation tilt height motor motors axis"
)
_MOTION_STEMS = ("position", "setpoint")
_AXES = _set("x y z theta phi")
_UNITS = _set("mm um nm m deg rad mrad steps counts")
_LEVEL = _set("current voltage volt volts power amplitude intensity amps watts")
_QUANTITY = _LEVEL | _set("temperature temp wavelength frequency humidity pressure flow")
_OFF = _set("off 0 closed close shut disabled disable disarmed no false standby idle safe stop stopped")
_ON = _set(
    "on 1 open opened enabled enable armed arm yes true run running start started emission emit emitting ready "
    "active operate fire lasing"
)
_ENDING = _set("off disarm disarmed unarm stop disable close shut end abort cease kill")
_READING = _set("get read is has query ask check measure")
_LASING_SWITCHES = _set(
    "on enable enabled start ignite run switch output outputs state mode pump lamp diode source beam hv"
)


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters: of ``laserState``, ``laser_state2``, ``Laser.state`` the same two."""
    return tuple(_WORD.findall(_BOUNDARY.sub(" ", name).lower()))


def may_switch(name: str) -> bool:
    """Whether a setting of this name may arm, open, light or switch on something, by one of its words."""
    words = words_of(name)
    return _has(words, _ARMING, _ARMING_STEMS) or _has(words, _LIGHT, _LIGHT_STEMS) or _has_switch(words)


def may_guard(name: str) -> bool:
    """Whether a setting of this name may be what keeps something dark, shut or still."""
    return _has(words_of(name), _GUARDING, _GUARDING_STEMS)


def may_move_by_name(name: str) -> bool:
    """Whether a setting of this name may be where something is to go."""
    words = words_of(name)
    plain = [word for word in words if word not in _UNITS]
    if len(plain) == 1 and plain[0] in _AXES:
        return True
    goals = {"setpoint", "target"}
    return _has([w for w in words if not (w in goals and _QUANTITY & {*words})], _MOTION, _MOTION_STEMS)


def is_level(name: str) -> bool:
    """Whether it is a current, a voltage, a power or the like."""
    return bool(_LEVEL & {*words_of(name)})


def is_plain_level(name: str) -> bool:
    """Whether it is such a number and no switch, gate or guard: ``pump_current``, and not ``power_on``."""
    words = words_of(name)
    barred = _has_switch(words) or _has(words, _ARMING, _ARMING_STEMS) or _has(words, frozenset(), ("shutter",))
    return is_level(name) and not barred and not {"state", "mode", "status"} & {*words}


def is_off(value: Any) -> bool:
    """Whether a switch of that value is off."""
    if isinstance(value, bool | int | float):
        return not value
    return isinstance(value, str) and value.strip().lower() in _OFF


def is_switch(value: Any) -> bool:
    """Whether a value is one of a switch: yes or no, or a word such as ``on``, ``closed``, ``RUN``, ``standby``."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _OFF | _ON)


def turns_off(name: str, value: Any) -> bool:
    """Whether this makes safe: a value that is off, of a name that says what is off then."""
    return is_off(value) and (may_switch(name) or is_level(name)) and not may_guard(name)


def turns_on(now: Any, then: Any) -> bool:
    """Whether the change is one of a switch, and not towards off: also from 0 to 1, and from ``OFF`` to any word."""
    if is_off(then) and is_switch(then):
        return False
    number = isinstance(then, int) and not isinstance(then, bool) and then == 1 and now == 0
    return is_switch(then) or number or (isinstance(then, str) and is_switch(now))


def arms(definition: InstrumentDefinition, command: SetParameter | Execute) -> bool:
    """Whether a command arms an instrument, or has a laser emit, as its name tells.

    It does if a word of its name is one of arming or emitting (``arm``, ``armed``, ``emission``, ``emit``, ``lasing``,
    ``fire``); and, of an instrument or a name with ``laser`` in it, if it switches on (``laser_on``, ``enable``,
    ``output``, ``laser_state``). Reading, disarming and switching off do not. An
    actor of duodaq's own guards its shutter itself: the first rule alone is for it.
    """
    words = words_of(command.name)
    if _ends_or_reads(words, command):
        return False
    if _has(words, _ARMING, _ARMING_STEMS):
        return True
    named = any("laser" in word for word in words)
    about = named or any("laser" in word for word in (*words_of(definition.id), *words_of(_class_of(definition))))
    own = definition.runtime == "v4" and isinstance(definition.driver, str) and definition.driver.startswith("duodaq:")
    if own or not about:
        return False
    quantity = bool(_QUANTITY & {*words}) and not {"on", "enable", "enabled"} & {*words}
    joined = any(word.endswith(("laseron", "turnon", "switchon")) for word in words)
    alone = named and all(word in ("set", "laser", "lasers") for word in words)
    return not quantity and (joined or alone or bool(_LASING_SWITCHES & {*words}))


def _ends_or_reads(words: tuple[str, ...], command: SetParameter | Execute) -> bool:
    if isinstance(command, SetParameter):
        return is_off(command.value)
    given = [*command.args, *command.kwargs.values()]
    if not given and words[:1] and words[0] in _READING:
        return True
    if _ENDING & {*words} and not {"arm", "on", "enable"} & {*words}:
        return True
    by_number = words[:1] == ("set",)  # of other calls 0 may be the number of a channel
    return bool(given) and all(is_off(one) and (by_number or isinstance(one, bool | str)) for one in given)


def _has_switch(words: tuple[str, ...]) -> bool:
    return _has(words, _SWITCH, _SWITCH_STEMS) or ("high" in words and "voltage" in words)


def _has(words: Any, known: frozenset[str], stems: tuple[str, ...]) -> bool:
    return any(word in known or any(stem in word for stem in stems) for word in words)


def _class_of(definition: InstrumentDefinition) -> str:
    driver = definition.driver
    return driver.rpartition(":")[2] if isinstance(driver, str) else getattr(driver, "__name__", "")
