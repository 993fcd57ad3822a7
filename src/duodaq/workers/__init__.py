"""Places where runtimes run: on the manager's own loop, in a thread with a loop of its own, or in a process."""

from duodaq.workers._across import AwaitedNeighbour, Neighbour, Switchboard, introduced
from duodaq.workers._hosted import Hosted
from duodaq.workers._identity import impostors, learn_identities
from duodaq.workers._inbox import FeedBooks
from duodaq.workers._inline import InlineWorker
from duodaq.workers._nursery import Nursery
from duodaq.workers._page import SharedPage
from duodaq.workers._parts import Factories, RuntimeFactory, RuntimeParts, as_kept
from duodaq.workers._port_worker import spawn_port_worker
from duodaq.workers._process import Surroundings
from duodaq.workers._process_group import ProcessGroup
from duodaq.workers._process_hosted import ProcessHosted
from duodaq.workers._promise import Host, Worker, make_worker
from duodaq.workers._recorder import RecorderDesk
from duodaq.workers._thread import ThreadWorker

__all__ = [
    "AwaitedNeighbour",
    "Factories",
    "FeedBooks",
    "Host",
    "Hosted",
    "InlineWorker",
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
    "impostors",
    "introduced",
    "learn_identities",
    "make_worker",
    "spawn_port_worker",
]
