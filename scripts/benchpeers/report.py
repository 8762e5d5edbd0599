"""The dated Markdown report."""

import os
import platform
import subprocess
import sys
import time


def said_by(*command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.stdout.strip()
    except FileNotFoundError:
        return ""


def cpu_model():
    lines = said_by("lscpu").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Model name")), "?")


def commit():
    changed = " with uncommitted changes" if said_by("git", "status", "--porcelain", "-uno") else ""
    return (said_by("git", "rev-parse", "--short=12", "HEAD") or "?") + changed


def host(command="scripts/bench-peers"):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "CPU": f"{cpu_model()}, {os.cpu_count()} CPUs, {memory:.0f} GiB",
        "kernel": platform.release(),
        "load average at the end": f"{os.getloadavg()[0]:.2f}",
        "commit": commit(),
        "redis": said_by("redis-server", "--version").split(" sha=")[0],
        "memcached": said_by("memcached", "--version"),
        "command": " ".join([command, *sys.argv[1:]]),
    }


def number(value):
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3f}"


def markdown(rows, host_facts, repeats):
    text = (f"* server on CPU 0, load on CPU 1; 64-byte values, 16-byte keys, 100,000 keys unless a row says else; "
            f"medians of {repeats} interleaved runs; CPU time of all of a server's threads, from the scheduler")
    return table("Speed and memory against redis and memcached", rows, host_facts, text)


def cluster(rows, repeats):
    facts = host("scripts/bench-cluster")
    facts.pop("memcached")
    facts["etcd"] = (said_by("etcd", "--version").splitlines() or ["not there"])[0]
    facts["TCP"] = said_by("sysctl", "-n", "net.ipv4.tcp_congestion_control")
    text = (f"* bricks in network namespaces of this machine, `park` and `memory` unless a row says else; medians of "
            f"{repeats} runs; links of 1 Gbit/s are shaped by tbf")
    return table("The cluster's figures", rows, facts, text)


def table(title, rows, host_facts, text):
    lines = [f"# {title}", ""]
    lines += [f"* {name}: {value}" for name, value in host_facts.items()]
    lines += [text, "", "| figure | peer | firebrick | ratio | bar | | |",
              "| --- | ---: | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        bar = "" if row["bar"] is None else f"{row['better']} {row['bar']:g}"
        verdict = {True: "met", False: "**missed**", None: ""}[row["met"]]
        lines.append(f"| {row['figure']} | {number(row['peer'])} | {number(row['firebrick'])} | "
                     f"{number(row['ratio'])} | {bar} | {verdict} | {row['note']} |")
    return "\n".join(lines) + "\n"
