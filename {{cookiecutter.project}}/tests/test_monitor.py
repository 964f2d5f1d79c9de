import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from {{ cookiecutter.package }} import bundle, checks
from {{ cookiecutter.package }} import store as stores
from {{ cookiecutter.package }}.checks import Model
from {{ cookiecutter.package }}.errors import BundleError, StoreError
from {{ cookiecutter.package }}.monitoring import monitor
from {{ cookiecutter.package }}.store import (
    monitor_look,
    monitor_window,
    prediction_event,
)


def success(stream):
    """When the monitor last came to its end."""
    with stores.opened(stream.address) as store, store.reading() as connection:
        look = checks.last_look(connection)
    return look.ts if look else None


def test_nothing_is_there_yet(stream):
    """Neither events nor truths are a state, and the monitor is known to have run."""
    before = time.time()
    found = stream.look()
    assert ("waiting", "no events", "no truths", 0) == (
        found.status,
        found.drift.state,
        found.performance.state,
        found.fresh,
    )
    assert before <= success(stream) <= time.time()
    assert (0, 100) == (found.drift.detail["waiting"], found.drift.detail["needed"])
    assert (0, 50) == (found.performance.detail["waiting"], found.performance.detail["needed"])


def test_what_waits_is_counted(stream):
    """Events that are no window yet are not tested, but told."""
    stream.add(99)
    found = stream.look()
    assert ("waiting", "window not full") == (found.status, found.drift.state)
    assert (99, 100) == (found.drift.detail["waiting"], found.drift.detail["needed"])
    stream.add(1)
    found = stream.look()
    assert ("steady", "checked", 1) == (found.status, found.drift.state, found.fresh)
    assert (0, 50) == (found.drift.detail["waiting"], found.drift.detail["needed"])


@pytest.mark.parametrize("moment", [None, 1_000_000.0], ids=["a second apart", "at one moment"])
def test_windows_go_on_where_they_ended(stream, moment):
    """However events arrive, and even at one moment, every 50th ends a window of the last 100."""
    same = {} if moment is None else {"ts": moment}
    ids = []
    for number in (30, 90, 1, 49, 80, 149, 1):
        ids += stream.add(number, **same)
        stream.look()
    assert [ids[end - 1] for end in range(100, 401, 50)] == [
        each.last_id for each in stream.windows()
    ]
    assert [ids[end - 100] for end in range(100, 401, 50)] == [
        each.detail["first_id"] for each in stream.windows()
    ]
    assert {100} == {each.events for each in stream.windows()}


def test_no_drift_is_steady(stream):
    """Rows like those of training are no alarm, and a heartbeat comes with each look."""
    stream.tell(stream.add(500))
    found = stream.look()
    assert ("steady", 10) == (found.status, found.fresh)
    assert not found.drift.alarm
    assert not found.performance.alarm
    first = success(stream)
    again = stream.look()
    assert ("steady", 0) == (again.status, again.fresh)
    assert found.drift.id == again.drift.id
    assert success(stream) > first


def test_drift_is_suspected_then_confirmed(stream):
    """The column, since when, and examples; the second window in a row confirms it."""
    stream.add(100)
    stream.look()
    stream.add(50, shift=20)
    found = stream.look()
    assert ("suspected", ()) == (found.status, tuple(found.streaks))
    alarms = {each.column: (each.change, each.score) for each in found.drift.findings if each.alarm}
    assert ("wider", pytest.approx(0.396, abs=0.001)) == alarms["height"]
    stream.add(50, shift=20)
    found = stream.look()
    assert "drift" == found.status
    streak = next(each for each in found.streaks if each["column"] == "height")
    assert {"column": "height", "checks": 2, "since": stream.START + 150} == streak
    assert all(row["height"] > 110 for row in found.drift.detail["examples"])
    assert 5 == len(found.drift.detail["examples"])
    stream.add(150)
    assert "steady" == stream.look().status


def test_what_was_found_is_told_again(stream, settings_with):
    """Who asks later is told the same, with what waits by then."""
    assert monitor.current(settings_with(events={"store": stream.address})) is None
    stream.tell(stream.add(200, shift=20))
    told = stream.look()
    again = monitor.current(settings_with(events={"store": stream.address}))
    assert replace(told, fresh=0) == again
    stream.add(20)
    stream.look()
    later = monitor.current(settings_with(events={"store": stream.address}))
    assert ("drift", 20, told.drift.id) == (
        later.status,
        later.drift.detail["waiting"],
        later.drift.id,
    )


def test_errors_are_degradation(stream):
    """Flipped labels are seen by their truths alone, and confirmed by the next ones."""
    stream.tell(stream.add(100, flips=0.4))
    found = stream.look()
    assert ("suspected", "checked", True) == (
        found.status,
        found.performance.state,
        found.performance.alarm,
    )
    assert found.performance.findings[0].low > 0.05
    stream.tell(stream.add(49, flips=0.4))
    assert (49, 50) == tuple(
        stream.look().performance.detail[each] for each in ("waiting", "needed")
    )
    stream.tell(stream.add(1, flips=0.4))
    found = stream.look()
    assert "degraded" == found.status
    assert "more errors" == found.performance.findings[0].change
    assert 100 == found.performance.events
    assert not found.drift.confirmed


def test_a_window_of_fewer_events_than_a_verdict_needs(stream):
    """So many truths are looked at as a verdict needs, however short a window of drift is."""
    stream.monitoring |= {"labels": 150}
    stream.tell(stream.add(149, flips=0.4))
    assert "too few truths" == stream.look().performance.state
    stream.tell(stream.add(1, flips=0.4))
    found = stream.look().performance
    assert ("checked", 150, True) == (found.state, found.events, found.alarm)


def test_late_events(stream):
    """What comes after its window was checked is told, and is no part of the next as new."""
    stream.add(120)
    first = stream.look()
    stream.add(7, ts=stream.START + 50.5)
    found = stream.look()
    assert (7, 0) == (found.drift.detail["late"], found.fresh)
    assert (first.drift.id, 20) == (found.drift.id, found.drift.detail["waiting"])
    last = stream.add(30)[-1]
    assert last == stream.look().drift.last_id


def test_a_clock_that_lags(stream):
    """Events that always come after their window was checked are told, however far it is back."""
    stream.add(500)
    stream.look()
    told = []
    for _ in range(3):
        stream.add(3, ts=lambda made: stream.START + made - 300)
        stream.add(97)
        told.append(stream.look().drift.detail["late"])
    assert [3, 6, 9] == told
    with stores.opened(stream.address) as store:
        store.prune(stream.START + 250)
    assert 6 == stream.look().drift.detail["late"]


def test_clocks_that_are_ahead(stream):
    """Events of the future are told, and looked at when their time has come."""
    stream.add(100)
    ahead = stream.START + 9999
    stream.add(50, ts=ahead)
    found = stream.look()
    assert (1, 50) == (found.fresh, found.drift.detail["future"])
    found = stream.look(now=ahead)
    assert (1, ahead) == (found.fresh, found.drift.last)
    assert "future" not in found.drift.detail


def test_young_events_wait(stream):
    """For so many seconds others may still have to be stored."""
    stream.monitoring["settle_seconds"] = 30
    stream.add(120)
    assert "window not full" == stream.look().drift.state
    assert stream.START + 100 == stream.look(stream.START + 130).drift.last


def test_a_model_is_swapped(stream):
    """The new one begins anew; what the old one still answers is not its, but told."""
    stream.add(100)
    stream.look()
    old, stream.model = stream.model, Model("Garden", "v2")
    stream.tell(stream.add(60, shift=30, model_version="v1"))
    found = stream.look()
    assert ("waiting", "no events", "no truths") == (
        found.status,
        found.drift.state,
        found.performance.state,
    )
    assert {"name": "Garden", "version": "v1"} == found.drift.detail["other"]
    for _ in range(3):
        stream.add(30, shift=30, model_version="v1")
        stream.add(34)
    found = stream.look()
    assert ("steady", 1, 100) == (found.status, found.fresh, found.drift.events)
    assert "other" not in found.drift.detail
    # And back again: there it goes on where it ended.
    stream.model = old
    found = stream.look()
    assert ("drift", 3) == (found.status, found.fresh - 1)
    assert 60 == found.performance.events


def test_pruned_events(stream):
    """A window is filled again after events were deleted, before or after they were looked at."""
    stream.add(120)
    stream.look()
    with stores.opened(stream.address) as store:
        store.prune(stream.START + 119)
    stream.add(97)
    assert 0 == stream.look().fresh
    ids = stream.add(51)
    found = stream.look()
    assert (2, ids[-1], 100) == (found.fresh, found.drift.last_id, found.drift.events)


def test_a_long_pause(stream, monkeypatch):
    """The newest windows are looked at, and how many events were passed over is told."""
    monkeypatch.setattr(monitor, "MOST_WINDOWS", 3)
    stream.add(100)
    stream.look()
    last = stream.add(525)[-26]
    with stores.opened(stream.address) as store, store.reading() as connection:
        assert 525 == len(list(connection.scalars(sa.select(prediction_event.c.ts)))) - 100
    found = stream.look()
    assert 3 == found.fresh
    windows = stream.windows()
    assert [None, 375, None, None] == [each.detail.get("skipped") for each in windows]
    assert [525, 575, 625] == [each.last - stream.START for each in windows[1:]]
    assert last != found.drift.last_id
    assert 0 == found.drift.detail["waiting"]


def test_a_first_look_at_a_long_history(stream, monkeypatch):
    """It is no different."""
    monkeypatch.setattr(monitor, "MOST_WINDOWS", 3)
    stream.add(525)
    found = stream.look()
    assert (3, 525) == (found.fresh, found.drift.last - stream.START)
    assert 375 == stream.windows()[0].detail["skipped"]


def test_columns_that_are_not_kept(stream):
    """What events.features leaves out, or names the entity, is told and no alarm."""
    stream.add(100, change=lambda row: {"color": row["color"]})
    found = stream.look(features=("color",))
    assert ("steady", {"height": "not kept of events"}) == (
        found.status,
        found.drift.detail["untested"],
    )
    assert {"color", "(prediction)", "(score)"} == {each.column for each in found.drift.findings}
    stream.add(50, change=lambda row: {"height": row["height"]})
    found = stream.look(entity="color")
    assert {"color": "not kept of events"} == found.drift.detail["untested"]
    stream.add(50)
    found = stream.look(entity="color", features=("height", "color"))
    assert {"color": "not kept of events"} == found.drift.detail["untested"]


def test_groups_in_which_it_errs(stream):
    """They are of columns that events keep, and name nobody."""

    def groups(**events):
        stream.tell(stream.add(100))
        found = stream.look(**events).performance.detail["slices"]
        return {each["name"].split(" = ")[0] for each in found}

    assert {"color"} == groups()
    assert set() == groups(features=("height",))
    assert set() == groups(entity="color", features=("height", "color"))


def test_columns_that_come_and_go(stream):
    """What no client sends any more is missing; what is new is named."""
    stream.add(100, change=lambda row: {"height": row["height"], "weight": 3})
    found = stream.look()
    assert [("color", "missing")] == [
        (each.column, each.kind) for each in found.drift.findings if each.alarm
    ]
    assert "new since the reference" == found.drift.detail["untested"]["weight"]


def test_all_values_are_missing(stream):
    """The share says so; the shape of nothing is not tested."""
    stream.add(100, change=lambda row: {**row, "height": None})
    found = stream.look()
    alarms = {(each.column, each.change) for each in found.drift.findings if each.alarm}
    assert {("height", "more missing")} == alarms
    assert "fewer than 30 values in the window" == found.drift.detail["untested"]["height"]


def test_no_features_at_all(stream):
    """Where none is kept, what the model says still is watched."""
    stream.add(100, features=None, output='{"prediction": "tall"}', score=None)
    found = stream.look(features=())
    alarms = {each.column for each in found.drift.findings if each.alarm}
    assert {"(prediction)", "(score)"} == alarms
    assert {"height", "color"} <= set(found.drift.detail["untested"])


def test_one_class_only(stream):
    """A model that says one thing, which is always true, is measured as far as that goes."""
    ids = stream.add(100, output='{"prediction": "tall", "probabilities": {"tall": 1, "dwarf": 0}}')
    stream.tell(ids, ["tall"] * 100)
    found = stream.look()
    assert "checked" == found.performance.state
    assert (1.0, 0.0) == (
        found.performance.detail["metrics"]["accuracy"],
        found.performance.detail["loss"],
    )
    assert "roc_auc" not in found.performance.detail["metrics"]
    assert not found.performance.alarm
    assert "(prediction)" in found.drift.detail["drifted"]


def test_entities_count_once(stream):
    """Of those that ask often the last event is looked at."""
    stream.add(100, entity_key=lambda number: f"{number % 50}")
    found = stream.look()
    assert (100, 50) == (found.drift.events, found.drift.rows)
    assert {} == found.drift.detail["untested"]
    stream.add(75, entity_key="0")
    found = stream.look()
    assert (100, 50) == (found.drift.events, found.drift.rows)
    stream.add(25, entity_key="0")
    found = stream.look()
    assert (100, 1) == (found.drift.events, found.drift.rows)
    assert {"fewer than 30 rows"} == set(found.drift.detail["untested"].values())
    assert not found.drift.alarm


def test_a_regression(stream_of):
    """Errors are told in mean errors of the reference; a truth that is no number is left out."""
    stream = stream_of("regression")
    ids = stream.add(100, flips=0.3)
    stream.tell(ids[:90])
    stream.tell(ids[90:], ["much"] * 10)
    found = stream.look()
    assert (90, True) == (found.performance.rows, found.performance.alarm)
    assert "larger errors" == found.performance.findings[0].change
    assert pytest.approx(1) == found.performance.detail["reference"]
    assert {"r2", "mean_absolute_error"} <= set(found.performance.detail["intervals"])
    assert {"height", "color", "(prediction)"} == {each.column for each in found.drift.findings}


def test_a_clustering(stream_of):
    """Groups and scores are watched; truths tell nothing."""
    stream = stream_of("clustering")
    stream.tell(stream.add(100, shift=20), ["inlier"] * 100)
    found = stream.look()
    assert ("no target", "checked") == (found.performance.state, found.drift.state)
    assert {"height", "(prediction)"} == set(found.drift.detail["drifted"])


def test_the_reference_is_too_small(stream):
    """Nothing is tested, and how much is wanted is told."""
    stream.samples = tuple(replace(each, values=each.values[::10]) for each in stream.samples)
    stream.add(100)
    found = stream.look()
    assert ("waiting", "reference too small") == (found.status, found.drift.state)
    assert (200, 300) == (found.drift.detail["waiting"], found.drift.detail["needed"])


def test_labels_of_nobody(stream):
    """Truths of predictions that are not there, or of others, are no truths of this model."""
    stream.add(100)
    shadow = stream.add(60, role="shadow")
    stream.tell([*shadow, *(f"none-{i}" for i in range(60))], ["tall"] * 120)
    found = stream.look()
    assert ("no truths", 1) == (found.performance.state, found.fresh)


def test_a_truth_that_was_corrected(stream):
    """The latest counts, and once."""
    ids = stream.add(100)
    stream.tell(ids)
    stream.tell(ids, ["huge"] * 100)
    found = stream.look()
    assert (100, 1.0, {}) == tuple(
        found.performance.detail[each] for each in ("labelled", "loss", "metrics")
    )


def test_two_monitors_at_once(stream):
    """Every window is checked once, whoever does it, and nobody fails."""
    stream.tell(stream.add(600))
    stores.connect(stream.address).close()
    found, begin = [], threading.Barrier(4)

    def look():
        begin.wait()
        found.append(stream.look())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4 == len(found)
    assert list(range(100, 601, 50)) == [each.last - stream.START for each in stream.windows()]
    assert 1 == len(stream.windows("performance"))
    assert 12 == sum(each.fresh for each in found)
    assert not all(each.overtaken for each in found)


def test_who_is_overtaken_leaves_no_heartbeat(stream, monkeypatch):
    """It did not come to the end: whoever was faster says so."""
    stream.add(100)
    monkeypatch.setattr(checks, "write", lambda *_: None)
    found = stream.look()
    assert (True, 0) == (found.overtaken, found.fresh)
    assert success(stream) is None


def test_the_store_is_gone(stream, tmp_path):
    """The error names it, and has its exit code."""
    stream.add(200)
    (tmp_path / "blocked").touch()
    stream.address = f"sqlite:///{tmp_path}/blocked/store.db"
    with pytest.raises(StoreError, match=r"blocked/store.db: .*; set events.store") as caught:
        stream.look()
    assert 11 == caught.value.exit_code


def test_a_monitor_is_killed_between_windows(stream, settings_with):
    """What was checked is there, whole; the next one goes on, and only it is a success."""
    stream.add(200)
    settings = settings_with(monitoring=stream.monitoring, events={"store": stream.address})

    def killed(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        monitor.monitor(settings, stream.START + 200, killed)
    assert [100.0] == [each.last - stream.START for each in stream.windows()]
    assert len(stream.windows()[0].findings) > 3
    assert success(stream) is None
    assert 2 == stream.look().fresh
    assert success(stream)


def test_what_is_erased_is_no_example(stream):
    """The store of findings holds no row of its own."""
    stream.add(99)
    stream.add(1, entity_key="Ada", change=lambda row: {**row, "height": 777.5, "color": "mauve"})
    with stores.opened(stream.address) as store:
        assert "mauve" in [row["color"] for row in stream.look().drift.detail["examples"]]
        store.erase("Ada")
        assert "mauve" not in [row["color"] for row in stream.look().drift.detail["examples"]]
        with store.reading() as connection:
            for table in (monitor_window, monitor_look):
                assert "mauve" not in str(connection.execute(sa.select(table)).all())


def test_a_bundle_without_a_reference(road, tmp_path):
    """Older bundles have none: what to do is told, and nothing is looked at."""
    folder = shutil.copytree(road.settings.serving.bundle, tmp_path / "bundle")
    (folder / bundle.SAMPLE).unlink()
    serving = road.settings.serving.model_copy(update={"bundle": folder})
    with pytest.raises(BundleError, match=r"reference.npz"):
        monitor.monitor(road.settings.model_copy(update={"serving": serving}))


def test_every_task_has_its_subject(each_road):
    """What is served is what is monitored: its name, version, contract and samples."""
    found = monitor.subject(each_road.settings)
    assert found.model.version == each_road.predictor.card["version"]
    assert each_road.predictor.contract == found.contract
    assert (found.contract.target is None) is (found.sample("(loss)") is None)
    assert np.isfinite(found.sample("(prediction)").values).all()
