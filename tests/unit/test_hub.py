"""The hub offers, drops by policy, and keeps exact books."""

import asyncio
import threading

import numpy as np
import pytest

from duodaq.clock import pause
from duodaq.dataplane import AlarmKind, Hub, OccupancyAlarm, Policy
from duodaq.errors import MailboxFullError, StoppedError
from duodaq.model import Image


def keyed(stream: str, number: int) -> tuple[str, int]:
    return stream, number


def make_hub(**options) -> Hub[tuple[str, int]]:
    return Hub("test", key=lambda item: item[0], **options)


def drain(subscription) -> list[int]:
    return [subscription.get_nowait()[1] for _ in range(subscription.occupancy)]


def test_every_subscriber_gets_every_item_in_order():
    hub = make_hub()
    first, second = hub.subscribe("first"), hub.subscribe("second")
    for number in range(5):
        hub.publish(keyed("a", number))
    assert drain(first) == drain(second) == [0, 1, 2, 3, 4]


def test_drop_oldest_keeps_the_newest_and_counts_the_rest():
    hub = make_hub()
    reader = hub.subscribe("reader", capacity=3)
    for number in range(10):
        hub.publish(keyed("a", number))
    row = hub.ledger().row("a", "reader")
    assert row.dropped == {"drop-oldest": 7}
    assert row.in_flight == 3
    assert drain(reader) == [7, 8, 9]


def test_drop_newest_keeps_the_oldest():
    hub = make_hub()
    reader = hub.subscribe("reader", capacity=3, policy=Policy.DROP_NEWEST)
    for number in range(10):
        hub.publish(keyed("a", number))
    assert drain(reader) == [0, 1, 2]
    assert hub.ledger().row("a", "reader").dropped == {"drop-newest": 7}


def test_latest_keeps_one_item_of_each_stream_in_order_of_arrival():
    hub = make_hub()
    reader = hub.subscribe("reader", policy=Policy.LATEST)
    for stream, number in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]:
        hub.publish(keyed(stream, number))
    assert drain(reader) == [3, 4, 5]
    assert hub.ledger().row("a", "reader").dropped == {"superseded": 1}


def test_a_slow_reader_loses_alone_and_is_told_how_many():
    hub = make_hub()
    slow, fast = hub.subscribe("slow", capacity=2), hub.subscribe("fast", capacity=100)
    for number in range(10):
        hub.publish(keyed("a", number))
    assert slow.take_missed() == 8
    assert slow.take_missed() == 0
    assert fast.take_missed() == 0
    assert drain(fast) == list(range(10))


def test_publishing_to_a_full_blocking_reader_is_refused_before_anybody_was_offered_the_item():
    hub = make_hub()
    other, blocking = hub.subscribe("other"), hub.subscribe("blocking", capacity=1, policy=Policy.BLOCK)
    hub.publish(keyed("a", 0))
    with pytest.raises(MailboxFullError, match="blocking"):
        hub.publish(keyed("a", 1))
    assert drain(other) == [0]
    assert hub.ledger().produced_of("a") == 1
    assert drain(blocking) == [0]


def test_a_blocking_reader_that_spills_loses_alone_and_counts_it_as_overflow():
    hub = make_hub()
    recorder = hub.subscribe("recorder", capacity=1, policy=Policy.BLOCK, sync_overflow="drop")
    other = hub.subscribe("other")
    for number in range(3):
        hub.publish(keyed("a", number))
    assert drain(other) == [0, 1, 2]
    assert hub.ledger().row("a", "recorder").dropped == {"overflow": 2}
    assert recorder.figures().losing_alarms == 1


async def test_publish_wait_waits_until_a_blocking_reader_has_room():
    hub = make_hub()
    reader = hub.subscribe("reader", capacity=1, policy=Policy.BLOCK)
    hub.publish(keyed("a", 0))
    waiting = asyncio.create_task(hub.publish_wait(keyed("a", 1), 5))
    await pause(0)
    assert reader.get_nowait() == ("a", 0)
    await waiting
    assert reader.get_nowait() == ("a", 1)
    assert reader.dropped == 0


async def test_publish_wait_gives_up_at_its_deadline_and_nobody_was_offered_the_item():
    hub = make_hub()
    hub.subscribe("reader", capacity=1, policy=Policy.BLOCK)
    hub.publish(keyed("a", 0))
    with pytest.raises(MailboxFullError, match="stayed full"):
        await hub.publish_wait(keyed("a", 1), 0.01)
    assert hub.ledger().produced_of("a") == 1


async def test_publish_wait_goes_on_when_the_full_reader_leaves():
    hub = make_hub()
    reader = hub.subscribe("reader", capacity=1, policy=Policy.BLOCK)
    hub.publish(keyed("a", 0))
    waiting = asyncio.create_task(hub.publish_wait(keyed("a", 1), 5))
    await pause(0)
    reader.close()
    await waiting
    assert hub.ledger().produced_of("a") == 2


def test_a_name_is_unique_while_its_subscription_is_open():
    hub = make_hub()
    reader = hub.subscribe("reader")
    with pytest.raises(ValueError, match="already has"):
        hub.subscribe("reader")
    reader.close()
    assert hub.subscribe("reader").occupancy == 0


def test_what_a_closed_reader_had_not_read_is_dropped_as_closed():
    hub = make_hub()
    reader = hub.subscribe("reader")
    for number in range(4):
        hub.publish(keyed("a", number))
    reader.get_nowait()
    hub.unsubscribe("reader")
    hub.publish(keyed("a", 9))
    row = hub.ledger().row("a", "reader")
    assert (row.produced, row.delivered, row.dropped, row.in_flight) == (4, 1, {"closed": 3}, 0)
    assert hub.ledger().balanced


def test_a_filtered_reader_is_offered_only_what_it_accepts():
    hub = make_hub()
    reader = hub.subscribe("reader", accepts=lambda item: item[1] % 2 == 0)
    for number in range(5):
        hub.publish(keyed("a", number))
    row = hub.ledger().row("a", "reader")
    assert (row.produced, row.skipped, row.offered) == (5, 2, 3)
    assert drain(reader) == [0, 2, 4]


def test_a_late_joiner_accounts_only_for_what_came_since():
    hub = make_hub()
    hub.publish(keyed("a", 0))
    hub.subscribe("late")
    hub.publish(keyed("a", 1))
    assert hub.ledger().produced_of("a") == 2
    assert hub.ledger().row("a", "late").produced == 1


def test_batches_count_for_their_rows():
    hub: Hub[tuple[str, int]] = Hub("test", key=lambda item: item[0], weigh=lambda item: item[1])
    reader = hub.subscribe("reader", capacity=2)
    for rows in (10, 20, 30):
        hub.publish(("a", rows))
    row = hub.ledger().row("a", "reader")
    assert (row.produced, row.dropped, row.in_flight) == (60, {"drop-oldest": 10}, 50)
    assert (reader.occupancy, reader.in_flight, reader.take_missed()) == (2, 50, 10)


def test_waiting_items_keep_no_more_memory_than_allowed():
    hub = make_hub(size_of=lambda item: item[1])
    reader = hub.subscribe("reader", max_bytes=100)
    for size in (40, 40, 40, 500):
        hub.publish(("a", size))
    assert drain(reader) == [500]
    assert reader.dropped == 3


def test_memory_that_a_reader_took_is_free_again():
    hub = make_hub(size_of=lambda item: item[1])
    reader = hub.subscribe("reader", max_bytes=100)
    for size in (60, 30):
        hub.publish(("a", size))
    assert reader.get_nowait() == ("a", 60)
    hub.publish(("a", 70))
    assert drain(reader) == [30, 70]
    assert reader.dropped == 0
    assert reader.high_water == 2


def test_a_closed_hub_takes_nothing_and_its_readers_get_what_waits():
    hub = make_hub()
    reader = hub.subscribe("reader")
    hub.publish(keyed("a", 0))
    hub.close()
    with pytest.raises(StoppedError):
        hub.publish(keyed("a", 1))
    with pytest.raises(StoppedError):
        hub.subscribe("late")
    assert reader.get_nowait() == ("a", 0)
    with pytest.raises(StoppedError):
        reader.get_nowait()


async def test_aclose_drops_what_is_not_read_in_time_as_closed():
    hub = make_hub()
    hub.subscribe("reader")
    hub.publish(keyed("a", 0))
    await hub.aclose(drain_s=0.01)
    assert hub.ledger().row("a", "reader").dropped == {"closed": 1}
    assert hub.subscriptions() == ()


def test_ledgers_of_several_hubs_merge_and_print():
    one, two = make_hub(), Hub("other", key=lambda item: item[0])
    one.subscribe("reader")
    two.subscribe("reader")
    one.publish(keyed("a", 1))
    two.publish(keyed("a", 2))
    merged = one.ledger().merge(two.ledger())
    assert merged.balanced
    assert [(row.hub, row.stream) for row in merged.rows()] == [("other", "a"), ("test", "a")]
    assert merged.produced_of("a") == 2
    assert merged.to_dict()["rows"][0]["balanced"] is True


def test_the_books_of_many_who_left_stay_bounded_and_balanced():
    hub = make_hub()
    for number in range(400):
        reader = hub.subscribe(f"client-{number}")
        hub.publish(keyed("a", number))
        reader.close()
    ledger = hub.ledger()
    assert len(ledger.entries) < 300
    assert sum(row.offered for row in ledger.entries) == 400
    assert ledger.balanced


@pytest.mark.parametrize("policy", list(Policy))
async def test_books_balance_at_every_look_while_threads_publish_read_and_leave(policy):
    hub = make_hub()
    steady = hub.subscribe("steady", capacity=50, policy=policy, sync_overflow="drop")
    stop = threading.Event()
    sent = [0, 0, 0]
    unbalanced: list[object] = []

    def produce(who: int) -> None:
        for number in range(3000):
            hub.publish(keyed(f"s{who}", number))
            sent[who] += 1

    def look() -> None:
        while not stop.is_set():
            ledger = hub.ledger()
            if not ledger.balanced:
                unbalanced.append(ledger.to_dict())

    def come_and_go() -> None:
        while not stop.is_set():
            passing = hub.subscribe("passing", capacity=5)
            passing.get_blocking(5) if not stop.is_set() and passing.occupancy else None
            passing.close()

    workers = [threading.Thread(target=produce, args=(who,)) for who in range(3)]
    watchers = [threading.Thread(target=look), threading.Thread(target=come_and_go)]
    for thread in workers + watchers:
        thread.start()
    seen: dict[str, list[int]] = {}
    while any(thread.is_alive() for thread in workers) or steady.occupancy:
        for stream, number in await steady.get_many(100, 0.01):
            seen.setdefault(stream, []).append(number)
    stop.set()
    for thread in workers + watchers:
        thread.join(10)
    ledger = hub.ledger()
    assert not unbalanced
    for who in range(3):
        row = ledger.row(f"s{who}", "steady")
        numbers = seen.get(f"s{who}", [])
        assert row.produced == sent[who] == 3000
        assert row.delivered == len(numbers)
        assert row.delivered + row.lost == 3000
        assert numbers == sorted(set(numbers))


def test_the_alarm_speaks_at_one_percent_lost_within_the_window_and_once_a_window():
    alarm = OccupancyAlarm()
    alarm.note(0.0, 1000, 0)
    assert alarm.due(10.0, 1999, 9, 0.0) == []
    assert [a.kind for a in alarm.due(10.0, 2000, 10, 0.0)] == [AlarmKind.LOSING]
    assert alarm.due(15.0, 2000, 500, 0.0) == []
    assert [a.kind for a in alarm.due(20.0, 2000, 500, 0.0)] == [AlarmKind.LOSING]


def test_the_alarm_forgets_what_was_lost_before_the_window():
    alarm = OccupancyAlarm()
    for second in range(30):
        alarm.note(float(second), 100 * (second + 1), 50)
    assert alarm.drop_rate(29.5, 3000, 50) == 0.0


def test_the_alarm_speaks_at_ninety_percent_full():
    alarm = OccupancyAlarm()
    assert alarm.due(0.0, 100, 0, 0.89) == []
    assert [a.kind for a in alarm.due(0.0, 100, 0, 0.9)] == [AlarmKind.NEARLY_FULL]


def test_alarms_are_logged_with_their_figures_once_a_window(caplog):
    now = [0.0]
    hub = make_hub(now_s=lambda: now[0])
    hub.subscribe("plot", capacity=10)
    for number in range(200):
        hub.publish(keyed("a", number))
    events = [(record.levelname, record.msg["event"], record.msg["subscriber"]) for record in caplog.records]
    assert events == [
        ("ERROR", "queue is nearly full", "plot"),
        ("WARNING", "slow reader is losing data", "plot"),
    ]
    now[0] = 11.0
    hub.publish(keyed("a", 0))
    assert len(caplog.records) == 4
    figures = hub.figures()[0]
    assert (figures.sent, figures.dropped, figures.losing_alarms, figures.full_alarms) == (201, 191, 2, 2)


def test_a_late_joiner_can_be_given_the_past_first():
    hub = make_hub()
    hub.publish(keyed("a", 1))
    hub.publish(keyed("b", 2))
    late = hub.subscribe("late", initial=[keyed("a", 1), keyed("b", 2)])
    hub.publish(keyed("a", 3))
    assert drain(late) == [1, 2, 3]
    assert hub.ledger().balanced
    assert hub.ledger().row("a", "late").produced == 2


def test_arrays_count_with_their_bytes_unless_told_otherwise():
    pixels = np.zeros((10, 10), np.uint8)
    hub: Hub[Image] = Hub("frames")
    reader = hub.subscribe("reader", max_bytes=250)
    for number in range(5):
        hub.publish(Image("cam", "frames", "counts", 0, number, pixels))
    assert [reader.get_nowait().sequence for _ in range(reader.occupancy)] == [3, 4]


def test_a_reader_s_faulty_filter_costs_nobody_else_the_item():
    hub = make_hub()
    faulty = hub.subscribe("faulty", accepts=lambda item: item[1] / 0 > 1)
    other = hub.subscribe("other")
    hub.publish(keyed("a", 1))
    assert drain(other) == [1]
    assert faulty.losses() == {"filter failed": 1}
    assert hub.ledger().balanced


async def test_back_pressure_reaches_a_publisher_on_another_loop_and_nothing_is_lost():
    hub = make_hub()
    reader = hub.subscribe("reader", capacity=3, policy=Policy.BLOCK)

    async def publish() -> None:
        for number in range(500):
            await hub.publish_wait(keyed("a", number), 30)

    publisher = threading.Thread(target=lambda: asyncio.run(publish()))
    publisher.start()
    got = [(await reader.get(30))[1] for _ in range(500)]
    await asyncio.to_thread(publisher.join)
    assert got == list(range(500))
    assert reader.high_water <= 3
    assert hub.ledger().row("a", "reader").delivered == 500


async def test_aclose_gives_readers_time_to_take_what_waits():
    hub = make_hub()
    reader = hub.subscribe("reader")
    hub.publish(keyed("a", 1))
    closing = asyncio.create_task(hub.aclose(drain_s=30))
    await pause(0)
    assert (await reader.get(1))[1] == 1
    await closing
    assert hub.ledger().row("a", "reader").delivered == 1
