"""Bricks of one cluster, each in a namespace (or all on this machine's loopback), and what they say."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

from benchpeers.servers import Failed, _die_with_parent, free_port

PATIENCE = 30


class Brick:
    """One process, in the network's namespace of its number, or on loopback when there is no network."""

    def __init__(self, cluster, number, options):
        network = cluster.network
        self.name = f"brick-{number}"
        self.number = number
        address = network.address(number) if network else "127.0.0.1"
        ports = (7400, 7401, 7379, 7480) if network else tuple(free_port() for _ in range(4))
        self.native, self.control, self.resp, self.http = (f"{address}:{port}" for port in ports)
        self.prefix = network.prefix(number) if network else []
        cpu = cluster.cpus[number % len(cluster.cpus)]
        settings = {"poll": "park", "memory": "1GiB", "durability": "memory", "replicas": "3"} | options
        self.command = [
            *self.prefix, "taskset", "-c", str(cpu), cluster.binary, "brick", "--name", self.name, "--host", self.name,
            "--listen", self.native, "--control", self.control, "--resp", self.resp, "--http", self.http,
            "--data-dir", f"{cluster.folder}/{self.name}", "--memory-dir", f"{cluster.folder}/memory-{self.name}"]
        for key, value in settings.items():
            self.command += [f"--{key}", value]
        if cluster.config:
            self.command += ["--config", cluster.config]
        if cluster.bricks:
            self.command += ["--join", ",".join(other.control for other in cluster.bricks)]
        self.log_path = f"{cluster.folder}/{self.name}.log"
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=_die_with_parent)
        wait_for(lambda: self.get("/readyz") is not None, f"{self.name} is not ready", self.log_path)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def status(self):
        text = self.get("/status")
        return json.loads(text) if text else None

    def figure(self, name):
        """A figure of its data core."""
        status = self.status()
        return status["cores"][0]["figures"][name] if status else None

    def kill(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()


def wait_for(condition, what, log_path=None, patience=PATIENCE):
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > patience:
            said = ""
            if log_path:
                with open(log_path) as log:
                    said = ": " + log.read()[-500:]
            what = what() if callable(what) else what
            raise Failed(f"{what} after {patience} s{said}")
        time.sleep(0.02)


class Cluster:
    """`count` bricks; brick `n` runs on CPU `cpus[n % len(cpus)]`."""

    all = []
    # A configuration file for every brick.
    config = None

    def __init__(self, binary, count, network=None, cpus=(0,), **options):
        self.binary, self.network, self.cpus, self.bricks = os.path.abspath(binary), network, cpus, []
        self.folder = tempfile.mkdtemp(prefix="firebrick-bench-", dir="/dev/shm")
        atexit.register(self.stop)
        Cluster.all.append(self)
        self.options = options
        for _ in range(count):
            self.add()

    def add(self):
        self.bricks.append(Brick(self, len(self.bricks), self.options))

    def stop(self):
        for brick in self.bricks:
            brick.kill()
        self.bricks = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self):
        return self.bricks[0].status()

    def cli(self, *words, check=True):
        """Runs the command line against the first brick."""
        command = [self.binary, *words, "--connect", self.bricks[0].native, "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise Failed(f"`{' '.join(command)}` failed: {(done.stdout + done.stderr).strip()[-300:]}")
        return done.stdout

    def table(self, name, partitions, replicas, durability="memory"):
        """Makes a table; its partitions' numbers."""
        self.cli("table", "create", name, "--partitions", str(partitions), "--replicas", str(replicas),
                 "--durability", durability)
        self.whole()
        return [p["partition"] for p in self.status()["partitions"] if p["table"] == name]

    def lacks(self):
        """What is not as it is to be, as the bricks say."""
        found = []
        for brick in self.bricks:
            status = brick.status()
            if not status:
                found.append(f"{brick.name} answers nothing")
            elif len(status["bricks"]) != len(self.bricks):
                found.append(f"{brick.name} knows {len(status['bricks'])} bricks")
            else:
                found += [f"{brick.name}: {p}" for p in status["partitions"]
                          if len(p["members"]) != min(p["replicas"], len(self.bricks)) or p["learners"]
                          or p["active"] != p["epoch"]]
        return found

    def is_whole(self):
        return not self.lacks()

    def whole(self):
        """Waits until every partition has all its replicas, twice in a row."""
        seen = [0]

        def is_still():
            seen[0] = seen[0] + 1 if self.is_whole() else 0
            return seen[0] >= 5
        wait_for(is_still, lambda: f"the cluster is not whole ({'; '.join(self.lacks()[:4])})")

    def partition(self, number):
        return next(p for p in self.status()["partitions"] if p["partition"] == number)

    def fill(self, table, items, value):
        """So many different keys."""
        self.bench(1, table=table, mix="get", keys=items, value=value, time="10ms", warm_up="1ms", in_flight=256).result()

    def bench(self, cpu, brick=0, within=None, **options):
        """`firebrick bench kv` in the background; `result` of what comes back is its report."""
        command = ["taskset", "-c", str(cpu), self.binary, "bench", "kv", "--connect", self.bricks[brick].native,
                   "--json"]
        if within is not None:
            command = self.network.prefix(within) + command
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        return Load(command)


class Load:
    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, preexec_fn=_die_with_parent)

    def result(self):
        """Its report, also when requests failed."""
        out, error = self.process.communicate(timeout=120)
        if '"ops_per_second"' not in out:
            raise Failed(f"`{' '.join(self.command)}` failed: {(out + error).strip()[-300:]}")
        return json.loads(out)
