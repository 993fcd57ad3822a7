"""A stop-all from outside the lab: by its manager, and past it when it does not answer.

The question is on its way before anything is loaded that only reads the answer or shows it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duodaq.app._user import this_program
from duodaq.errors import DeliveryError, DuodaqError
from duodaq.link import LAB_PROTOCOL, ask_once, find_lab, lab_of, watchdog_path
from duodaq.watchdog import ask_watchdog_to_stop_all

ANSWER_S = 0.2
"""A manager that has not answered by then is not waited for alone: the watchdog writes the stop bytes as well."""
MANAGER_S = 15.0
_REPLY_S = 10.0


def stop_all_of(lab: str | None, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Stop everything that moves or emits in a running lab; the manager's report.

    If the manager does not answer within 0.2 s, its watchdog puts the stop bytes on the wire as well; what it wrote
    comes under ``"watchdog"``. Without an answer of the manager at all that is the whole report, and ``"ended"``, the
    number of waiting commands that ended, is None.

    Args:
        lab: Which one; the only one that runs if None.
        tell: Told in a sentence, as soon as that has happened, that the manager does not answer and what its watchdog
            did.

    Raises:
        LifecycleError: No such lab is running.
        DuodaqError: Neither of the two could do it.
    """
    socket = find_lab(lab)
    asked = _in_a_thread(lambda: _ask_manager(socket))
    try:
        return asked.result(ANSWER_S)
    except concurrent.futures.TimeoutError:
        written = _ask_watchdog(watchdog_path(socket))
    if tell is not None:
        tell(_said_meanwhile(lab_of(socket), written))
    try:
        return {**asked.result(MANAGER_S), "watchdog": written["ports"]}
    except (concurrent.futures.TimeoutError, DuodaqError) as error:
        silent = f"the manager did not answer within {MANAGER_S:g} s" if isinstance(error, TimeoutError) else str(error)
        return _by_the_watchdog_alone(lab_of(socket), written, silent)


def _ask_watchdog(path: Path) -> dict[str, Any]:
    """What the watchdog wrote; of a lab that has none: nothing."""
    try:
        return ask_watchdog_to_stop_all(path)
    except DuodaqError as error:
        return {"t_ns": 0, "ports": {}, "error": str(error)}


def _said_meanwhile(lab: str, written: dict[str, Any]) -> str:
    reached = [port for port, told in written["ports"].items() if "written_ns" in told]
    did = (
        f"its watchdog has put the stop on the wire of {', '.join(reached)}"
        if reached
        else "its watchdog reached no port"
    )
    why = f" ({written['error']})" if "error" in written else ""
    return f"{lab} does not answer; {did}{why}. Waiting for {lab} itself, for {MANAGER_S:g} s at most …"


def _by_the_watchdog_alone(lab: str, written: dict[str, Any], why: str) -> dict[str, Any]:
    ports: dict[str, dict[str, Any]] = written["ports"]
    if not any("written_ns" in told for told in ports.values()):
        raise DeliveryError(f"{why}, and its watchdog reached no port", fate="unknown")
    return {
        "lab": lab,
        "on_wire_ns": {port: told["written_ns"] for port, told in ports.items() if "written_ns" in told},
        "failures": {"manager": why, **{port: told["error"] for port, told in ports.items() if "error" in told}},
        "no_fail_safe": [],
        "ended": None,
        "t_ns": written["t_ns"],
        "watchdog": ports,
    }


def _ask_manager(socket: Path) -> dict[str, Any]:
    who = ("describe", {"who": this_program()})  # for the lab's log
    report = ask_once(socket, "stop_all", before=(who,), version=LAB_PROTOCOL, timeout_s=_REPLY_S)
    return {"lab": lab_of(socket), **report}


def _in_a_thread(work: Any) -> concurrent.futures.Future[dict[str, Any]]:
    """`work()` in a daemon thread: a manager that never answers must not keep the program from ending."""
    future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name="duodaq-stop-all", daemon=True).start()
    return future
