import threading
import time

import pytest

from {{ cookiecutter.package }} import checks
from {{ cookiecutter.package }} import store as stores
from {{ cookiecutter.package }}.checks import Finding, Look, Model, Window

MODEL, OTHER = Model("Garden", "v1"), Model("Garden", "v2")
FINDING = Finding("height", "shape", 0.25, 0.001, True, 100, "higher")
LOSS = Finding("(loss)", "loss", 0.1, 0.002, True, 90, "more errors", 0.05)


@pytest.fixture
def store(address):
    with stores.opened(address) as opened:
        yield opened


def window(number=1, model=MODEL, **parts):
    """A window that was checked."""
    values = {
        "events": 100,
        "rows": 90,
        "first": number - 1.0,
        "last": float(number),
        "last_id": f"{number}-0",
        "alarm": True,
        "findings": (FINDING, LOSS),
        "detail": {"drifted": ["height"]},
    }
    return Window(model, "drift", "checked", **values | parts)


def look(model=MODEL, **parts):
    """How a look ended that found nothing more to check."""
    waiting = {"state": "window not full", "detail": {"waiting": 7, "needed": 50}}
    none = {"state": "no truths", "detail": {"waiting": 0}}
    return Look(model, "steady", **{"drift": waiting, "performance": none} | parts)


def read(store, *given, **options):
    with store.reading() as connection:
        return checks.read(connection, *given, **options)


def current(store):
    with store.reading() as connection:
        look = checks.last_look(connection)
        return checks.verdicts(connection, look) if look else ()


def test_a_window_is_kept_as_it_is(store):
    """Everything comes back: places, findings in their order, detail, a number and a time."""
    before = time.time()
    written = checks.write(store, window(), None)
    assert (1, True) == (written.id, before <= written.ts <= time.time())
    assert [written] == read(store, MODEL, "drift", 9)
    assert [FINDING, LOSS] == list(written.findings)
    assert () == read(store, MODEL, "drift", 9, findings=False)[0].findings
    assert [] == read(store, MODEL, "performance", 9)
    assert [] == read(store, OTHER, "drift", 9)


def test_the_last_windows_are_read(store):
    """The oldest of them first."""
    after = None
    for number in range(1, 5):
        after = checks.write(store, window(number), after).id
    assert [3.0, 4.0] == [each.last for each in read(store, MODEL, "drift", 2)]


def test_who_comes_second_writes_nothing(store):
    """Neither its window nor its findings, whatever another monitor has written since."""
    first = checks.write(store, window(), None)
    assert checks.write(store, window(2), None) is None
    assert checks.write(store, window(2), first.id + 1) is None
    assert [first] == read(store, MODEL, "drift", 9)
    assert checks.write(store, window(2), first.id)
    assert checks.write(store, window(model=OTHER), None)


def test_what_is_no_number_is_null(store):
    """JSON has none; it would never be read again."""
    checks.write(store, window(detail={"metrics": {"r2": float("nan"), "log": 1.5}}), None)
    (found,) = read(store, MODEL, "drift", 1)
    assert {"metrics": {"r2": None, "log": 1.5}} == found.detail


def test_nothing_was_ever_looked_at(store):
    """Then there is no success and no verdict."""
    with store.reading() as connection:
        assert checks.last_look(connection) is None
    assert () == current(store)


def test_every_look_is_a_success(store):
    """Its moment is kept, once a model, also where nothing was checked."""
    moments = []
    for model in (MODEL, MODEL, OTHER, MODEL):
        moments.append(checks.looked(store, look(model)).ts)
        with store.reading() as connection:
            assert (model, moments[-1]) == (
                checks.last_look(connection).model,
                checks.last_look(connection).ts,
            )
    assert sorted(moments) == moments
    with store.reading() as connection:
        assert 2 == connection.exec_driver_sql("SELECT count(*) FROM monitor_look").scalar()


def test_the_verdict_is_brought_up_to_date(store):
    """The last window of each kind, with what waits since; without one, why there is none."""
    checks.looked(store, look())
    drift, performance = current(store)
    assert ("window not full", 7, None) == (drift.state, drift.detail["waiting"], drift.id)
    assert ("performance", "no truths") == (performance.kind, performance.state)
    written = checks.write(store, window(), None)
    drift, _ = current(store)
    assert (written.id, "checked", written.findings) == (drift.id, drift.state, drift.findings)
    assert {"drifted": ["height"], "waiting": 7, "needed": 50} == drift.detail
    checks.looked(store, look(OTHER))
    assert (OTHER, None) == (current(store)[0].model, current(store)[0].id)


def test_claimed_once(store):
    """However many claim a key at once, one is told that it may; until it is released."""
    told, begin = [], threading.Barrier(4)

    def claim():
        begin.wait()
        told.append(checks.claim(store, "retrain 1", "retrain", {"why": "drift"}))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [False, False, False, True] == sorted(told)
    checks.release(store, "retrain 1")
    assert checks.claim(store, "retrain 1", "retrain", {})
    assert checks.claim(store, "retrain 2", "retrain", {"why": "age"})
    assert checks.claim(store, "mail 1", "mail", {})
    with store.reading() as connection:
        assert ["retrain 2"] == [each["key"] for each in checks.actions(connection, "retrain")]
        found = checks.actions(connection, "retrain", 9)
    assert [("retrain 2", {"why": "age"}), ("retrain 1", {})] == [
        (each["key"], each["detail"]) for each in found
    ]


def test_alarms_in_a_row():
    """Counted from the last window back."""
    for alarms, expected in (((), 0), ((1, 0), 0), ((1, 0, 1), 1), ((1, 1), 2), ((0,), 0)):
        assert expected == checks.alarms([window(alarm=bool(each)) for each in alarms])


def test_what_is_old_is_pruned(store):
    """Windows, findings, looks and what was done go with the events."""
    checks.write(store, window(), None)
    checks.looked(store, look())
    checks.claim(store, "mail 1", "mail", {})
    store.prune(time.time() - 60)
    assert 1 == len(read(store, MODEL, "drift", 9))
    store.prune(time.time() + 60)
    assert [] == read(store, MODEL, "drift", 9)
    with store.reading() as connection:
        assert checks.last_look(connection) is None
        assert [] == checks.actions(connection, "mail")
        assert 0 == connection.exec_driver_sql("SELECT count(*) FROM monitor_check").scalar()
