"""The table seen from another process: the same promise over a local socket."""

from __future__ import annotations

import socket
import threading
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from duodaq.errors import PortLostError
from duodaq.sim.table._motion import Piece, Profile
from duodaq.sim.table._table import Scene, TableState, Truth, expose
from duodaq.sim.table._wire import Answer, Request, pack, read_frame


class TableClient:
    """A connection to the optical table's process. Calls block (about 50 µs); safe from any thread.

    It connects at construction; every call has a deadline.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(address)
        except OSError as exc:
            self._socket.close()
            raise PortLostError(f"no optical table at {address}: {exc}") from exc
        self._lock = threading.Lock()
        self._decoder = msgspec.msgpack.Decoder(Answer)

    def state(self) -> TableState:
        """How everything stands now."""
        return msgspec.convert(self._call("state"), TableState)

    def truth(self) -> Truth:
        """What was drawn from the seed."""
        return msgspec.convert(self._call("truth"), Truth)

    def set_laser(self, on: bool, power_w: float | None = None) -> None:
        """Switch the laser; `power_w` stays as it is if not given."""
        self._call("set_laser", on, power_w)

    def set_wavelength(self, wavelength_nm: float) -> None:
        """Tune the laser."""
        self._call("set_wavelength", wavelength_nm)

    def wavelength_nm(self) -> float:
        """What the laser emits, or would."""
        return self._call("wavelength_nm")

    def set_shutter(self, is_open: bool) -> None:
        """Open or close the shutter."""
        self._call("set_shutter", is_open)

    def set_motion(self, axis: int, profile: Profile) -> None:
        """Let `axis` follow `profile`."""
        self._call("set_motion", axis, [list(piece) for piece in profile.pieces])

    def motion(self, axis: int) -> Profile:
        """The profile that `axis` follows."""
        return Profile(tuple(Piece(*piece) for piece in self._call("motion", axis)))

    def power_w(self, samples: int = 1) -> float:
        """The power behind the knife edge, in W, with noise."""
        return self._call("power_w", samples)

    def photodiode_v(self, samples: int = 1) -> float:
        """The reference photodiode, in V, with noise."""
        return self._call("photodiode_v", samples)

    def scene(self, sensor_width: int = 2048) -> Scene:
        """What one exposure depends on."""
        return msgspec.convert(self._call("scene", sensor_width), Scene)

    def picture(
        self, shape: tuple[int, int], roi: tuple[int, int, int, int], binning: tuple[int, int] = (1, 1)
    ) -> NDArray[np.float32]:
        """The uncut beam on the sensor."""
        pixels: bytes = self._call("picture", list(shape), list(roi), list(binning))
        return np.frombuffer(pixels, dtype=np.float32).reshape(roi[3] // binning[1], roi[2] // binning[0])

    def image(
        self,
        shape: tuple[int, int] = (2048, 2048),
        roi: tuple[int, int, int, int] | None = None,
        binning: tuple[int, int] = (1, 1),
        exposure_s: float = 0.02,
        frame_no: int = 0,
    ) -> NDArray[np.uint16]:
        """One noisy exposure, composed on this side."""
        roi = roi or (0, 0, shape[1], shape[0])
        return expose(self.scene(shape[1]), self.picture(shape, roi, binning), roi, binning, exposure_s, frame_no)

    def tally(self, instrument: str, report: dict[str, Any]) -> None:
        """Deposit the counts of one instrument."""
        self._call("tally", instrument, report)

    def counts(self) -> dict[str, dict[str, Any]]:
        """The counts of all instruments, as last deposited."""
        return self._call("counts")

    def close(self) -> None:
        """Close the connection; the table goes on."""
        self._socket.close()

    def __enter__(self) -> TableClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, op: str, *params: Any) -> Any:
        with self._lock:
            try:
                self._socket.sendall(pack(Request(op, params)))
                answer = self._decoder.decode(read_frame(self._socket))
            except OSError as exc:
                self._socket.close()  # a late answer must never be taken for the next one's
                raise PortLostError(f"the optical table at {self.address} does not answer: {exc}") from exc
        if answer.error is not None:
            raise ValueError(f"optical table, {op}: {answer.error}")
        return answer.value
