"""Network namespaces on one bridge, whose links can be slowed; all of it is gone when the script ends."""

import atexit
import os
import subprocess

from benchpeers.servers import Failed

NET = "10.77.77"
HERE = f"{NET}.254"


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


class Network:
    """`count` namespaces with an address each; this script's own is at the bridge too."""

    all = []
    made = 0

    def __init__(self, count):
        # (Of each network its own: a namespace that was deleted keeps its ends of links until its last process is gone.)
        Network.made += 1
        mark = f"{os.getpid()}{chr(ord('a') + Network.made % 26)}"
        self.hub = f"fb{mark}"
        self.names = [f"fb{mark}-{n}" for n in range(count)]
        self.legs = [f"fb{mark}l{n}" for n in range(count)]
        atexit.register(self.remove)
        Network.all.append(self)
        run("ip", "link", "add", self.hub, "type", "bridge")
        run("ip", "addr", "add", f"{HERE}/24", "dev", self.hub)
        run("ip", "link", "set", self.hub, "up")
        for n, (name, leg) in enumerate(zip(self.names, self.legs)):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", leg, "type", "veth", "peer", "eth0", "netns", name)
            run("ip", "link", "set", leg, "master", self.hub, "up")
            self.within(n, "ip", "addr", "add", f"{self.address(n)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self.within(n, "ip", "link", "set", device, "up")

    def address(self, n):
        return f"{NET}.{n + 1}"

    def prefix(self, n):
        """What goes before a command that runs in namespace `n`."""
        return ["ip", "netns", "exec", self.names[n]]

    def within(self, n, *command):
        return run(*self.prefix(n), *command)

    def shape(self, rate):
        """Whatever leaves a namespace leaves at this rate, as from a network card."""
        for n in range(len(self.names)):
            self.within(n, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "128kb",
                        "latency", "20ms")

    def counter(self, n):
        """An open file that says how many bytes have left namespace `n`."""
        return os.open(f"/sys/class/net/{self.legs[n]}/statistics/rx_bytes", os.O_RDONLY)

    def remove(self):
        for name in self.names:
            subprocess.run(("ip", "netns", "del", name), capture_output=True)
        subprocess.run(("ip", "link", "del", self.hub), capture_output=True)


def read(counter):
    return int(os.pread(counter, 32, 0))
