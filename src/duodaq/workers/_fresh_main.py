"""A worker in an interpreter of its own: ``python -P -m duodaq.workers._fresh_main FD``.

The order comes on the socket at FD and ends with it. This end stays open for as long as the worker lives, which is how
the program learns of its death where there is no pidfd.
"""

from __future__ import annotations

import os
import socket
import sys

from duodaq.workers._fork_child import become_worker, call_named, reset_signals
from duodaq.workers._fork_order import ORDER_BYTES, PRELOAD_VARIABLE, Order, decode_request, receive


def main() -> None:
    """Take the order and become that worker."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    data, fds = receive(control, ORDER_BYTES, 2)
    while rest := control.recv(ORDER_BYTES):
        data += rest
    order = decode_request(data)
    assert isinstance(order, Order)
    reset_signals()
    call_named(os.environ.get(PRELOAD_VARIABLE, ""))
    become_worker(order, socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))


if __name__ == "__main__":
    main()
