"""Descriptors cross a local socket, belong to whoever received them, and are never waited for by the sender."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from duodaq.clock import monotonic_s
from duodaq.link import receive_descriptors, send_descriptors
from duodaq.link._descriptors import MOST


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def test_a_descriptor_arrives_and_outlives_the_senders(ends) -> None:
    read, write = os.pipe()
    assert send_descriptors(ends[0], [write])
    os.close(write)
    (came,) = receive_descriptors(ends[1])
    assert not os.get_inheritable(came)
    os.write(came, b"x")
    assert os.read(read, 10) == b"x"
    os.close(came)
    os.close(read)


def test_several_come_in_order_and_messages_stay_apart(ends) -> None:
    files = [os.memfd_create(f"f{n}") for n in range(MOST + 1)]
    assert send_descriptors(ends[0], files[:MOST])
    assert send_descriptors(ends[0], files[MOST:])
    first, second = receive_descriptors(ends[1]), receive_descriptors(ends[1])
    assert [os.fstat(n).st_ino for n in first + second] == [os.fstat(n).st_ino for n in files]
    assert len(second) == 1
    for one in files + first + second:
        os.close(one)


def test_nothing_that_came_is_none(ends) -> None:
    began_s = monotonic_s()
    assert receive_descriptors(ends[1]) == []
    assert receive_descriptors(ends[1], 0.05) == []
    assert monotonic_s() - began_s < 1.0
    ends[0].send(b"no descriptors")
    assert receive_descriptors(ends[1]) == []
    ends[0].close()
    assert receive_descriptors(ends[1]) == []


def test_more_than_may_come_are_not_kept_open(ends) -> None:
    files = [os.memfd_create(f"f{n}") for n in range(MOST + 8)]
    before = len(os.listdir("/proc/self/fd"))
    assert send_descriptors(ends[0], files)
    came = receive_descriptors(ends[1])
    for one in came:
        os.close(one)
    assert len(os.listdir("/proc/self/fd")) == before
    for one in files:
        os.close(one)


def test_a_full_or_dead_end_takes_none_and_the_sender_does_not_wait(ends) -> None:
    sent = 0
    while send_descriptors(ends[0], [0]):
        sent += 1
        assert sent < 100_000
    assert sent > 0
    ends[1].close()
    assert not send_descriptors(ends[0], [0])
    assert not send_descriptors(ends[0], [999])
