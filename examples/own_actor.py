"""A lab's own instrument in the actor runtime: three settings and one stream. The lab file names it:

driver = "./own_actor.py:Voltmeter"
"""

from typing import ClassVar

from duodaq.model import PollDefinition
from duodaq.v4.instruments import ScpiActor, scpi_setting


class Voltmeter(ScpiActor):
    """A bench multimeter that streams its DC voltage five times a second."""

    parameters: ClassVar = {
        "range": scpi_setting("VOLT:RANG", "V"),
        "nplc": scpi_setting("VOLT:NPLC"),
        "samples": scpi_setting("SAMP:COUN", parse=lambda reply: int(float(reply))),
    }
    channels = (PollDefinition("voltage", every_s=0.2, unit="V", read="READ?"),)

    async def connect(self) -> None:
        await super().connect()
        await self.driver.command("CONF:VOLT:DC")
