from __future__ import annotations

import asyncio
import errno
import hmac
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa
from pyarrow import flight

from duodaq.errors import ConfigError, DataError, DuodaqError, LifecycleError
from duodaq.flight._live import LiveStreams
from duodaq.flight._replay import Recorded, facts_of
from duodaq.flight._words import Gaps, Lost, Replay, Wish, checked_token, encode
from duodaq.link import LAB_PROTOCOL, LinkClient, tap_path

MOST_READERS = 32
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ASK_S = 5.0


class Serving(NamedTuple):
    """Where a service listens, and for whom.

    Attributes:
        host: The address; other machines reach only what is not a loopback address.
        port: 0 for any free one.
        token: What readers must show; None: nothing, which is refused elsewhere than on a loopback address.
        certificate: PEM; with `key`, the service speaks TLS.
        key: PEM.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def checked(self) -> Serving:
        """The same.

        Raises:
            ConfigError: It would be open to everybody, half of what TLS needs is missing, or the token cannot be shown.
        """
        if self.token:
            checked_token(self.token)
        if self.host not in LOOPBACK and not self.token:
            remedy = "Give a token: --token, or the variable DUODAQ_FLIGHT_TOKEN."
            raise ConfigError(f"{self.host} can be reached by others, and no token is asked for", remedy=remedy)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs a certificate and its key", remedy="Give both: --tls-cert and --tls-key.")
        return self


class _Bearer(flight.ServerMiddlewareFactory):
    """Lets nobody in who does not show the token: ``authorization: Bearer TOKEN``."""

    def __init__(self, token: str) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - it brings no types
        self._wanted = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: Any) -> None:
        shown = next((values for key, values in headers.items() if key.lower() == "authorization"), [""])
        if not any(hmac.compare_digest(str(value).encode(), self._wanted) for value in shown):
            raise flight.FlightUnauthenticatedError("this service asks for a token: authorization: Bearer TOKEN")


class FlightService(flight.FlightServerBase):
    """Serves the live streams of a lab and its recorded runs; it listens once it is made. See docs/reference/flight.md.

    Args:
        serving: Where, and for whom.
        lab: Where the lab's control socket is, asked each time, for labs come and go; None: recorded runs only.
        runs: The folder of recorded runs; None: live streams only.

    Raises:
        ConfigError: It must not be opened so, or the address is taken.
    """

    def __init__(self, serving: Serving, lab: Callable[[], Path] | None, runs: Path | None) -> None:
        serving.checked()
        self._lab = lab
        self._recorded = Recorded(runs)
        self._live = LiveStreams(self._tap, MOST_READERS)
        scheme = "grpc+tls" if serving.certificate else "grpc"
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        pair = [(serving.certificate, serving.key)] if serving.certificate else None
        middleware = {"bearer": _Bearer(serving.token)} if serving.token else None
        try:
            super().__init__(  # pyright: ignore[reportUnknownMemberType] - it brings no types
                f"{scheme}://{host}:{serving.port}", tls_certificates=pair, middleware=middleware
            )
        except (pa.ArrowException, OSError) as error:
            raise _cannot_listen(serving, error) from error
        self.address = f"{scheme}://{host}:{cast('Any', self).port}"

    @property
    def readers(self) -> int:
        """How many live streams are read now."""
        return self._live.count

    def sweep(self) -> None:
        """Give up live streams whose reader did not come back after their columns changed; call it now and then."""
        self._live.sweep()

    def _tap(self) -> Path:
        if self._lab is None:
            raise LifecycleError("this service has recorded runs only")
        return tap_path(self._lab())

    # --- what Flight calls, each in a thread of gRPC's

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """A live stream: the reader sends credits, and gets that many batches."""
        with _Said():
            wish = _decoded(descriptor.command, Wish, '{"stream": "dmm.voltage"}')
            self._live.serve(wish, reader, writer, context.is_cancelled)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """One part of a recorded stream."""
        with _Said():
            schema, batches = self._recorded.read(_decoded(ticket.ticket, Replay, '{"run": "7", "stream": "a.b"}'))
            return flight.RecordBatchStream(pa.RecordBatchReader.from_batches(schema, batches))

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """A recorded stream: its schema, its rows, and a ticket for each of its parts."""
        with _Said():
            wanted = _decoded(descriptor.command, Replay, '{"run": "last", "stream": "dmm.voltage"}')
            return self._info(wanted, descriptor)

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[Any]:
        """Every stream of every recorded run; criteria, if given, are the name of one run."""
        with _Said():
            for run in self._recorded.runs():
                facts = facts_of(run)
                if criteria and criteria.decode() not in map(str, facts.values()):
                    continue
                for stream in run:
                    wanted = Replay(facts["run"], stream.name)
                    yield self._info(wanted, flight.FlightDescriptor.for_command(encode(wanted)))

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """What `do_action` knows."""
        return [("channels", "the live streams of the lab, as JSON"), ("runs", "the recorded runs, as JSON")]

    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        """Say what there is."""
        with _Said():
            match action.type:
                case "channels":
                    yield msgspec.json.encode(self._channels(), enc_hook=str)
                case "runs":
                    yield msgspec.json.encode([facts_of(run) for run in self._recorded.runs()])
                case _:
                    raise DataError(f"there is no action {action.type!r}")

    def _info(self, wanted: Replay, descriptor: Any) -> Any:
        wanted = self._recorded.pinned(wanted)  # `last` may be another one when the tickets are shown
        parts, behind = self._recorded.parts(wanted)
        schema = parts[0].schema if parts else self._recorded.stream(wanted).schema
        lost = [one for part in parts for one in part.lost] + behind
        ends = [
            flight.FlightEndpoint(encode(msgspec.structs.replace(wanted, part=n)), [], None, _said(part.lost))
            for n, part in enumerate(parts)
        ]
        rows = sum(part.rows for part in parts)
        return flight.FlightInfo(schema, descriptor, ends, rows, -1, ordered=True, app_metadata=_said(lost))

    def _channels(self) -> list[dict[str, Any]]:
        if self._lab is None:
            return []
        socket = self._lab()

        async def ask() -> list[dict[str, Any]]:
            client = await LinkClient.open(socket, version=LAB_PROTOCOL)
            try:
                return await client.request("channels", {}, timeout_s=_ASK_S)
            finally:
                await client.aclose()

        return asyncio.run(ask())


def _cannot_listen(serving: Serving, error: Exception) -> ConfigError:
    """Why, by asking the system: gRPC says that only on the terminal."""
    where = f"{serving.host}:{serving.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(serving.host, serving.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as refusal:
        if refusal.errno == errno.EADDRINUSE:
            remedy = "Give another one, --port 8816 for instance, or --port 0 for any that is free."
            return ConfigError(f"port {serving.port} is taken: another program listens at {where}", remedy=remedy)
        return ConfigError(f"cannot listen at {where}: {refusal.strerror or refusal}", key="--host")
    return ConfigError(f"cannot listen at {where}: {error}")


def _said(lost: list[Lost]) -> bytes:
    return encode(Gaps(lost)) if lost else b""


def _decoded(said: bytes | None, kind: type[Any], example: str) -> Any:
    try:
        return msgspec.json.decode(said or b"", type=kind)
    except msgspec.MsgspecError as error:
        raise DataError(f"what was asked for makes no sense ({error}); for instance: {example}") from error


class _Said:
    """Our errors as Flight's, with the same sentence."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, LifecycleError):
            raise flight.FlightUnavailableError(str(error)) from error
        if isinstance(error, DuodaqError):
            raise flight.FlightServerError(str(error)) from error
