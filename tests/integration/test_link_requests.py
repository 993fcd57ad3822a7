from __future__ import annotations

import asyncio
import datetime as dt
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duodaq.errors import (
    ConfigError,
    DeliveryError,
    LifecycleError,
    MailboxFullError,
    OverrunError,
    PortBusyError,
    RefusedError,
    ReplyTimeoutError,
)
from duodaq.link import LinkClient, LinkServer, encode


class Service:
    def __init__(self) -> None:
        self.cancelled = 0
        self.begun = asyncio.Event()

    async def handle(self, op: str, params: dict[str, Any]) -> Any:
        match op:
            case "echo":
                return params["value"]
            case "raise":
                raise params["error"]
            case "secret":
                return object()
            case "hang":
                self.begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
        raise LookupError(op)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def server(tmp_path: Path, service: Service) -> AsyncIterator[LinkServer]:
    server = LinkServer(tmp_path / "lab", service.handle, version=3, outstanding=8)
    await server.start()
    yield server
    await server.aclose()


@pytest.fixture
async def client(server: LinkServer) -> AsyncIterator[LinkClient]:
    client = await LinkClient.open(server.path, version=3)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    "value", [None, 1, 2.5, "mm", b"\x00\n", [1, [2]], {"a": 1}, dt.datetime(2030, 1, 2, tzinfo=dt.UTC)]
)
async def test_plain_values_travel_both_ways(client: LinkClient, value: Any) -> None:
    assert await client.request("echo", {"value": value}) == value


async def test_numbers_and_arrays_of_numpy_travel(client: LinkClient) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::2]
    assert await client.request("echo", {"value": np.float64(1.5)}) == 1.5
    back = await client.request("echo", {"value": {"pixels": pixels}})
    np.testing.assert_array_equal(back["pixels"], pixels)
    assert back["pixels"].dtype == np.uint16


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("no", code=7, text="out of paper", instrument="dmm", command="print"),
        PortBusyError("held", holder="scan", held_s=1.5, port="p"),
        ConfigError("odd", file="lab.toml", line=3, key="ports.x", remedy="Remove it."),
        OverrunError("slow", missed=12),
        DeliveryError("cut", fate="not done"),
    ],
)
async def test_errors_arrive_as_what_they_are_with_all_their_facts(client: LinkClient, error: Any) -> None:
    with pytest.raises(type(error)) as caught:
        await client.request("raise", {"error": error})
    assert type(caught.value) is type(error)
    assert caught.value.facts() == error.facts()
    assert str(caught.value) == str(error)


async def test_a_foreign_error_arrives_as_its_nearest_builtin_and_says_where_it_was_raised(client: LinkClient) -> None:
    with pytest.raises(LookupError, match="nonsense") as caught:
        await client.request("nonsense")
    assert "other end" in caught.value.__notes__[0]


async def test_what_does_not_travel_is_an_error_for_the_asker_alone(client: LinkClient) -> None:
    with pytest.raises(Exception, match="does not travel"):
        await client.request("secret")
    assert await client.request("echo", {"value": 1}) == 1


async def test_a_slow_request_holds_up_no_other(client: LinkClient, service: Service) -> None:
    slow = asyncio.create_task(client.request("hang", timeout_s=None))
    await service.begun.wait()
    assert await client.request("echo", {"value": 1}) == 1
    slow.cancel()
    await asyncio.wait([slow])


async def test_cancelling_a_request_cancels_it_at_the_server(client: LinkClient, service: Service) -> None:
    task = asyncio.create_task(client.request("hang", timeout_s=None))
    await service.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.request("echo", {"value": 1})
    assert service.cancelled == 1


async def test_a_request_that_takes_too_long_ends_unknown_and_is_cancelled(
    client: LinkClient, service: Service
) -> None:
    with pytest.raises(ReplyTimeoutError) as caught:
        await client.request("hang", timeout_s=0.05)
    assert caught.value.fate == "unknown"
    await client.request("echo", {"value": 1})
    assert service.cancelled == 1


async def test_a_client_may_not_open_more_requests_than_agreed(client: LinkClient) -> None:
    tasks = [asyncio.create_task(client.request("hang", timeout_s=None)) for _ in range(8)]
    await asyncio.gather(*(asyncio.wait([task], timeout=0) for task in tasks))
    with pytest.raises(MailboxFullError):
        await client.request("echo", {"value": 1})
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_server_that_goes_away_ends_open_requests(server: LinkServer, client: LinkClient) -> None:
    task = asyncio.create_task(client.request("hang", timeout_s=None))
    await asyncio.wait([task], timeout=0.01)
    await server.aclose()
    with pytest.raises(DeliveryError):
        await task
    with pytest.raises(DeliveryError) as caught:
        await client.request("echo", {"value": 1})
    assert caught.value.fate == "not done"
    assert not server.path.exists()


async def test_a_client_that_leaves_ends_its_own_requests(server: LinkServer, service: Service) -> None:
    leaver = await LinkClient.open(server.path, version=3)
    task = asyncio.create_task(leaver.request("hang", timeout_s=None))
    await service.begun.wait()
    await leaver.aclose()
    with pytest.raises(DeliveryError):
        await task
    async with asyncio.timeout(5):
        while not service.cancelled:
            await asyncio.wait([task], timeout=0.01)


async def test_events_reach_those_who_listen_and_what_overflows_is_counted(
    server: LinkServer, client: LinkClient
) -> None:
    events = client.subscribe("state", capacity=2)
    await client.request("echo", {"value": 1})
    for number in range(4):
        server.publish("state", number)
        server.publish("other", number)
    await client.request("echo", {"value": 1})
    assert [await anext(events), await anext(events)] == [2, 3]
    assert events.take_missed() == 2
    events.close()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_another_version_is_refused_with_a_sentence(server: LinkServer) -> None:
    with pytest.raises(LifecycleError, match="speaks version 3"):
        await LinkClient.open(server.path, version=4)


async def test_nobody_there_is_a_lifecycle_error(tmp_path: Path) -> None:
    with pytest.raises(LifecycleError, match="nobody serves"):
        await LinkClient.open(tmp_path / "nothing")


async def test_a_second_server_on_the_same_path_is_refused(server: LinkServer, service: Service) -> None:
    with pytest.raises(LifecycleError):
        await LinkServer(server.path, service.handle).start()


async def test_the_socket_of_a_dead_program_is_replaced(tmp_path: Path, service: Service) -> None:
    path = tmp_path / "lab"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = LinkServer(path, service.handle)
    await server.start()
    assert path.stat().st_mode & 0o777 == 0o600
    await server.aclose()


async def test_nonsense_on_the_socket_disturbs_nobody(server: LinkServer, client: LinkClient) -> None:
    for nonsense in (b"\xff" * 64, encode(17), encode(["request"]), encode(["request", 1, "echo", {}, None])):
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert await client.request("echo", {"value": 1}) == 1
