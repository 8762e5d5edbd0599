"""Figures of copies: how fast, at what price for the foreground, and how much of it."""

import json
import statistics
import subprocess
import threading
import time

from benchpeers.figures import log, row
from benchpeers.servers import Failed, _die_with_parent
from .bricks import Cluster, wait_for
from .network import Network, read
from .puts import fill

LINK = "1gbit"
# Of a value of 64 bytes under a key of 8.
RECORD_BYTES = 128


def iperf3(network, seconds, rate=None, sender=0, receiver=1, cpus=(0, 1)):
    """Goodput in bytes a second of one stream from `sender` to `receiver`, each on its CPU."""
    server = subprocess.Popen(
        [*network.prefix(receiver), "taskset", "-c", str(cpus[1]), "iperf3", "-s", "-1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    time.sleep(0.3)
    command = [*network.prefix(sender), "taskset", "-c", str(cpus[0]), "iperf3", "-c", network.address(receiver),
               "-t", str(seconds), "-J"]
    if rate:
        command += ["-b", str(int(rate * 8))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 20)
    server.wait(timeout=10)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed: {done.stdout[-300:]}")
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 8


class Watch(threading.Thread):
    """Looks at a link's counter every few milliseconds."""

    def __init__(self, network, n):
        super().__init__(daemon=True)
        self.file, self.seen, self.going = network.counter(n), [], True
        self.start()

    def run(self):
        while self.going:
            self.seen.append((time.monotonic(), read(self.file)))
            time.sleep(0.002)

    def bulk(self):
        """(seconds, bytes, greatest pause) of the bulk in between: from the first 1% to the last."""
        self.going = False
        self.join()
        first, last = self.seen[0][1], self.seen[-1][1]
        low, high = first + (last - first) * 0.01, first + (last - first) * 0.99
        inner = [(when, count) for when, count in self.seen if low <= count <= high]
        return inner[-1][0] - inner[0][0], inner[-1][1] - inner[0][1]


def move(cluster, partition, source, target):
    """Moves a partition; (seconds from the wish to the end, (seconds, bytes) of the bulk on the link)."""
    watch = Watch(cluster.network, source)
    begin = time.monotonic()
    names = [brick.name for brick in cluster.bricks]
    cluster.cli("move", "--partition", str(partition), "--from", names[source], "--to", names[target],
                "--timeout", "60s")
    wait_for(lambda: cluster.partition(partition)["members"] == [names[target]], "the partition has not moved")
    return time.monotonic() - begin, watch.bulk()


def two_bricks(setting, megabytes, **options):
    """A partition on brick 0 with so much in it: the table has one for each brick. Nothing moves by itself any more."""
    network = Network(2)
    cluster = Cluster(setting.binary, 2, network, cpus=(0, 1), replicas="1", memory="3GiB", **options)
    cluster.whole()
    partition, other = cluster.table("bulk", 1, 1)
    fill(cluster, "bulk", 2 * megabytes)
    pin(cluster, other, 1)
    pin(cluster, partition, 0)
    return network, cluster, partition


def at(cluster, partition):
    names = [brick.name for brick in cluster.bricks]
    return names.index(cluster.partition(partition)["members"][0])


def place(cluster, partition, target):
    if at(cluster, partition) != target:
        move(cluster, partition, 1 - target, target)
    cluster.whole()


def pin(cluster, partition, target):
    """As `place`, and it stays: what an operator moved is not moved to make bricks more even."""
    if at(cluster, partition) == target:
        move(cluster, partition, target, 1 - target)
    place(cluster, partition, target)


def copy(setting):
    """A partition of 100 MB over a link of 1 Gbit/s, against iperf3 on that link."""
    megabytes = setting.size(100, 5)
    network, cluster, partition = two_bricks(setting, megabytes)
    network.shape(LINK)
    peers, rates, wholes = [], [], []
    for number in range(setting.size(setting.repeats, 1)):
        peers.append(iperf3(network, setting.size(2, 1), sender=number % 2, receiver=1 - number % 2))
        seconds, (bulk, count) = move(cluster, partition, number % 2, 1 - number % 2)
        cluster.whole()
        rates.append(count / bulk)
        wholes.append(megabytes * 1e6 / seconds)
        log(f"copy: {count / bulk / 1e6:.1f} MB/s on the link, move done after {seconds:.2f} s; iperf3 {peers[-1] / 1e6:.1f} MB/s")
    cluster.stop()
    network.remove()
    # What a link carries counts headers, what iperf3 says does not.
    overhead = 1514 / 1448
    ours, peer = statistics.median(rates) / overhead, statistics.median(peers)
    return [row("100 MB partition copied over 1 Gbit/s, MB/s, against iperf3", peer / 1e6, ours / 1e6, ours / peer,
                0.90, ">=", "from 1% to 99% of the link's bytes; from the wish to the end of the move "
                f"{statistics.median(wholes) / 1e6:.0f} MB/s")]


def p99(setting):
    """The foreground's p99 during a copy against that beside iperf3 at the same rate."""
    megabytes = setting.size(400, 5)
    network, cluster, partition = two_bricks(setting, megabytes)
    for front in cluster.table("front", 1, 1):
        pin(cluster, front, 0)
    network.shape(LINK)
    rate, seconds = setting.size(5_000, 500), setting.size(2, 1)
    load = {"table": "front", "mix": "mixed", "rate": rate, "time": f"{seconds}s", "warm_up": "200ms", "keys": 10_000,
            # The load shares its CPU with the receiver: a spinning one would measure itself.
            "poll": "park"}
    alone = cluster.bench(1, **load).result()
    ours, peers = [], []
    for _ in range(setting.size(setting.repeats, 1)):
        place(cluster, partition, 0)
        running = cluster.bench(1, **load)
        time.sleep(0.2)
        took, (bulk, count) = move(cluster, partition, 0, 1)
        ours.append(running.result())
        speed = count / bulk / (1514 / 1448)
        running = cluster.bench(1, **load)
        iperf3(network, seconds, rate=speed)
        peers.append(running.result())
        log(f"p99: copy {speed / 1e6:.0f} MB/s for {bulk:.2f} s, p99 {ours[-1]['p99_us']} us; iperf3 {peers[-1]['p99_us']} us")
    cluster.stop()
    network.remove()
    mine, peer = (statistics.median(r["p99_us"] for r in runs) for runs in (ours, peers))
    return [row("Foreground p99 during a copy, us, against p99 beside iperf3 at the same rate", peer, mine,
                mine / peer, 1.5, "<=", f"alone {float(alone['p99_us']):.0f} us; {rate:,} gets and puts/s")]


def rejoin(setting):
    """Five seconds away under 10,000 writes a second: what is copied against what was written meanwhile."""
    network = Network(3)
    cluster = Cluster(setting.binary, 3, network, cpus=(0, 1, 0), memory="2GiB")
    cluster.whole()
    fill(cluster, "default", setting.size(100, 5))
    rate, away = setting.size(10_000, 1_000), setting.size(5, 2)
    victim = cluster.bricks[2]
    load = cluster.bench(1, mix="put", rate=rate, time=f"{away + 6}s", warm_up="200ms", keys=100_000)
    time.sleep(1)
    stay = cluster.bricks[:2]
    victim.kill()
    # Each write counts at its primary.
    before = sum(brick.figure("puts") for brick in stay)
    time.sleep(away)
    gone = time.monotonic()
    victim.start()
    # It is away until it is shipped what is written.
    wait_for(lambda: all(victim.name in p["members"] + p["learners"] for p in cluster.status()["partitions"]),
             "the brick is in no group")
    meanwhile = (sum(brick.figure("puts") for brick in stay) - before) * RECORD_BYTES
    wait_for(cluster.is_whole, "the brick did not rejoin")
    back = time.monotonic() - gone
    copied = victim.figure("copy_bytes")
    report = load.result()
    log(f"rejoin: {copied:,} bytes copied, {meanwhile:,} written meanwhile, whole again after {back:.2f} s")
    cluster.stop()
    network.remove()
    return [row("Rejoin after 5 s away under 10,000 writes/s, MB copied against MB written", meanwhile / 1e6,
                copied / 1e6, copied / meanwhile, 1.5, "<=",
                f"whole again {back:.2f} s after its start; requests failed: {report['errors']}")]


def failed(setting):
    """Requests that a copy, a move or a join fails: clients with a deadline of 2 s."""
    network = Network(3)
    cluster = Cluster(setting.binary, 2, network, cpus=(0, 1, 0), replicas="2", memory="1GiB")
    cluster.whole()
    fill(cluster, "default", setting.size(100, 5))
    cluster.table("single", 2, 1)
    seconds = setting.size(12, 4)
    loads = [cluster.bench(1, table=table, mix="mixed", rate=setting.size(3_000, 300), time=f"{seconds}s", keys=10_000)
             for table in ("default", "single")]
    time.sleep(0.7)
    cluster.add()
    moved = 0
    end = time.monotonic() + seconds - 3
    while time.monotonic() < end:
        singles = [p for p in cluster.status()["partitions"] if p["table"] == "single" and not p["learners"]]
        names = [brick.name for brick in cluster.bricks]
        for one in singles:
            at = names.index(one["members"][0])
            to = (at + 1) % len(names)
            cluster.cli("move", "--partition", str(one["partition"]), "--from", names[at], "--to", names[to],
                        check=False)
            moved += 1
    reports = [load.result() for load in loads]
    errors = sum(r["errors"] for r in reports)
    total = sum(r["count"] for r in reports)
    log(f"failed: {errors} of {total:,} requests; a brick joined, {moved} moves")
    cluster.stop()
    network.remove()
    return [row("Requests failed by a copy, a move or a join", None, errors, errors, 0, "<=",
                f"of {total:,}; a brick joined with {setting.size(100, 5)} MB to copy, {moved} partitions moved")]
