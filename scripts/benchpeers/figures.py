"""The figures of the table, each a function from a Setting to rows."""

import mmap
import os
import re
import statistics
import time

from . import loads
from .servers import Brick, Failed, Memcached, Null, Redis


class Setting:
    """What the command line chose."""

    def __init__(self, binary, data_base, tiny, peers_only, repeats):
        self.binary, self.data_base, self.tiny, self.peers_only = binary, data_base, tiny, peers_only
        self.repeats = repeats

    def size(self, real, tiny):
        return tiny if self.tiny else real

    def brick(self, **options):
        if self.peers_only:
            return None
        brick = Brick(self.binary, self.data_base, **options)
        return brick


def row(figure, peer, ours, ratio, bar, better, note=""):
    """`better` is "<=" or ">="; without a bar the row is for information."""
    met = None
    if bar is not None and ratio is not None:
        met = ratio <= bar if better == "<=" else ratio >= bar
    return {"figure": figure, "peer": peer, "firebrick": ours, "ratio": ratio, "bar": bar,
            "better": better, "met": met, "note": note}


def ratio(ours, peer):
    return ours / peer if ours is not None and peer else None


def log(text):
    print(f"  {text}", flush=True)


def measured(server, run):
    """(CPU us per op, ops/s) of one run; `run` returns (operations, ops/s)."""
    before = server.cpu_ns()
    operations, rate = run()
    return (server.cpu_ns() - before) / operations / 1000, rate


def medians(samples):
    return tuple(statistics.median(column) for column in zip(*samples))


def interleaved(setting, servers, run):
    """A B A B ...: so that a drift of the machine hits all alike. name -> (us/op, ops/s)."""
    samples = {server.name: [] for server in servers}
    for server in servers:
        run(server)  # warms caches and the branch predictors, not counted
    for _ in range(setting.repeats):
        for server in servers:
            samples[server.name].append(measured(server, lambda: run(server)))
    return {name: medians(rows) for name, rows in samples.items()}


def cpu(setting):
    """CPU per operation and throughput against redis, redis-benchmark as the load. What a brick without a store needs is
    what the sockets cost."""
    redis, brick = Redis(setting.data_base), setting.brick(poll="park", memory="1GiB")
    servers = [server for server in (redis, brick) if server]
    for server in servers:
        loads.preload(server.port, 100_000)
    if brick:
        servers.append(Null(setting.binary, setting.data_base, "park"))
    rows, throughput = [], []
    bars = {1: 0.75, 16: 0.60, 64: 0.50}
    for pipeline, requests in ((1, 300_000), (16, 2_000_000), (64, 4_000_000)):
        count = setting.size(requests, requests // 100)
        worst = None
        for test in ("get", "set"):
            found = interleaved(setting, servers, lambda server: (
                count, loads.redis_benchmark(server.port, test, pipeline, count)))
            (peer_us, peer_rate), ours = found["redis"], found.get("firebrick", (None, None))
            log(f"{test} pipeline {pipeline}: " + ", ".join(
                f"{name} {us:.3f} us/op {rate:,.0f}/s" for name, (us, rate) in found.items()))
            cpu_ratio = ratio(ours[0], peer_us)
            rows.append(row(f"CPU us per {test.upper()}, pipeline {pipeline}", peer_us, ours[0], cpu_ratio,
                            bars[pipeline], "<=",
                            f"without a store {ratio(found['null'][0], peer_us):.3f}" if brick else ""))
            if cpu_ratio is not None and (worst is None or cpu_ratio > worst):
                worst = cpu_ratio
            if pipeline > 1:
                throughput.append(row(f"{test.upper()}/s, pipeline {pipeline}", peer_rate, ours[1],
                                      ratio(ours[1], peer_rate), 1.0, ">="))
            else:
                throughput.append(row(f"{test.upper()}/s, pipeline 1", peer_rate, ours[1],
                                      ratio(ours[1], peer_rate), None, ">="))
        log(f"worse of GET and SET at {pipeline}: {worst}")
    finish(servers)
    return rows + throughput


def memcached(setting):
    """memcached, which redis-benchmark cannot load: all three under the script's own plain load."""
    servers = [Redis(setting.data_base), Memcached(setting.data_base)]
    brick = setting.brick(poll="park")
    if brick:
        servers.append(brick)
    for server in servers:
        (loads.preload if server.speaks_resp else loads.preload_memcached)(server.port, 100_000)
    rows = []
    for pipeline, requests in ((1, 60_000), (16, 500_000), (64, 1_000_000)):
        count = setting.size(requests, requests // 50)
        for test in ("get", "set"):
            def run(server):
                protocol = loads.RESP if server.speaks_resp else loads.MEMCACHED
                return count, loads.plain_load(server.port, protocol, test, pipeline, count)
            found = interleaved(setting, servers, run)
            log(f"plain load, {test} pipeline {pipeline}: " + ", ".join(
                f"{name} {us:.3f} us/op" for name, (us, _) in found.items()))
            ours = found.get("firebrick", (None, None))[0]
            peer = found["memcached"][0]
            rows.append(row(
                f"CPU us per {test.upper()}, pipeline {pipeline}, against memcached, plain load", peer, ours,
                ratio(ours, peer), None, "<=", f"redis under the same load: {found['redis'][0]:.3f}"))
    finish(servers)
    return rows


def finish(servers):
    for server in servers:
        server.remove() if isinstance(server, Brick) else server.stop()


def memory(setting):
    """Memory per item after a load of 1 M items and after 10 M overwrites."""
    items, overwrites = setting.size(1_000_000, 20_000), setting.size(10_000_000, 100_000)
    rows, servers = [], [Redis(setting.data_base)]
    cache = Memcached(setting.data_base)
    brick = setting.brick(poll="park", memory="1GiB")
    if brick:
        servers.append(brick)
    for server in servers:
        loads.preload(server.port, items)
    loads.preload_memcached(cache.port, items)
    time.sleep(setting.size(3, 0.5))

    def compare(when):
        found = {server.name: server.memory() / items for server in servers + [cache]}
        log(f"{when}: " + ", ".join(f"{name} {size:.1f} B/item" for name, size in found.items()))
        ours = found.get("firebrick")
        note = f"memcached, not overwritten, {found['memcached']:.0f}"
        if brick:
            note += f"; memory_dir {brick.memory_dir_bytes() / items:.0f}"
        rows.append(row(f"Bytes of memory per item, {when}", found["redis"], ours,
                        ratio(ours, found["redis"]), 1.0, "<=", note))

    compare(f"{items:,} items")
    for server in servers:
        loads.redis_benchmark(server.port, "set", 64, overwrites, keys=items)
    time.sleep(setting.size(10, 1))
    compare(f"after {overwrites:,} overwrites")
    finish(servers + [cache])
    return rows


RECOVERED = re.compile(r"recovered ([\d,_]+) records.*? in ([\d.]+) ?(ns|us|µs|ms|s)\b")
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def recovery_of(brick, begin_of_log):
    """(records, seconds) that the brick says its scan took."""
    # A data core serves a moment before the process says so.
    for _ in range(100):
        found = RECOVERED.findall(brick.log_text()[begin_of_log:])
        if found:
            break
        time.sleep(0.05)
    else:
        raise Failed(f"the brick did not say what it recovered: {brick.log_tail()}")
    records, amount, unit = found[-1]
    return int(re.sub("[,_]", "", records)), float(amount) * SECONDS[unit]


def restart(setting):
    """Recovery after kill -9 from the mapped log."""
    if setting.peers_only:
        return []
    rows = []
    for value, items, memory_size in ((64, 2_000_000, "2GiB"), (1024, 1_000_000, "4GiB")):
        count = setting.size(items, 20_000)
        brick = setting.brick(poll="park", memory=setting.size(memory_size, "256MiB"))
        loads.preload(brick.port, count, value)
        samples = []
        for _ in range(setting.repeats):
            begin_of_log = len(brick.log_text())
            brick.kill()
            ready = brick.start()
            records, seconds = recovery_of(brick, begin_of_log)
            if records < count:
                raise Failed(f"{count} items were stored and {records} records recovered")
            samples.append((records / seconds, seconds, ready))
        rate, seconds, ready = medians(samples)
        log(f"restart, {value} B values: {records:,} records in {seconds * 1e3:.1f} ms, {rate:,.0f}/s; "
            f"answering after {ready * 1e3:.0f} ms")
        note = f"{records:,} records; answering {ready * 1e3:.0f} ms after the start"
        if value == 64:
            rows.append(row("Restart after kill -9, M records/s, 64 B values", None, rate / 1e6, rate / 1e6, 5,
                            ">=", note))
        else:
            gigabytes = rate * (value + 64) / 1e9
            rows.append(row("Restart after kill -9, GB/s, 1 KiB values", None, gigabytes, gigabytes, 1.5, ">=",
                            note + "; a record is 1,088 bytes"))
        brick.remove()
    return rows


def flush_us(path, rounds):
    """Median time of a durable 4 KiB write with O_DIRECT, in us."""
    name = os.path.join(path, "firebrick-flush-time")
    page = mmap.mmap(-1, 4096)
    try:
        try:
            file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_DSYNC | os.O_DIRECT, 0o600)
        except OSError:
            file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_DSYNC, 0o600)
        os.posix_fallocate(file, 0, 4096 * rounds)
        times = []
        for number in range(rounds):
            begin = time.perf_counter()
            os.pwrite(file, page, 4096 * number)
            times.append(time.perf_counter() - begin)
        os.close(file)
        return statistics.median(times) * 1e6
    finally:
        if os.path.exists(name):
            os.unlink(name)


def sync(setting):
    """Durable puts, 64 in flight, against `appendfsync always`."""
    flush = flush_us(setting.data_base, setting.size(500, 20))
    log(f"a durable 4 KiB write takes {flush:.0f} us (median)")
    redis = Redis(setting.data_base, ("--save", "", "--appendonly", "yes", "--appendfsync", "always"))
    brick = setting.brick(poll="park", durability="sync")
    servers = [server for server in (redis, brick) if server]
    count = setting.size(100_000, 1_000)
    rows = []
    # 64 in flight either way; pipelined, the load core is less in the way.
    for clients, pipeline in ((64, 1), (4, 16)):
        found = interleaved(setting, servers, lambda server: (
            count, loads.redis_benchmark(server.port, "set", pipeline, count, clients=clients)))
        peer, ours = found["redis"][1], found.get("firebrick", (None, None))[1]
        log(f"{clients} clients, pipeline {pipeline}: " + ", ".join(
            f"{name} {rate:,.0f} durable puts/s" for name, (_, rate) in found.items()))
        rows.append(row(f"`sync` puts/s, 64 in flight ({clients} clients x {pipeline}), against `appendfsync always`",
                        peer, ours, ratio(ours, peer), 1.5, ">=", f"a durable 4 KiB write takes {flush:.0f} us"))
    if not setting.peers_only:
        # redis-benchmark's own CPU is the limit at one request a connection; this load's is not.
        found = interleaved(setting, servers, lambda server: (
            count, loads.bench_redis(setting.binary, server.port, 64, setting.size(3, 0.3))))
        peer, ours = found["redis"][1], found["firebrick"][1]
        rows.append(row("`sync` puts/s, 64 clients x 1, with `bench redis` as the load", peer, ours, ratio(ours, peer), 1.5,
                        ">=", "the load spins on CPU 1"))
    finish(servers)
    return rows


def idle(setting):
    """CPU of an idle brick in the default poll mode."""
    seconds = setting.size(10, 1)
    rows = []
    for server, bar in ((Redis(setting.data_base), None), (setting.brick(poll="adaptive"), 2.0)):
        if server is None:
            continue
        loads.preload(server.port, 1000)
        time.sleep(setting.size(2, 1))
        before = server.cpu_ns()
        time.sleep(seconds)
        percent = (server.cpu_ns() - before) / seconds / 1e7
        log(f"idle {server.name}: {percent:.2f}% of a CPU")
        if bar is not None:
            rows.append(row("Idle brick, adaptive, % of a CPU", peer, percent, percent, bar, "<="))
        else:
            peer = percent
        finish([server])
    return rows


def native(setting):
    """The native protocol against the same ring driver without a store."""
    if setting.peers_only:
        return []
    seconds = setting.size(5, 0.3)
    null = Null(setting.binary, setting.data_base, "busy")
    brick = setting.brick(poll="busy")
    # Both would spin on CPU 0: the one that is not measured is stopped meanwhile.
    rows = []
    for in_flight, name in ((1, "get"), (1, "put"), (64, "get"), (64, "put")):
        samples = {"null": [], "firebrick": []}
        for _ in range(setting.repeats):
            for server, other in ((null, brick), (brick, null)):
                with paused(other):
                    report = loads.native(setting.binary, server.native, in_flight, name, seconds)
                samples[server.name].append((report["p50_us"], report["ops_per_second"], report["p999_us"]))
        found = {server: medians(runs) for server, runs in samples.items()}
        log(f"native {name}, {in_flight} in flight: " + ", ".join(
            f"{server} p50 {p50:.1f} us p99.9 {p999:.0f} us {rate:,.0f}/s"
            for server, (p50, rate, p999) in found.items()))
        ours, peer = found["firebrick"], found["null"]
        if in_flight == 1:
            bar = 1.10 if name == "get" else None
            rows.append(row(f"Native {name}, 1 in flight, busy: p50 us, against the null brick", peer[0], ours[0],
                            ratio(ours[0], peer[0]), bar, "<=",
                            f"p99.9 {ours[2]:.0f} us, null {peer[2]:.0f} us"))
        else:
            rows.append(row(f"Native {name}/s, 64 in flight, against the null brick", peer[1], ours[1],
                            ratio(ours[1], peer[1]), 0.85, ">=", f"p50 {ours[0]:.0f} us"))
    finish([null, brick])
    return rows


class paused:
    """A server stopped by SIGSTOP for a while."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        os.kill(self.server.pid, 19)

    def __exit__(self, *_):
        os.kill(self.server.pid, 18)


ALL = {"cpu": cpu, "memcached": memcached, "memory": memory, "restart": restart, "sync": sync, "idle": idle,
       "native": native}
