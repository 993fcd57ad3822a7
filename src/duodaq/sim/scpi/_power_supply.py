"""A power supply with several outputs, a resistor on each: constant voltage, constant current, and protection.

The E36312A names its channels behind the value (``VOLT 3.3, (@1,2)``), the E3631A selects one first (``INST:NSEL 2``)
and switches all its outputs at once. Without a list both mean the selected one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from duodaq.sim.scpi._argument import Args
from duodaq.sim.scpi._engine import ScpiSimulator
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._output import Mode, Output
from duodaq.sim.scpi._supply_profile import SupplyProfile
from duodaq.sim.scpi._tree import Command

__all__ = ["PowerSupply"]

_NOISE = 2e-5
_LEVEL = "[:LEVel][:IMMediate][:AMPLitude]"
_QUESTIONABLE_OVP = 1 << 9
_QUESTIONABLE_OCP = 1 << 10


class PowerSupply(ScpiSimulator):
    """E36312A and E3631A, as far as their profiles differ. `outputs` may be given other loads."""

    name = "scpi-psu"

    def __init__(self, profile: SupplyProfile, seed: int = 0) -> None:
        self.profile = profile
        self.model = profile.model
        self.outputs = [Output(output) for output in profile.outputs]
        self._noise = np.random.default_rng([seed, 7])
        self._selected = 0
        self._tracking = False
        super().__init__(line=profile.line, identity=profile.identity, input_limit=1 << 14)

    def report(self) -> dict[str, Any]:
        """The tally, and for each output whether it is on, what comes out, and what has switched it off."""
        outputs = {
            output.profile.name: {"on": output.on, "volts": output.actual()[0], "tripped": output.tripped}
            for output in self.outputs
        }
        return {**super().report(), "outputs": outputs}

    def _tick(self, now_s: float) -> None:
        for output in self.outputs:
            output.protect()
        condition = 0
        for output in self.outputs:
            condition |= {Mode.OFF: 0, Mode.CURRENT: 1, Mode.VOLTAGE: 2}[output.mode()]
            condition |= {"OVP": _QUESTIONABLE_OVP, "OCP": _QUESTIONABLE_OCP}.get(output.tripped, 0)
        self.status.questionable.set_condition(condition)
        self.status.update()

    def _reset(self) -> None:
        self._selected, self._tracking = 0, False
        for output in self.outputs:
            output.reset()

    # Which outputs a command is about

    def _chosen(self, args: Args) -> list[Output]:
        if not len(args):
            return [self.outputs[self._selected]]
        numbers = args.channels()
        if any(not 1 <= number <= len(self.outputs) for number in numbers):
            raise ScpiFault(-222)
        return [self.outputs[number - 1] for number in numbers]

    def _switched(self, args: Args) -> list[Output]:
        return self._chosen(args) if self.profile.lists else self.outputs

    def _told(self, say: Callable[[Output], str]) -> Callable[[Args], str]:
        return lambda args: ",".join(say(output) for output in self._chosen(args))

    # Commands

    def _commands(self) -> list[Command]:
        return [
            *self._level_commands(),
            *self._output_commands(),
            *self._select_commands(),
            *(self._protection_commands() if self.profile.lists else self._panel_commands()),
            Command("*OPT", most=0, query=lambda _: self.profile.options),
            Command("SYSTem:VERSion", most=0, query=lambda _: "1999.0"),
        ]

    def _level_commands(self) -> list[Command]:
        lists = int(self.profile.lists)

        def set_volts(args: Args) -> None:
            value = args.number(*self._volt_limits(), 0.0, unit="V")
            for output in self._chosen(args):
                self._set_volts(output, value)

        def set_amperes(args: Args) -> None:
            value = args.number(0.0, max(output.profile.amperes for output in self.outputs), 0.0, unit="A")
            for output in self._chosen(args):
                if value > output.profile.amperes * (1 + 1e-9):
                    raise ScpiFault(-222)
                output.amperes = value

        def apply(args: Args) -> None:
            name = args.word(*(output.name for output in self.profile.outputs))
            output = next(one for one in self.outputs if one.profile.name == name)
            if len(args):
                self._set_volts(output, args.number(*self._volt_limits(), 0.0, unit="V"))
            if len(args):
                output.amperes = args.number(0.0, output.profile.amperes, unit="A")

        def ask(limits: Callable[[Output], tuple[float, float]], present: Callable[[Output], float]) -> Any:
            def reply(args: Args) -> str:
                low, high = args.next_is_word("MINimum"), args.next_is_word("MAXimum")
                chosen = self._chosen(args)
                if low or high:
                    return ",".join(_number(limits(output)[high]) for output in chosen)
                return ",".join(_number(present(output)) for output in chosen)

            return reply

        volts = ask(lambda o: (min(0.0, o.profile.volts), max(0.0, o.profile.volts)), lambda o: o.volts)
        amperes = ask(lambda o: (0.0, o.profile.amperes), lambda o: o.amperes)
        return [
            Command(f"[SOURce:]VOLTage{_LEVEL}", most=1 + lists, set=set_volts, query=volts),
            Command(f"[SOURce:]CURRent{_LEVEL}", most=1 + lists, set=set_amperes, query=amperes),
            Command("APPLy", most=3, set=apply),
            Command("MEASure[:SCALar][:VOLTage][:DC]", most=lists, query=self._told(lambda o: self._measured(o, 0))),
            Command("MEASure[:SCALar]:CURRent[:DC]", most=lists, query=self._told(lambda o: self._measured(o, 1))),
        ]

    def _volt_limits(self) -> tuple[float, float]:
        volts = [output.profile.volts for output in self.outputs]
        return min(0.0, *volts), max(volts)

    def _set_volts(self, output: Output, value: float) -> None:
        if not 0 <= value * output.sign <= output.most_volts * (1 + 1e-9):
            raise ScpiFault(-222)
        output.volts = value
        if self._tracking and output is not self.outputs[0]:
            for other in self.outputs[1:]:
                other.volts = abs(value) * other.sign

    def _measured(self, output: Output, index: int) -> str:
        self.tally.produced["voltage" if index == 0 else "current"] += 1
        full = output.most_volts if index == 0 else output.profile.amperes
        return _number(output.actual()[index] + full * _NOISE * self._noise.standard_normal())

    def _output_commands(self) -> list[Command]:
        def switch(args: Args) -> None:
            on = args.boolean()
            chosen = self._switched(args)
            if on and any(output.tripped for output in chosen):
                raise ScpiFault(-221)
            for output in chosen:
                output.on = on

        def state(args: Args) -> str:
            chosen = self._switched(args) if self.profile.lists else self.outputs[:1]
            return ",".join(f"{output.on:d}" for output in chosen)

        return [Command("OUTPut[:STATe]", most=1 + self.profile.lists, set=switch, query=state)]

    def _select_commands(self) -> list[Command]:
        names = [output.name for output in self.profile.outputs]

        def by_number(args: Args) -> None:
            self._selected = args.integer(1, len(self.outputs)) - 1

        def by_name(args: Args) -> None:
            self._selected = names.index(args.word(*names))

        return [
            Command("INSTrument:NSELect", set=by_number, query=lambda _: f"{self._selected + 1:d}"),
            Command("INSTrument[:SELect]", set=by_name, query=lambda _: names[self._selected]),
        ]

    def _protection_commands(self) -> list[Command]:
        def level(args: Args) -> None:
            value = args.number(0.0, max(output.most_volts for output in self.outputs) * 1.2, unit="V")
            for output in self._chosen(args):
                output.ovp_volts = value

        def enable(name: str) -> Callable[[Args], None]:
            def assign(args: Args) -> None:
                on = args.boolean()
                for output in self._chosen(args):
                    setattr(output, name, on)

            return assign

        def clear(args: Args) -> None:
            for output in self._chosen(args):
                output.tripped = ""

        def tripped(what: str) -> Callable[[Args], str]:
            return self._told(lambda output: f"{output.tripped == what:d}")

        volts, amperes = "[SOURce:]VOLTage:PROTection", "[SOURce:]CURRent:PROTection"
        return [
            Command(f"{volts}[:LEVel]", most=2, set=level, query=self._told(lambda o: _number(o.ovp_volts))),
            Command(f"{volts}:STATe", most=2, set=enable("ovp_on"), query=self._told(lambda o: f"{o.ovp_on:d}")),
            Command(f"{volts}:TRIPped", query=tripped("OVP")),
            Command(f"{volts}:CLEar", set=clear),
            Command(f"{amperes}:STATe", most=2, set=enable("ocp_on"), query=self._told(lambda o: f"{o.ocp_on:d}")),
            Command(f"{amperes}:TRIPped", query=tripped("OCP")),
            Command(f"{amperes}:CLEar", set=clear),
            Command("OUTPut:PROTection:CLEar", set=clear),
        ]

    def _panel_commands(self) -> list[Command]:
        def track(args: Args) -> None:
            self._tracking = args.boolean()

        return [
            Command("OUTPut:TRACk[:STATe]", set=track, query=lambda _: f"{self._tracking:d}"),
            Command("SYSTem:REMote", most=0, set=lambda _: None),
            Command("SYSTem:LOCal", most=0, set=lambda _: None),
            Command("DISPlay[:STATe]", set=_boolean, query=lambda _: "1"),
        ]


def _boolean(args: Args) -> None:
    args.boolean()


def _number(value: float) -> str:
    return f"{value:+.8E}"
