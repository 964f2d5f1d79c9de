import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from {{ cookiecutter.package }} import events
from {{ cookiecutter.package }}.errors import ServingError
from {{ cookiecutter.package }}.events import Event, EventLog, Ids

HELD = """
import sys
from {{ cookiecutter.package }}.events import EventLog, Event
log = EventLog(sys.argv[1])
log.append([Event(1.5, "r", "b", "m", "v", "s", "champion", 200, 2.5, b"body", b"answer")])
print(log.path, flush=True)
sys.stdin.read()
"""


def event(number, size=0):
    """An event that can be told from others."""
    base, body = f"{number:032x}", b'{"rows": [{"n": %d}]}' % number + b" " * size
    return Event(float(number), "r", base, "m", "v", "s", "champion", 200, 0.5, body, b"")


def whole(folder):
    """All events of a folder."""
    return [found for path in events.segments(folder) for found, _ in events.read(path)]


def test_events_come_back_as_they_went(tmp_path):
    """What is appended is read, in order, each with the place where the next begins."""
    log = EventLog(tmp_path / "new" / "folder")
    sent = [
        Event(1.5, "ä", "b", "m", "v", "s", "shadow", 503, 2.25, b"\xff\x00", b"{}"),
        event(2),
        event(3),
    ]
    log.append(sent[:2])
    log.append(sent[2:])
    log.append([])
    read = list(events.read(log.path))
    assert sent == [found for found, _ in read]
    assert os.path.getsize(log.path) == read[-1][1]
    assert [read[-1]] == list(events.read(log.path, read[-2][1]))
    assert 0o600 == log.path.stat().st_mode & 0o777
    log.close()


def test_one_write_for_all(tmp_path, monkeypatch):
    """However many events, it is one call of the system."""
    written, write = [], os.write
    monkeypatch.setattr(os, "write", lambda *given: written.append(1) or write(*given))
    log = EventLog(tmp_path)
    log.append([event(number) for number in range(50)])
    log.close()
    assert [1] == written


@given(
    sizes=st.lists(st.integers(0, 300), max_size=6),
    cut=st.integers(0, 10_000),
    tail=st.binary(max_size=200),
)
def test_any_cut_and_any_bytes_after_it(tmp_path_factory, sizes, cut, tail):
    """A reader gives every whole frame before the first that is not, and nothing else."""
    folder = tmp_path_factory.mktemp("cut")
    log = EventLog(folder)
    sent = [event(number, size) for number, size in enumerate(sizes)]
    path, ends = folder / "x.log", [0]
    for each in sent:
        log.append([each])
        ends.append(os.path.getsize(log.path))
    content = log.path.read_bytes() if sent else b""
    log.close()
    path.write_bytes(content[:cut] + tail)
    read = list(events.read(path))
    least = sum(end <= cut for end in ends[1:])
    # Bytes that happen to go on as the frame did make it whole again.
    most = sum(content[:end] == path.read_bytes()[:end] for end in ends[1:])
    assert least <= len(read) <= most
    assert sent[: len(read)] == [found for found, _ in read]
    assert ends[1 : len(read) + 1] == [offset for _, offset in read]


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_an_altered_byte_ends_the_reading(tmp_path_factory, place, flip):
    """Whatever byte of the log is altered, no event comes out other than it went in."""
    log = EventLog(tmp_path_factory.mktemp("flip"))
    sent = [event(number) for number in range(3)]
    log.append(sent)
    content = bytearray(log.path.read_bytes())
    content[place % len(content)] ^= flip
    log.path.write_bytes(content)
    read = [found for found, _ in events.read(log.path)]
    assert sent[: len(read)] == read
    assert len(read) < 3
    log.close()


@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\x91\x01", b"text"], ids=repr)
def test_what_is_no_event_ends_the_reading(tmp_path, payload):
    """Zeros, as a lost disk cache leaves, and frames of something else are no events."""
    log = EventLog(tmp_path)
    log.append([event(1)])
    with log.path.open("ab") as file:
        file.write(events.HEADER.pack(len(payload), crc32(payload)) + payload + bytes(99))
    assert [event(1)] == whole(tmp_path)
    log.close()


@pytest.mark.parametrize(
    "limits", [{"segment_bytes": 1}, {"segment_seconds": 0}], ids=["large", "old"]
)
def test_segments_follow_each_other(tmp_path, limits):
    """A large or old segment is left, and closed: its lock is free."""
    log = EventLog(tmp_path, **limits)
    for number in range(3):
        log.append([event(number)])
    found = events.segments(tmp_path)
    assert 3 == len(found)
    assert [0, 1, 2] == sorted(each.ts for each in whole(tmp_path))
    assert [False, True, True] == sorted(free(path) for path in found)
    log.tick()
    assert all(map(free, found))
    assert -1 == log.descriptor


def free(path):
    """Whether nobody holds a segment."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        return events.locked(descriptor)
    finally:
        os.close(descriptor)


def test_the_lock_ends_with_the_writer(tmp_path):
    """As long as the writer lives its segment is locked; after kill -9 it is not, and is whole."""
    command = [sys.executable, "-c", HELD, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as writer:
        path = writer.stdout.readline().strip()
        assert not free(path)
        writer.kill()
    assert free(path)
    assert [1.5] == [found.ts for found in whole(tmp_path)]


def test_a_reader_that_was_faster_than_the_lock(tmp_path, monkeypatch):
    """A segment that was removed before its writer had locked it is not written to."""
    lock, seen = events.locked, []

    def late(descriptor):
        if not seen:
            seen.extend(events.segments(tmp_path))
            seen[0].unlink()
        return lock(descriptor)

    monkeypatch.setattr(events, "locked", late)
    log = EventLog(tmp_path)
    log.append([event(1)])
    assert seen[0] != log.path
    assert [event(1)] == whole(tmp_path)
    log.close()


def test_a_full_disk(tmp_path):
    """What did not fit raises, and is in no segment; with room again, all goes on."""
    log = EventLog(tmp_path)
    log.append([event(0)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        log.append([event(1)])
        for number in (2, 3):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                log.append([event(number), event(number, size=5000)])
        log.append([event(4)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.append([event(5)])
    log.close()
    assert [0, 1, 4, 5] == sorted(each.ts for each in whole(tmp_path))
    assert 2 == len(events.segments(tmp_path))


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "not cut"])
def test_a_write_that_fails_hides_nothing(tmp_path, monkeypatch, cut):
    """After a write in part, cut off or not, the next events stand where a reader finds them."""
    log, write = EventLog(tmp_path), os.write
    log.append([event(0)])
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:30]))
    if not cut:
        monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="No space left"):
        log.append([event(1)])
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        log.append([event(2)])
    monkeypatch.setattr(os, "write", write)
    log.append([event(3)])
    log.close()
    assert [0, 3] == sorted(each.ts for each in whole(tmp_path))


def refuse(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_sync_reaches_every_segment(tmp_path, monkeypatch):
    """All segments since the last sync, and the folder they are new in, come to the disk."""
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda each: synced.append(os.fstat(each).st_ino))
    monkeypatch.setattr(os, "fsync", lambda each: synced.append(os.fstat(each).st_ino))
    log = EventLog(tmp_path, segment_bytes=1, durable=True)
    for number in range(3):
        log.append([event(number)])
    log.sync()
    expected = {path.stat().st_ino for path in [tmp_path, *events.segments(tmp_path)]}
    assert expected == set(synced)
    synced.clear()
    log.sync()
    assert [log.path.stat().st_ino] == synced
    log.tick()
    assert all(map(free, events.segments(tmp_path)))
    log.close()


def test_a_sync_that_fails_ends_the_segment(tmp_path, monkeypatch):
    """What the disk refused once is not trusted again: a new segment is begun."""
    log = EventLog(tmp_path, durable=True)
    log.append([event(0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            log.sync()
    first = log.path
    log.append([event(1)])
    log.sync()
    assert first != log.path
    assert free(first)
    log.close()


def test_appending_goes_on_during_a_sync(tmp_path):
    """One thread appends and leaves segments while another syncs them: nothing is lost."""
    log, done = EventLog(tmp_path, segment_bytes=500, durable=True), threading.Event()

    def sync():
        while not done.is_set():
            log.sync()

    thread = threading.Thread(target=sync)
    thread.start()
    for number in range(300):
        log.append([event(number)])
    done.set()
    thread.join()
    log.close()
    assert list(range(300)) == sorted(each.ts for each in whole(tmp_path))
    assert all(map(free, events.segments(tmp_path)))


def test_ids():
    """Ids are 32 hexadecimal characters, rise, and differ between makers."""
    first, second = Ids(), Ids()
    made = [first.next() for _ in range(100)]
    assert sorted(set(made)) == made
    assert {32} == set(map(len, made))
    assert int(made[-1], 16)
    assert set() == {second.next() for _ in range(100)} & set(made)


def test_a_place_that_cannot_be_a_folder(tmp_path):
    """Where events cannot be written one line says where, and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(ServingError, match=r"file/log cannot be written \(Not a dir.* events.mode"):
        EventLog(tmp_path / "file" / "log")


def test_a_disk_that_is_full_already(tmp_path, monkeypatch):
    """A service may start there: it refuses until there is room, and then goes on."""

    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(events, "TemporaryFile", full)
    log = EventLog(tmp_path)
    log.append([event(1)])
    assert [event(1)] == [found for found, _ in events.read(log.path)]
    log.close()


def test_a_system_without_locks(tmp_path, monkeypatch):
    """Where files cannot be locked that is said, with the way out."""
    monkeypatch.setattr(events, "fcntl", None)
    with pytest.raises(ServingError, match=r"set events.mode to off"):
        EventLog(tmp_path)
