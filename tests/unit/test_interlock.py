import pytest

from duodaq.errors import UnsafeStateError
from duodaq.v4.instruments._interlock import Interlock


def test_nobody_may_open_what_nobody_armed() -> None:
    with pytest.raises(UnsafeStateError, match="nobody has armed it"):
        Interlock().permit(0)


def test_an_arming_counts_for_its_own_stop_epoch_only() -> None:
    interlock = Interlock()
    interlock.arm(7)
    interlock.permit(7)
    with pytest.raises(UnsafeStateError, match="a stop, or the loss of the line"):
        interlock.permit(8)


def test_what_an_epoch_has_disarmed_stays_disarmed() -> None:
    interlock = Interlock()
    interlock.arm(7)
    assert not interlock.armed(8)
    assert not interlock.armed(7)


def test_it_says_why_it_was_disarmed() -> None:
    interlock = Interlock()
    interlock.arm(0)
    interlock.disarm("it was made safe")
    interlock.disarm("something later")
    with pytest.raises(UnsafeStateError, match="it was made safe"):
        interlock.permit(0)


def test_arming_it_again_is_what_helps() -> None:
    interlock = Interlock()
    interlock.arm(0)
    interlock.disarm("once")
    interlock.arm(3)
    assert interlock.armed(3)
