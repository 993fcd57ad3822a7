from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from duodaq.drivers import codec as find_codec
from duodaq.errors import DeliveryError
from duodaq.link import Pipe
from duodaq.ports import BlockingSession, Broker, DeskLine, Port, PortDesk, RemoteBroker, ThreadLines
from duodaq.workers._messages import (
    Stops,
    decode_from_manager,
    decode_from_worker,
    encode,
    error_of,
    result_parcel,
    unpack,
)


class LinkedBroker:
    """A broker's ports as a worker process sees them, over a real link, but with both ends in this process.

    The desk is on the broker's loop, which is the one this is opened on; the remote end is on a loop of its own in a
    thread. Sessions, ports and stops are the remote end's; everything else is the broker itself.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.lost: list[str] = []
        near, self._far_end = socket.socketpair()
        self._sessions: list[BlockingSession] = []
        self._owned: set[asyncio.Task[None]] = set()
        self.pipe = Pipe(near, encode, decode_from_worker, self._heard, self._ended)
        self.desk = PortDesk(broker, self.pipe.send, self._own, unpack)
        near, self._far_threads = socket.socketpair()
        self.threads = DeskLine(broker, near, encode, self._own, unpack, self._ended)
        self.far_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.far_loop.run_forever, name="far end")
        self._unsubscribe: Callable[[], None] | None = None
        self.remote: RemoteBroker
        self.far_pipe: Pipe
        self.lines: ThreadLines

    @property
    def idle(self) -> bool:
        """Whether the remote end has nothing at any port."""
        return self.desk.idle and self.threads.idle

    async def open(self) -> None:
        """Connect the ends; the broker's ports must have been added."""
        self.pipe.open()
        self.threads.open()
        self._thread.start()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._open_far(), self.far_loop))
        self._unsubscribe = self.broker.subscribe_stops(lambda port, epoch: self.pipe.send(Stops(port, epoch)))

    async def _open_far(self) -> None:
        broker = self.broker
        self.far_pipe = Pipe(self._far_end, encode, decode_from_manager, self._heard_far, lambda _: None)

        def codec_of(name: str) -> Any:
            known = (broker.owner(port).codec for port in broker.definitions())
            found = next((codec for codec in known if codec is not None and codec.name == name), None)
            return find_codec(name) if found is None else found

        self.lines = ThreadLines(self._far_threads, encode, result_parcel, self.far_loop, self._fail_sessions)
        self.remote = RemoteBroker(
            self.far_pipe.send,
            self.lines,
            broker.definitions(),
            codec_of,
            broker.epochs(),
            latched=broker.latched,
            pack=result_parcel,
        )
        self.far_pipe.open()

    def session(self, port: str, holder: str, hold_max_s: float | None = None) -> BlockingSession:
        """A session at the remote end."""
        made = self.remote.session(port, holder)
        if hold_max_s is not None:
            made.hold_max_s = hold_max_s
        self._sessions.append(made)
        return made

    def port(self, name: str) -> Port:
        """A port at the remote end."""
        return self.remote.port(name)

    async def stop(self, port: str, data: bytes | None = None, holder: str = "stop") -> int:
        """A stop from the remote end."""
        stopping = asyncio.run_coroutine_threadsafe(self.remote.stop(port, data, holder), self.far_loop)
        return await asyncio.wrap_future(stopping)

    def cut(self) -> None:
        """The remote end dies, as far as the broker can see: its socket is closed by the system."""
        for end in (self._far_end, self._far_threads):
            end.shutdown(socket.SHUT_RDWR)

    async def aclose(self) -> None:
        """Close both ends, and the sessions that were made at the remote one."""
        for session in self._sessions:
            session.close()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._leave()
        for task in tuple(self._owned):
            task.cancel()
        await asyncio.gather(*self._owned, return_exceptions=True)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close_far(), self.far_loop))
        self.far_loop.call_soon_threadsafe(self.far_loop.stop)
        await asyncio.to_thread(self._thread.join, 5.0)
        self.far_loop.close()

    async def _close_far(self) -> None:
        self.remote.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.far_pipe.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def _own(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)

    def _heard(self, message: Any) -> None:
        self.desk.heard(message)

    def _ended(self, why: str) -> None:
        self.lost.append(why)
        self._leave()

    def _leave(self) -> None:
        self.pipe.close()
        self.desk.close()
        self.threads.close()

    def _fail_sessions(self, why: str) -> None:
        for session in self._sessions:
            session.fail(DeliveryError(f"the link is over: {why}", fate="unknown"))

    def _heard_far(self, message: Any) -> None:
        match message.__class__.__name__:
            case "Stops":
                self.remote.note_stop(message.port, message.epoch)
            case "Stopped":
                error = None if message.error is None else error_of(message.error)
                self.remote.stopped(message.number, message.t_ns, error)
            case _:
                self.remote.lines.heard(message)
