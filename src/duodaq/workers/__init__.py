"""Places where runtimes run: on the manager's own loop, in a thread with a loop of its own, or in a process."""

from duodaq.workers._across import AwaitedNeighbour, Neighbour, Switchboard, introduced
from duodaq.workers._by_value import dumps as by_value
from duodaq.workers._child import Child
from duodaq.workers._hosted import Hosted
from duodaq.workers._identity import impostors, learn_identities
from duodaq.workers._inbox import FeedBooks
from duodaq.workers._inline import InlineWorker
from duodaq.workers._log_line import LogLine, log_here
from duodaq.workers._memory_limit import limit_memory
from duodaq.workers._messages import Log, error_of, error_parts, parcel, unpack_trusted
from duodaq.workers._messages import encode as encode_words
from duodaq.workers._nursery import Nursery
from duodaq.workers._page import SharedPage
from duodaq.workers._parts import Factories, RuntimeFactory, RuntimeParts, as_kept
from duodaq.workers._port_worker import spawn_port_worker
from duodaq.workers._process import Surroundings
from duodaq.workers._process import cause_in_words as cause_of_exit
from duodaq.workers._process_group import ProcessGroup
from duodaq.workers._process_hosted import ProcessHosted
from duodaq.workers._promise import Host, Worker, make_worker
from duodaq.workers._recorder import RecorderDesk
from duodaq.workers._starter import spawn_child
from duodaq.workers._thread import ThreadWorker
from duodaq.workers._title import show_as

__all__ = [
    "AwaitedNeighbour",
    "Child",
    "Factories",
    "FeedBooks",
    "Host",
    "Hosted",
    "InlineWorker",
    "Log",
    "LogLine",
    "Neighbour",
    "Nursery",
    "ProcessGroup",
    "ProcessHosted",
    "RecorderDesk",
    "RuntimeFactory",
    "RuntimeParts",
    "SharedPage",
    "Surroundings",
    "Switchboard",
    "ThreadWorker",
    "Worker",
    "as_kept",
    "by_value",
    "cause_of_exit",
    "encode_words",
    "error_of",
    "error_parts",
    "impostors",
    "introduced",
    "learn_identities",
    "limit_memory",
    "log_here",
    "make_worker",
    "parcel",
    "show_as",
    "spawn_child",
    "spawn_port_worker",
    "unpack_trusted",
]
