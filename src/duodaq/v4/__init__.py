"""The actor runtime: supervised actors with bounded mailboxes, typed messages, ask and tell, every fate stated."""

from duodaq.errors import MailboxFullError as WouldBlock
from duodaq.v4._actor import Actor
from duodaq.v4._drivers import BUILT_IN, ActorKind, may_move
from duodaq.v4._message import (
    ActorState,
    DeadLetter,
    Finish,
    LinkNotice,
    MailboxMetrics,
    StopReason,
    handler,
)
from duodaq.v4._operation import Operation, Progress
from duodaq.v4._policy import GiveUp, Restart, RestartPolicy
from duodaq.v4._publisher import DataPublisher
from duodaq.v4._ref import ActorRef
from duodaq.v4._runtime import V4Runtime
from duodaq.v4._supervisor import Escalation, Supervisor
from duodaq.v4._system import ActorSystem, Registry
from duodaq.v4.instruments import Keep

__all__ = [
    "BUILT_IN",
    "Actor",
    "ActorKind",
    "ActorRef",
    "ActorState",
    "ActorSystem",
    "DataPublisher",
    "DeadLetter",
    "Escalation",
    "Finish",
    "GiveUp",
    "Keep",
    "LinkNotice",
    "MailboxMetrics",
    "Operation",
    "Progress",
    "Registry",
    "Restart",
    "RestartPolicy",
    "StopReason",
    "Supervisor",
    "V4Runtime",
    "WouldBlock",
    "handler",
    "may_move",
]
