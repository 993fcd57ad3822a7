from __future__ import annotations

from collections.abc import Callable

from duodaq.clock import Deadline
from duodaq.errors import LifecycleError
from duodaq.link import News
from duodaq.ports._lock import LockAction, LockOutcome, LockRequest, LockVerdict
from duodaq.ports._port import on_owner_loop
from duodaq.ports._seat import LineOwner, Seat

_GRACE_S = 10.0


class SessionLock:
    """The locks of one blocking session: asked for from any thread, one at a time.

    Args:
        owner: The port.
        holder: In whose name.
        seat: The place from which the session speaks while it has a lock.
        news: What the session sleeps on.
        check: Raises what ended the session.
    """

    def __init__(self, owner: LineOwner, holder: str, seat: Seat, news: News, check: Callable[[], None]) -> None:
        self.seat = seat
        self.times = 0
        self._owner = owner
        self._holder = holder
        self._news = news
        self._check = check

    def request(self, action: LockAction, key: str | None = None, timeout_s: float | None = None) -> LockOutcome:
        """Lock, unlock or look; `timeout_s` None waits for ever.

        Raises:
            PortLostError: The line is lost; or was, since it was locked: others may have spoken on it meanwhile.
        """
        self._check()
        ended: list[tuple[LockOutcome | None, BaseException | None]] = []

        def told(outcome: LockOutcome | None, error: BaseException | None) -> None:
            with self._news:
                ended.append((outcome, error))
                self._news.notify_all()

        request = LockRequest(self.seat, self._holder, action, key, told)
        on_owner_loop(self._owner, self._owner.lock, request, timeout_s)
        try:
            waits = action in (LockAction.EXCLUSIVE, LockAction.SHARED)
            outcome = self._wait(ended, None if waits and timeout_s is None else (timeout_s or 0.0) + _GRACE_S)
        except BaseException:  # nobody waits for it any more; what was refused is not under way
            on_owner_loop(self._owner, self._owner.withdraw_lock, request)
            raise
        self._count(action, outcome.verdict)
        return outcome

    def _wait(self, ended: list[tuple[LockOutcome | None, BaseException | None]], limit_s: float | None) -> LockOutcome:
        limit = Deadline(limit_s)
        with self._news:
            while not ended:
                self._check()
                if limit.passed:
                    raise LifecycleError("the broker does not answer", port=self._owner.name)
                self._owner.await_news(self._news, None if limit_s is None else limit.left_s)
        outcome, error = ended[0]
        if error is not None:
            raise error
        if outcome is None:
            raise LifecycleError("the broker's answer is empty", port=self._owner.name)
        return outcome

    def _count(self, action: LockAction, verdict: LockVerdict) -> None:
        done = verdict in (LockVerdict.DONE, LockVerdict.NESTED_EXCLUSIVE, LockVerdict.NESTED_SHARED)
        if done and action in (LockAction.EXCLUSIVE, LockAction.SHARED):
            self.times += 1
        elif done and action is LockAction.UNLOCK:
            self.times -= 1
