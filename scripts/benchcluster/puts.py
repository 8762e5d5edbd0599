"""Figures of replicated puts, against redis with `WAIT` and against etcd."""

import json
import os
import selectors
import socket
import statistics
import struct
import subprocess
import time

from benchpeers.figures import log, row
from benchpeers.servers import Failed, _die_with_parent, folder, free_port, pinned
from .bricks import Cluster, Load
from .network import Network

CONNECTIONS = 16
VALUE = b"x" * 64
KEYS = 100_000


def fill(cluster, table, megabytes):
    """So many bytes of records of 1 KiB, by puts over the native protocol."""
    value = 1024
    cluster.fill(table, max(1, int(megabytes * 1e6 / (value + 64))), value)


def key(number):
    return b"key:%012d" % (number * 7919 % KEYS)


class Etcd:
    """etcdserverpb.KV/Put as gRPC over HTTP/2, frames made by hand: header fields as literals that no table
    remembers, so a request is the same bytes but for its stream and key."""

    def __init__(self):
        def field(name, value):
            return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        self.headers = (b"\x83\x86" + field(b":path", b"/etcdserverpb.KV/Put") + field(b":authority", b"etcd")
                        + field(b"content-type", b"application/grpc") + field(b"te", b"trailers"))

    @staticmethod
    def frame(kind, flags, stream, body):
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    def hello(self):
        # A wide window of the connection, once and for all.
        return (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b"")
                + self.frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65_535)))

    def request(self, number, nth):
        stream = nth * 2 + 1
        put = b"\x0a\x10" + key(number) + b"\x12\x40" + VALUE
        body = b"\x00" + struct.pack(">I", len(put)) + put
        return self.frame(1, 4, stream, self.headers) + self.frame(0, 1, stream, body)

    def walk(self, got):
        at = 0
        while at + 9 <= len(got):
            length = int.from_bytes(got[at:at + 3], "big")
            if at + 9 + length > len(got):
                return
            yield got[at + 3], got[at + 4], got[at + 9:at + 9 + length]
            at += 9 + length

    def is_whole(self, got):
        """A frame of headers that ends the stream is the answer's last; one with data before it is a success."""
        frames = list(self.walk(got))
        if any(kind in (3, 7) for kind, _, _ in frames):
            raise Failed(f"etcd ended a stream: {got[:200]!r}")
        ended = any(kind == 1 and flags & 1 for kind, flags, _ in frames)
        if ended and not any(kind == 0 for kind, _, _ in frames):
            raise Failed(f"etcd refused a put: {got[:200]!r}")
        return ended

    def more(self, got):
        """Settings and pings are acknowledged."""
        answer = b""
        for kind, flags, body in self.walk(got):
            if kind == 4 and not flags & 1:
                answer += self.frame(4, 1, 0, b"")
            if kind == 6 and not flags & 1:
                answer += self.frame(6, 1, 0, body)
        return answer


def load_etcd(port, seconds):
    """Puts a second over 16 connections with one request in flight each, and how busy this process's CPU was."""
    protocol, before = Etcd(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {load_cpu()})
    selector = selectors.EpollSelector()
    for number in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(protocol.hello())
        state = [connection, 0, b""]
        selector.register(connection, selectors.EVENT_READ, state)
        connection.sendall(protocol.request(number, 0))
    done, begin, used, counted = 0, time.monotonic(), time.process_time(), 0
    warm, number = begin + min(0.5, seconds / 4), CONNECTIONS
    while True:
        for chosen, _ in selector.select(5):
            state = chosen.data
            chunk = state[0].recv(1 << 16)
            if not chunk:
                raise Failed("etcd closed a connection of the load")
            state[2] += chunk
            if protocol.is_whole(state[2]):
                number += 1
                state[1] += 1
                state[0].sendall(protocol.more(state[2]) + protocol.request(number, state[1]))
                state[2] = b""
                done += 1
        now = time.monotonic()
        if warm and now >= warm:
            begin, used, counted, warm = now, time.process_time(), done, 0
        if not warm and now >= begin + seconds:
            break
    busy = (time.process_time() - used) / (now - begin)
    for chosen in list(selector.get_map().values()):
        chosen.fileobj.close()
    os.sched_setaffinity(0, before)
    return (done - counted) / (now - begin), busy


def load_cpu():
    return sorted(os.sched_getaffinity(0))[-1]


def load_redis(binary, port, seconds, *more):
    """The same with `firebrick bench redis`, which spins: no server pays for waking it."""
    command = ["taskset", "-c", str(load_cpu()), binary, "bench", "redis", "--connect", f"127.0.0.1:{port}", "--mix",
               "put", "--connections", str(CONNECTIONS), "--keys", str(KEYS), "--value", "64", "--poll", "busy", "--time",
               f"{int(seconds * 1000)}ms", "--json", *more]
    return Load(command).result()["ops_per_second"]


class Servers:
    """Processes on the servers' CPU."""

    def __init__(self):
        self.all = []

    def start(self, command, log_path):
        with open(log_path, "ab") as output:
            self.all.append(subprocess.Popen(pinned(0, command), stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, preexec_fn=_die_with_parent))

    def stop(self):
        for process in self.all:
            process.kill()
            process.wait()


def answers(port, question, wanted, what):
    begin = time.monotonic()
    while time.monotonic() < begin + 20:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(question)
                if wanted(connection.recv(4096)):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise Failed(f"{what} is not ready after 20 s")


def redis_with_replicas(setting):
    servers, ports, base = Servers(), [free_port() for _ in range(3)], folder("/dev/shm")
    for n, port in enumerate(ports):
        os.makedirs(f"{base}/{n}", exist_ok=True)
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", f"{base}/{n}",
                   "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]
        servers.start(command + (["--replicaof", "127.0.0.1", str(ports[0])] if n else []), f"{base}/{n}.log")
    answers(ports[0], b"INFO replication\r\n",
            lambda text: text.count(b"state=online") == 2, "redis with two replicas")
    return servers, ports


def etcd_cluster(setting):
    servers, base = Servers(), folder("/dev/shm")
    ports = [(free_port(), free_port()) for _ in range(3)]
    members = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
    for n, (client, peer) in enumerate(ports):
        servers.start(["etcd", "--name", f"m{n}", "--data-dir", f"{base}/m{n}", "--initial-cluster", members,
                       "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                       "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                       "--listen-client-urls", f"http://127.0.0.1:{client}",
                       "--advertise-client-urls", f"http://127.0.0.1:{client}", "--log-level", "error"],
                      f"{base}/m{n}.log")
    answers(ports[0][0], b"GET /health HTTP/1.0\r\n\r\n", lambda text: b'"true"' in text, "etcd")
    return servers, ports, leader_of(ports)


def leader_of(ports):
    """The leader's client port: a put there goes no way around."""
    for client, _ in ports:
        said = subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{client}", "endpoint", "status"],
                              env=os.environ | {"ETCDCTL_API": "3"}, capture_output=True, text=True).stdout
        if ", true, false" in said:
            return client
    raise Failed("etcd has no leader")


def one_leader(cluster, table="default"):
    """Makes the first brick the primary of all partitions, as the peers have one leader."""
    name, begin = cluster.bricks[0].name, time.monotonic()
    while True:
        others = [p["partition"] for p in cluster.status()["partitions"]
                  if p["table"] == table and p["members"][0] != name]
        if not others:
            return
        if time.monotonic() > begin + 20:
            raise Failed(f"partitions {others} have no primary at {name} after 20 s")
        for partition in others:
            cluster.cli("hand-over", "--partition", str(partition), "--to", name, check=False)


def firebrick_puts(setting, seconds):
    """Puts a second of three bricks on one CPU, over RESP and with the native client: with primaries at all bricks, and
    with all at the one that the load is connected to."""
    cluster = Cluster(setting.binary, 3, None, cpus=(0,), memory="512MiB")
    cluster.whole()
    port = int(cluster.bricks[0].resp.split(":")[1])

    def run():
        found = []
        for _ in range(setting.size(setting.repeats, 1)):
            resp = load_redis(setting.binary, port, seconds)
            native = cluster.bench(load_cpu(), mix="put", in_flight=CONNECTIONS, time=f"{int(seconds * 1000)}ms",
                                   keys=KEYS, poll="busy").result()["ops_per_second"]
            found.append((resp, native))
        return [statistics.median(rates) for rates in zip(*found)]
    spread = run()
    one_leader(cluster)
    led = run()
    cluster.stop()
    log(f"firebrick, 3 replicas: {led[0]:,.0f}/s over RESP, {led[1]:,.0f}/s natively; primaries at all bricks "
        f"{spread[0]:,.0f} and {spread[1]:,.0f}")
    return led, spread


def against(setting, figure, bar, peer, note):
    (resp, native), spread = firebrick_puts(setting, setting.size(3, 0.5))
    return [row(figure, peer, resp, resp / peer, bar, ">=", note),
            row(f"{figure}, native client", peer, native, native / peer, None, ">=",
                f"{CONNECTIONS} in flight on one connection: another load"),
            *(row(f"{figure}, {how}, primaries at all three bricks", peer, rate, rate / peer, None, ">=", "")
              for how, rate in zip(("RESP", "native client"), spread))]


def wait(setting):
    """Acknowledged puts of 64 B against redis with two replicas and `WAIT 2 0`."""
    servers, ports = redis_with_replicas(setting)
    seconds = setting.size(3, 0.5)
    runs = [load_redis(setting.binary, ports[0], seconds, "--replicas", "2")
            for _ in range(setting.size(setting.repeats, 1))]
    servers.stop()
    peer = statistics.median(runs)
    log(f"redis, WAIT 2 0: {peer:,.0f}/s")
    return against(setting, "Replicated puts/s, 64 B, 16 connections, against redis with `WAIT 2 0`", 2, peer,
                   "`bench redis` over RESP on both sides, at the leader; all servers on CPU 0, the load spins on CPU 1")


def etcd(setting):
    """The same against three etcd members on tmpfs."""
    servers, _, leader = etcd_cluster(setting)
    runs = [load_etcd(leader, setting.size(3, 0.5)) for _ in range(setting.size(setting.repeats, 1))]
    servers.stop()
    peer = statistics.median(rate for rate, _ in runs)
    log(f"etcd: {peer:,.0f}/s, the load's CPU {runs[-1][1]:.0%} busy")
    return against(setting, "Replicated puts/s, 64 B, 16 connections, against etcd", 10, peer,
                   f"this script's gRPC load at etcd's leader, its CPU {runs[-1][1]:.0%} busy; `bench redis` here; 3 members on "
                   "tmpfs, all servers on CPU 0")


def latency(setting):
    """What replication adds to a put: one round trip between bricks."""
    network = Network(3)
    cluster = Cluster(setting.binary, 2, network, cpus=(0, 1), memory="512MiB", replicas="2",
                      poll=setting.size("busy", "park"))
    cluster.whole()
    # Primaries on brick 0, where the load's requests arrive; the backup is on the other CPU.
    one, two = cluster.table("one", 1, 1)[0], cluster.table("two", 1, 2)[0]
    names = [brick.name for brick in cluster.bricks]
    for partition in (one, two):
        found = cluster.partition(partition)
        if found["members"][0] != names[0]:
            if len(found["members"]) == 1:
                cluster.cli("move", "--partition", str(partition), "--from", names[1], "--to", names[0])
            else:
                cluster.cli("hand-over", "--partition", str(partition), "--to", names[0], check=False)
    cluster.whole()
    found = {}
    seconds = f"{setting.size(2000, 300)}ms"
    for table in ("one", "two"):
        runs = [cluster.bench(1, table=table, mix="put", in_flight=1, time=seconds, poll="park").result()
                for _ in range(setting.size(setting.repeats, 1))]
        found[table] = statistics.median(float(run["p50_us"]) for run in runs)
    cluster.stop()
    null = Servers()
    null.start([*network.prefix(0), setting.binary, "bench", "null", "--listen", f"{network.address(0)}:7400", "--poll",
                "busy"], "/dev/null")
    time.sleep(0.5)
    command = ["taskset", "-c", "1", setting.binary, "bench", "kv", "--connect", f"{network.address(0)}:7400",
               "--mix", "put", "--in-flight", "1", "--time", seconds, "--poll", "park", "--json"]
    done = subprocess.run(network.prefix(1) + command, capture_output=True, text=True)
    null.stop()
    network.remove()
    if done.returncode != 0:
        raise Failed(f"bench null: {(done.stdout + done.stderr)[-300:]}")
    trip = float(json.loads(done.stdout)["p50_us"])
    extra = found["two"] - found["one"]
    log(f"latency: one replica {found['one']:.1f} us, two {found['two']:.1f} us, null {trip:.1f} us")
    return [row("What replication adds to a put, p50 us, busy, against a round trip", trip, extra, extra / trip, 1.2,
                "<=", f"one replica {found['one']:.1f} us, two {found['two']:.1f} us")]
