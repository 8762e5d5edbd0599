"""The servers under test: started pinned to CPU 0, measured through /proc, never left behind."""

import atexit
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SERVER_CPU, LOAD_CPU = 0, 1
_processes = []
_folders = []


class Failed(Exception):
    """A sentence for the person who ran the script."""


def clean_up():
    for process in _processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    _processes.clear()
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)
    _folders.clear()


atexit.register(clean_up)
for _signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(_signal, lambda number, _frame: sys.exit(128 + number))


def _die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def folder(parent):
    os.makedirs(parent, exist_ok=True)
    path = tempfile.mkdtemp(prefix="firebrick-bench-", dir=parent)
    _folders.append(path)
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def pinned(cpu, command):
    """`command` on one CPU; on a machine with a single one there is nothing to choose."""
    cpus = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cpus[min(cpu, len(cpus) - 1)])] + command


class Server:
    """A child process with a port that answers."""

    name = "?"

    def __init__(self, command, port, log, speaks_resp=True):
        self.port, self.log_path, self.speaks_resp = port, log, speaks_resp
        self.command = command
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                pinned(SERVER_CPU, self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_die_with_parent)
        _processes.append(self.process)
        begin = time.monotonic()
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() - begin > 60:
                self.stop()
                raise Failed(f"{self.name} did not start: {self.log_tail()}")
            time.sleep(0.002)
        return time.monotonic() - begin

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                # A command that needs the data.
                connection.sendall(b"EXISTS x\r\n" if self.speaks_resp else b"version\r\n")
                return connection.recv(64)[:3] in (b":0\r", b":1\r", b"VER")
        except OSError:
            return False

    def log_text(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def log_tail(self):
        return self.log_text().strip()[-400:] or "it printed nothing"

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def cpu_ns(self):
        """CPU time of all threads so far, in nanoseconds (the scheduler's own count)."""
        total = 0
        for pid in self.pids():
            tasks = f"/proc/{pid}/task"
            for task in os.listdir(tasks):
                try:
                    with open(f"{tasks}/{task}/schedstat") as stat:
                        total += int(stat.read().split()[0])
                except (FileNotFoundError, ProcessLookupError):
                    pass  # the thread ended
        return total

    def pids(self):
        """Its processes: a brick forks one that makes huge pages, which has its command line."""
        def said(pid):
            try:
                with open(f"/proc/{pid}/cmdline") as command:
                    return command.read()
            except (FileNotFoundError, ProcessLookupError):
                return ""
        mine = said(self.pid)
        if not mine:
            return [self.pid]
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and said(pid) == mine]

    def memory(self):
        """Bytes: what a person would call this server's memory."""
        with open(f"/proc/{self.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) * 1024


class Redis(Server):
    name = "redis"

    def __init__(self, data_base, options=("--save", "", "--appendonly", "no")):
        self.folder = folder(data_base)
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", self.folder,
                   "--daemonize", "no", *options]
        super().__init__(command, port, f"{self.folder}/log")


class Memcached(Server):
    name = "memcached"

    def __init__(self, data_base):
        self.folder = folder(data_base)
        port = free_port()
        command = ["memcached", "-p", str(port), "-U", "0", "-l", "127.0.0.1", "-m", "2048", "-t", "1"]
        if os.getuid() == 0:
            command += ["-u", "root"]
        super().__init__(command, port, f"{self.folder}/log", speaks_resp=False)


class Brick(Server):
    name = "firebrick"

    def __init__(self, binary, data_base, poll="park", durability="memory", memory="1GiB"):
        self.memory_dir, self.data_dir = folder("/dev/shm"), folder(data_base)
        self.native, self.http, port = free_port(), free_port(), free_port()
        self.control = free_port()
        command = [
            binary, "brick", "--name", "bench", "--cores", str(SERVER_CPU), "--poll", poll,
            "--listen", f"127.0.0.1:{self.native}", "--resp", f"127.0.0.1:{port}",
            "--control", f"127.0.0.1:{self.control}",
            "--http", f"127.0.0.1:{self.http}", "--memory-dir", self.memory_dir,
            "--data-dir", f"{self.data_dir}/data", "--durability", durability, "--memory", memory]
        super().__init__(command, port, f"{self.data_dir}/log")

    def memory(self):
        """Anonymous memory of the process and what its segments take in memory_dir."""
        anonymous = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                # (What the two share counts once.)
                anonymous += int(re.search(r"Pss_Anon:\s+(\d+) kB", rollup.read())[1]) * 1024
        return anonymous + self.memory_dir_bytes()

    def memory_dir_bytes(self):
        total = 0
        for path, _, names in os.walk(self.memory_dir):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512
                except FileNotFoundError:
                    pass  # a segment freed meanwhile
        return total

    def remove(self):
        """Ends it and frees its memory for the next."""
        self.kill()
        shutil.rmtree(self.memory_dir, ignore_errors=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)


class Null(Server):
    """`firebrick bench null`: the ring driver and the frames without a store."""

    name = "null"

    def __init__(self, binary, data_base, poll):
        self.native, port = free_port(), free_port()
        command = [binary, "bench", "null", "--listen", f"127.0.0.1:{self.native}", "--resp", f"127.0.0.1:{port}",
                   "--core", str(SERVER_CPU), "--poll", poll]
        super().__init__(command, port, f"{folder(data_base)}/log", speaks_resp=False)

    def answers(self):
        """It has a handshake of its own; that it accepts is enough."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False
