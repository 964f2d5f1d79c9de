import re
import time

import numpy as np
import sqlalchemy as sa

from {{ cookiecutter.package }} import store as stores
from {{ cookiecutter.package }}.checks import Model
from {{ cookiecutter.package }}.contract import Column, Contract
from {{ cookiecutter.package }}.monitoring import windows
from {{ cookiecutter.package }}.monitoring.windows import Events, Place
from {{ cookiecutter.package }}.reference import PREDICTION, SCORE, sample
from {{ cookiecutter.package }}.smoke import PREFIX

OTHER = Model("Garden", "v0")


def asked(stream, call, *given):
    """What a function of `windows` finds in the stream's store."""
    with stores.opened(stream.address) as store, store.reading() as connection:
        return call(connection, *given)


def test_only_what_the_champion_answered_counts(stream):
    """No shadow, no failed request, no smoke test, no other version."""
    (first,) = stream.add(1)
    stream.add(1, role="shadow")
    stream.add(1, role="canary")
    stream.add(1, status=503)
    stream.add(1, request_id=f"{PREFIX}1")
    stream.add(1, model_version="v0")
    (last,) = stream.add(1)
    place = asked(stream, windows.place, stream.model, None, 2, 2e6)
    assert Place(stream.START + 7, last) == place
    events = asked(stream, windows.read, stream.model, place, 9)
    assert [first, last] == [each.id for each in events.places]
    assert 1 == asked(stream, windows.count, stream.model, events.places[0], 2e6)
    stream.tell(list(stream.truths), ["tall"] * 7)
    truths = asked(stream, windows.truths, stream.model, 99)
    assert {first, last} == {each.place.id for each in truths}


def test_places(stream):
    """A place is behind so many events, up to a moment; equal moments are told apart by id."""
    ids = stream.add(5, ts=50.0) + stream.add(5, ts=60.0)
    place = asked(stream, windows.place, stream.model, None, 3, 99.0)
    assert Place(50.0, ids[2]) == place
    assert Place(60.0, ids[6]) == asked(stream, windows.place, stream.model, place, 4, 99.0)
    assert asked(stream, windows.place, stream.model, place, 4, 59.0) is None
    assert asked(stream, windows.place, stream.model, place, 8, 99.0) is None
    assert 7 == asked(stream, windows.count, stream.model, place, 99.0)
    assert 4 == asked(stream, windows.count, stream.model, place, Place(60.0, ids[6]))
    assert Place(60.0, ids[6]) == asked(stream, windows.place_before, stream.model, 3, 99.0)
    assert asked(stream, windows.place_before, stream.model, 10, 99.0) is None
    events = asked(stream, windows.read, stream.model, Place(60.0, ids[6]), 4)
    assert ids[3:7] == [each.id for each in events.places]


def test_the_newest_model(stream):
    """Of the last event that is not of the future."""
    assert asked(stream, windows.newest, 2e6) is None
    stream.add(1)
    stream.add(1, model_version="v0")
    stream.add(1, ts=3e6)
    assert OTHER == asked(stream, windows.newest, 2e6)
    assert stream.model == asked(stream, windows.newest, 4e6)
    assert 1 == asked(stream, windows.future, stream.model, 2e6)


def test_the_newest_events_with_a_truth(stream, monkeypatch):
    """In the order of their time; of several truths the latest, among those that came last."""
    monkeypatch.setattr(windows, "PARAMETERS", 2)
    ids = stream.add(6)
    stream.tell(ids[3:], ["dwarf"] * 3)
    stream.tell(ids[:4], ["tall"] * 4)
    truths = asked(stream, windows.truths, stream.model, 99)
    events = asked(stream, windows.labelled, truths, 4)
    assert ids[2:] == [each.id for each in events.places]
    assert ["tall", "tall", "dwarf", "dwarf"] == events.labels
    assert max(each.received for each in truths) <= time.time()
    last = asked(stream, windows.truths, stream.model, 2)
    assert set(ids[:4]) >= {each.place.id for each in last}
    assert [] == asked(stream, windows.truths, OTHER, 99)
    assert 0 == len(asked(stream, windows.labelled, [], 4))


def test_an_event_that_is_erased_meanwhile(stream):
    """Its truth is passed over."""
    ids = stream.add(3)
    stream.tell(ids)
    truths = asked(stream, windows.truths, stream.model, 99)
    with stores.opened(stream.address) as store:
        store.prune(stream.START + 2)
    events = asked(stream, windows.labelled, truths, 9)
    assert (ids[1:], 2) == ([each.id for each in events.places], len(events.labels))


def test_examples_are_looked_up(stream):
    """In the order asked for; what is gone, or was not kept, is left out."""
    ids = stream.add(2) + stream.add(1, features=None)
    found = asked(stream, windows.rows, [ids[1], "none", ids[2], ids[0]])
    assert 2 == len(found)
    assert found == asked(stream, windows.rows, [ids[1]]) + asked(stream, windows.rows, [ids[0]])


def events_of(rows, predictions=None, scores=None):
    """Some events that were asked these rows."""
    said = predictions or ["tall"] * len(rows)
    scores = np.array(scores or [0.5] * len(rows), dtype=float)
    places = [Place(float(i), str(i)) for i in range(len(rows))]
    return Events(places, rows, [{"prediction": each} for each in said], scores, None, [])


def test_columns_of_every_kind():
    """As training encodes them; what cannot be read, or is not there, is missing."""
    contract = Contract(
        "binary",
        None,
        (
            Column("height", "numeric", nullable=True),
            Column("leaves", "integer"),
            Column("color", "categorical", categories=("blue", "red")),
            Column("treated", "boolean", categories=("no", "yes")),
            Column("planted", "datetime"),
            Column("note", "excluded"),
        ),
    )
    rows = [
        {"height": 1.5, "leaves": 3, "color": "red", "treated": "yes", "planted": "1970-01-02"},
        {"height": None, "leaves": True, "color": "pink", "treated": False, "planted": "soon"},
        {"height": "tall", "leaves": "4", "color": None, "treated": None, "note": "x", "new": 1},
    ]
    groups = [sample(PREDICTION, ("dwarf", "tall"), np.zeros(9))]
    events = events_of(rows, ["tall", None, "huge"], [0.5, None, 1])
    found, untested = windows.columns(events, contract, groups, None)
    nan = np.nan
    expected = {
        "height": [1.5, nan, nan],
        "leaves": [3, 1, 4],
        "color": [1, -1, nan],
        "treated": [1, 0, nan],
        "planted": [86400, nan, nan],
        PREDICTION: [1, nan, -1],
        SCORE: [0.5, nan, 1],
    }
    assert list(expected) == list(found)
    for name, values in expected.items():
        np.testing.assert_array_equal(values, found[name], name)
    assert {"new": "new since the reference"} == untested
    kept, untested = windows.columns(events, contract, groups, ("height", "leaves", "color"))
    assert ["height", "leaves", "color", PREDICTION, SCORE] == list(kept)
    assert ["treated", "planted", "new"] == list(untested)


def test_predictions_that_are_numbers():
    """A regression has no groups and no score of its own."""
    contract = Contract("regression", None, ())
    found, _ = windows.columns(events_of([{}, {}], [1.5, None]), contract, [], None)
    assert [PREDICTION] == list(found)
    np.testing.assert_array_equal([1.5, np.nan], found[PREDICTION])


def statements(stream, caught):
    """All that the monitor asks of events and truths, and what SQLite would do for it."""
    with stores.opened(stream.address) as store, store.reading() as connection:
        for text, values in caught:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
            yield text, [row[3] for row in plan]


def test_whatever_is_asked_is_found_by_an_index(stream, tmp_path):
    """No statement of a look goes through all events or truths, or sorts them."""
    stream.address = f"sqlite:///{tmp_path}/plans.db"
    stream.tell(stream.add(160))
    caught = []

    def listen(*told):
        text, values = told[2:4]
        if re.search(r"FROM (prediction_event|ground_truth)\b", text) and text.startswith("SELECT"):
            caught.append((text, values))

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", listen)
    try:
        stream.look()
        stream.add(50)
        stream.look()
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", listen)
    assert len({text for text, _ in caught}) >= 9
    for text, plan in statements(stream, caught):
        tables = [step for step in plan if re.match(r"(SCAN|SEARCH) ", step)]
        assert tables, text
        # The newest event of all is the first one that the index on moments has.
        by_moment = "ORDER BY prediction_event.ts DESC\n LIMIT" in text
        for step in plan:
            assert "TEMP B-TREE FOR ORDER BY" not in step, (text, plan)
            assert by_moment or not step.startswith("SCAN"), (text, plan)
            assert "prediction_event_ts" not in step or by_moment, (text, plan)
