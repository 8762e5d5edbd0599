"""What is sent to the servers."""

import csv
import json
import os
import selectors
import socket
import subprocess
import time

from .servers import LOAD_CPU, Failed, pinned

VALUE_BYTES = 64


def key(number):
    """The 16 bytes that redis-benchmark uses."""
    return b"key:%012d" % number


def redis_benchmark(port, test, pipeline, requests, clients=50, keys=100_000, value=VALUE_BYTES):
    """Requests per second as redis-benchmark sees them."""
    command = pinned(LOAD_CPU, [
        "redis-benchmark", "-p", str(port), "-t", test, "-P", str(pipeline), "-n", str(requests),
        "-c", str(clients), "-d", str(value), "-r", str(keys), "--csv"])
    try:
        # It spins for ever when its server dies.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise Failed(f"`{' '.join(command)}` did not end within 300 s") from None
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row and row[0].lower() == test]
    if done.returncode != 0 or not rows:
        raise Failed(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return float(rows[0][1])


def preload(port, count, value=VALUE_BYTES):
    """Exactly `count` keys, each once, over RESP."""
    body = b"\r\n$%d\r\n%s\r\n" % (value, b"x" * value)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        batch = max(1, 60_000 // (value + 64))
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            connection.sendall(b"".join(
                b"*3\r\n$3\r\nSET\r\n$16\r\n" + key(number) + body for number in numbers))
            expect(connection, b"+OK\r\n" * len(numbers))


def expect(connection, wanted):
    got = b""
    while len(got) < len(wanted):
        chunk = connection.recv(1 << 16)
        if not chunk:
            break
        got += chunk
    if got != wanted:
        raise Failed(f"a preload was answered with {got[:80]!r}")


def preload_memcached(port, count):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        for first in range(0, count, 500):
            numbers = range(first, min(first + 500, count))
            connection.sendall(b"".join(memcached_set(number) for number in numbers))
            expect(connection, b"STORED\r\n" * len(numbers))


def memcached_set(number):
    return b"set %s 0 0 %d\r\n%s\r\n" % (key(number), VALUE_BYTES, b"x" * VALUE_BYTES)


def resp_set(number):
    return b"*3\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%d\r\n%s\r\n" % (
        key(number), VALUE_BYTES, b"x" * VALUE_BYTES)


# (how a request is written, how long its answer is): all keys and values are of one size.
RESP = {
    "get": (lambda number: b"*2\r\n$3\r\nGET\r\n$16\r\n%s\r\n" % key(number), 5 + VALUE_BYTES + 2),
    "set": (resp_set, 5),
}
MEMCACHED = {
    "get": (lambda number: b"get %s\r\n" % key(number), 36 + VALUE_BYTES),
    "set": (memcached_set, 8),
}


def plain_load(port, protocol, test, pipeline, requests, clients=50, keys=100_000):
    """A load that speaks any protocol of fixed-size answers, for memcached, which redis-benchmark
    cannot load. Runs in this process, on the load's CPU. Returns requests per second."""
    write, answer_bytes = protocol[test]
    rounds = max(1, requests // (pipeline * clients))
    step = 7919  # a prime: batches touch keys all over
    batches = [b"".join(write((b * pipeline + i) * step % keys) for i in range(pipeline))
               for b in range(200)]
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    os.sched_setaffinity(0, {cpus[min(LOAD_CPU, len(cpus) - 1)]})
    selector = selectors.EpollSelector()
    try:
        return _drive(selector, port, batches, answer_bytes * pipeline, rounds, clients, pipeline)
    finally:
        for registered in list(selector.get_map().values()):
            registered.fileobj.close()
        selector.close()
        os.sched_setaffinity(0, before)


def _drive(selector, port, batches, batch_bytes, rounds, clients, pipeline):
    states = []
    for number in range(clients):
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = [connection, batch_bytes, rounds, number]
        selector.register(connection, selectors.EVENT_READ, state)
        states.append(state)
    begin = time.perf_counter()
    for state in states:
        state[0].sendall(batches[state[3] % len(batches)])
    open_connections = clients
    while open_connections:
        for ready, _ in selector.select(60):
            state = ready.data
            got = len(state[0].recv(1 << 18))
            if not got:
                raise Failed("a server closed a connection under the plain load")
            state[1] -= got
            if state[1] > 0:
                continue
            if state[1] < 0:
                raise Failed("a server answered more bytes than the plain load expects")
            state[2] -= 1
            if state[2] == 0:
                selector.unregister(state[0])
                state[0].close()
                open_connections -= 1
                continue
            state[1], state[3] = batch_bytes, state[3] + clients
            state[0].sendall(batches[state[3] % len(batches)])
    return rounds * clients * pipeline / (time.perf_counter() - begin)


def bench_redis(binary, port, connections, seconds, keys=100_000):
    """Puts a second with `firebrick bench redis`: one request under way on each connection."""
    command = pinned(LOAD_CPU, [
        binary, "bench", "redis", "--connect", f"127.0.0.1:{port}", "--connections", str(connections), "--mix", "put",
        "--value", str(VALUE_BYTES), "--keys", str(keys), "--time", f"{int(seconds * 1000)}ms", "--poll", "busy",
        "--json"])
    return report_of(command)["ops_per_second"]


def native(binary, port, in_flight, mix, seconds, keys=100_000, poll="busy"):
    """`firebrick bench kv`; its JSON report."""
    command = pinned(LOAD_CPU, [
        binary, "bench", "kv", "--connect", f"127.0.0.1:{port}", "--in-flight", str(in_flight), "--mix", mix,
        "--value", str(VALUE_BYTES), "--keys", str(keys), "--time", f"{int(seconds * 1000)}ms", "--poll", poll,
        "--json"])
    return report_of(command)


def report_of(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)
