"""Send requests at a fixed rate and measure from the time each was due: an open loop.

`open_loop.py <port> <path> <bodies> <rate> <seconds> <connections>` prints JSON. A closed loop such
as wrk's sends less where a server is slow, and so never sees what waits (coordinated omission).
"""

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path


class Connection:
    """One connection, with at most one request under way."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = self.freed = 0.0
        self.received = b""

    def send(self, request, due):
        """Send a request that was due at a time."""
        self.due = due
        self.socket.sendall(request)

    def complete(self):
        """Read what came; say whether that is the whole answer, and stop where it is no 200."""
        part = self.socket.recv(1 << 20)
        if not part:
            sys.exit("the server closed a connection")
        self.received += part
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"not 200: {self.received[:300]!r}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return False
        self.received = b""
        return True


def main(port, path, bodies, rate, seconds, connections):
    """Send, and print the percentiles of latency and of the client's own lateness, in ms."""
    requests = [
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
        for body in Path(bodies).read_text().splitlines()
    ]
    every = [Connection(int(port)) for _ in range(int(connections))]
    by_number = {each.socket.fileno(): each for each in every}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    free, latencies, late = deque(every), [], []
    gap, count = 1 / float(rate), int(float(rate) * float(seconds))
    sent, start = 0, time.perf_counter() + 0.1
    while len(latencies) < count:
        now = time.perf_counter()
        while sent < count and free and start + sent * gap <= now:
            due, connection = start + sent * gap, free.popleft()
            # Only what a free connection had to wait for is the client's own lateness.
            late.append(now - max(due, connection.freed))
            connection.send(requests[sent % len(requests)], due)
            sent += 1
            now = time.perf_counter()
        # Never asleep: the client has a core of its own.
        for number, _ in poll.poll(0):
            connection = by_number[number]
            if connection.complete():
                connection.freed = time.perf_counter()
                latencies.append(connection.freed - connection.due)
                free.append(connection)
    took = time.perf_counter() - start
    latencies.sort()
    late.sort()
    chosen = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    said = {name: latencies[int(share * count)] * 1e3 for name, share in chosen.items()}
    print(json.dumps({**said, "late_p99": late[int(0.99 * count)] * 1e3, "rate": count / took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
