"""Places where runtimes run: on the manager's own loop, or in a thread with a loop of its own."""

from duodaq.workers._hosted import Hosted
from duodaq.workers._inline import InlineWorker
from duodaq.workers._promise import Worker, make_worker
from duodaq.workers._thread import ThreadWorker

__all__ = ["Hosted", "InlineWorker", "ThreadWorker", "Worker", "make_worker"]
