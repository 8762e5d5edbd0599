"""How long writes wait when a brick of three dies: `kill -9` to the first acknowledged write of every partition.

A client of a surviving brick's Redis port writes a key of each of many partitions; the time is from the kill until
all are acknowledged. Rounds alternate between a brick that leads the keepers and one that does not. Afterwards the
dead brick is started again and given what it missed.
"""

import socket
import statistics
import time

from benchpeers.figures import log, row
from .bricks import Cluster

KEYS = 64
PRIMARY, LEADER = "a primary", "a primary that led the keepers"


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def write_all(address, value):
    """Writes every key; a refused or lost write is tried again, as a client would."""
    left = set(range(KEYS))
    host, port = address.split(":")
    while left:
        try:
            with socket.create_connection((host, int(port)), timeout=3) as client:
                client.settimeout(3)
                answers = client.makefile("rb")
                for key in sorted(left):
                    client.sendall(command(b"SET", b"key:%d" % key, value))
                    if answers.readline().startswith(b"+OK"):
                        left.discard(key)
        except OSError:
            pass


def victim_of(cluster, wants_leader, round_number):
    """A brick that is a primary and leads the keepers, or does not."""
    status = cluster.status()
    leader = status["cluster"]["leader"]
    primaries = {p["members"][0] for p in status["partitions"]}
    fitting = [b for b in cluster.bricks if (b.name == leader) == wants_leader and b.name in primaries]
    return fitting[round_number // 2 % len(fitting)] if fitting else None


def failover(setting):
    """`kill -9` of a primary to the next acknowledged write of its partitions."""
    cluster = Cluster(setting.binary, 3, None, cpus=setting.cpus, memory="256MiB")
    gaps = {PRIMARY: [], LEADER: []}
    for round_number in range(setting.size(setting.rounds, 1) * 2):
        cluster.whole()
        write_all(cluster.bricks[0].resp, b"%d" % round_number)
        wants_leader = round_number % 2 == 1
        victim = victim_of(cluster, wants_leader, round_number)
        if victim is None:
            continue
        witness = next(b for b in cluster.bricks if b is not victim)
        begin = time.monotonic()
        victim.kill()
        write_all(witness.resp, b"after %d" % round_number)
        gaps[LEADER if wants_leader else PRIMARY].append(time.monotonic() - begin)
        victim.start()
    cluster.stop()
    rows = []
    for what, half, worst in ((PRIMARY, 0.8, 1.2), (LEADER, 1.5, 2.0)):
        times = gaps[what]
        if times:
            middle, most = statistics.median(times), max(times)
            log(f"kill -9 of {what}: p50 {middle:.3f} s, worst {most:.3f} s, {len(times)} rounds")
            rows += [row(f"kill -9 of {what}, s, p50", None, middle, middle, half, "<=", f"{len(times)} rounds"),
                     row(f"kill -9 of {what}, s, worst", None, most, most, worst, "<=", f"{len(times)} rounds")]
    return rows
