"""Measurements of Belfry alone: what one table of servers beside each other cannot show.

Each part is a function of a Place that returns figures by name; whole.py runs them, tables.py
writes what they found. Several runs of one kind are kept one by one.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.request

import peers

BIG = 50000      # connections of the parts that need several workers
BIG_WORKERS = 3  # a process opens 20,000 files here
HELD = 100000
HELD_WORKERS = 7
INCOMING_RATE = 2000
ORDINARY, REAL_TIME = "ordinary", "real time"  # how the processes of a run are scheduled
FIRST_OTHER = 1000000  # users of a second crowd
FIRST_INCOMING = 5000  # the same where the floor is asked, too: it knows users below 20,000
# (workers, connections)
FLATNESS_MORE = 1  # rounds
FLATNESS = ((1, 1000), (1, 5000), (1, 15000), (2, 5000), (4, 5000), (4, 20000), (4, BIG))


class Belfry(peers.Belfry):
    """With its metrics at hand."""

    def __init__(self, place, workers=1):
        super().__init__(place)
        self.workers = workers
        self.metrics_port = 0

    def command(self, scenario):
        command = super().command(scenario)
        self.metrics_port = peers.free_port()
        config = self.place.directory / "belfry.conf"
        config.write_text(config.read_text()
                          + f"metrics-listen = 127.0.0.1:{self.metrics_port}\n")
        return command

    def turns(self):
        """upper bound in seconds -> turns of the loop that took at most so long, all workers"""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        text = urllib.request.urlopen(url, timeout=30).read().decode()
        found = {}
        for bound, count in re.findall(
                r'^belfry_instance_loop_turn_seconds_bucket\{le="([^"]+)"\} (\d+)', text, re.M):
            found[float(bound)] = int(count)
        return found


def command_of(place, server, mode, options, is_meek=False):
    """is_meek: the processor is its own only while no other wants it. So a crowd, whose clients
    would be on as many machines, takes nothing from Redis and from those who measure. (SCHED_IDLE
    gives way at once; a process of nice 19 keeps a processor for some milliseconds.)"""
    before, after = server.bench_options(mode)
    return place.pinned(place.client_cpu, [
        os.environ["BELFRY_BENCH"], f"--redis-url=unix://{place.redis_socket}",
        f"--jwt-secret-file={place.secret}", *before, mode, f"--pid={server.process.pid}",
        "--json", "--limit=60", *options, *after], is_meek)


def finish(process, what):
    out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{what}: not good: {out.decode()}")
    return json.loads(out)


def start(place, server, mode, options, **how):
    return subprocess.Popen(command_of(place, server, mode, options, **how),
                            stdout=subprocess.PIPE)


class Running:
    """Redis and a server, for one run."""

    def __init__(self, place, server, mode):
        self.place, self.server, self.mode = place, server, mode

    def __enter__(self):
        self.place.start_redis()
        try:
            self.server.start(self.mode)
        except Exception:
            self.__exit__()
            raise
        return self.server

    def __exit__(self, *_):
        self.server.stop()
        self.place.stop_redis()


def run(place, server, mode, options):
    with Running(place, server, mode):
        return finish(start(place, server, mode, options), f"{server.name} {mode} {options}")


def dropped_syns():
    """How many found a listening queue full, since this machine runs."""
    names, values = pathlib.Path("/proc/net/netstat").read_text().splitlines()[:2]
    return int(dict(zip(names.split(), values.split()))["ListenOverflows"])


def redis_figures(place):
    """What Redis has done since it runs: commands by name, and "reads" of what came over links."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(place.redis_socket))
        link.sendall(b"INFO all\r\n")
        answer = link.makefile("rb")
        text = answer.read(int(answer.readline()[1:])).decode()
    found = {name: int(calls) for name, calls in
             re.findall(r"^cmdstat_([^:]+):calls=(\d+)", text, re.M)}
    found["reads"] = int(re.search(r"^total_reads_processed:(\d+)", text, re.M)[1])
    return found


# ---- the parts ----------------------------------------------------------------------------------


def hold(place, server, connections):
    """Connections that do nothing, and what Redis was asked for until all were live."""
    with Running(place, server, "idle"):
        before = redis_figures(place)
        crowd = start(place, server, "idle", [f"--connections={connections}", "--seconds=5"])
        wait_for_clients(server, connections)
        time.sleep(2)
        after = redis_figures(place)
        found = finish(crowd, f"{server.name} idle {connections}")
    found["redis"] = {name: after[name] - before.get(name, 0) for name in after}
    return found


def memory(place, rounds):
    """Idle connections of one worker, and as many as several hold."""
    del rounds
    return {"one worker": [hold(place, Belfry(place), 15000)],
            "held": [hold(place, Belfry(place, HELD_WORKERS), HELD)]}


def storms(place, rounds):
    found = {}
    for connections in (5000, 15000):
        runs = found[f"{connections}"] = []
        for _ in range(rounds):
            before = dropped_syns()
            runs.append(run(place, Belfry(place), "storm", [f"--connections={connections}"]))
            runs[-1]["syns_dropped"] = dropped_syns() - before
    return found


CONNECTED = ("--connections=2000", "--rate=2000", "--messages=10000")
OTHERS = ("--connections=12000", f"--first-user={FIRST_INCOMING}",
          f"--connect-rate={INCOMING_RATE}", "--seconds=1")


def while_others_come(place, server, with_others):
    """Those who are connected, and those who come; the second is None when nobody does."""
    with Running(place, server, "unicast"):
        first = start(place, server, "unicast", CONNECTED)
        second = start(place, server, "idle", OTHERS, is_meek=True) if with_others else None
        return finish(first, "connected"), second and finish(second, "others")


def incoming(place, rounds):
    """Latency of those who are connected, alone and while others come in, beside the floor's; with
    every process an ordinary one, and with every process at real time. The others are a generator
    of their own that stands back: what it costs to make so many connections is the clients' matter,
    and is not to delay those who measure. All of it takes turns within a round."""
    found = {}
    setups = (ORDINARY, REAL_TIME) if peers.may_be_realtime() else (ORDINARY,)
    try:
        for _ in range(rounds):
            for setup in setups:
                place.is_realtime = setup == REAL_TIME
                for server in (peers.Floor(place), Belfry(place)):
                    of = found.setdefault(setup, {}).setdefault(
                        server.name, {"quiet": [], "incoming": [], "others": []})
                    of["quiet"].append(while_others_come(place, server, False)[0])
                    both = while_others_come(place, server, True)
                    of["incoming"].append(both[0])
                    of["others"].append(both[1])
    finally:
        place.is_realtime = False
    return found


def flatness(place, rounds):
    """What a delivery costs by workers and connections, beside a floor with as many processes.
    All sizes are measured once in a round: what the machine does for a minute meets all of them,
    and not one alone. Floor and Belfry take turns at being first."""
    found = {}
    for number in range(rounds + FLATNESS_MORE):
        for workers, connections in FLATNESS:
            options = [f"--connections={connections}",
                       f"--messages={max(10, 400000 // connections)}"]
            floor = peers.Floor(place)
            floor.workers = workers
            both = [floor, Belfry(place, workers)]
            for server in both if number % 2 == 0 else reversed(both):
                found.setdefault(f"{server.name}, {workers}, {connections}", []).append(
                    run(place, server, "broadcast", options))
    return found


def turns_between(before, after):
    return {str(bound): after[bound] - before.get(bound, 0) for bound in after}


def listen(place, server):
    """Messages to users of their own, at a rate: what they wait for them."""
    return start(place, server, "unicast",
                 ["--connections=200", f"--first-user={FIRST_OTHER}", "--rate=1000",
                  "--messages=8000"])


def while_broadcasts(place, server, found):
    """Messages to a few while broadcasts go to all, all the time that they are measured."""
    with Running(place, server, "idle"):
        crowd = start(place, server, "broadcast",
                      [f"--connections={BIG}", "--rate=1", "--messages=14", "--warmup=0",
                       "--limit=120"], is_meek=True)
        wait_for_clients(server, BIG)
        time.sleep(1)
        before = server.turns()
        found["unicast while broadcasts"] = [finish(listen(place, server), "listeners")]
        found["turns while broadcasts"] = [turns_between(before, server.turns())]
        if crowd.poll() is not None:
            raise RuntimeError("broadcasts: the crowd left before the listeners were done")
        found["broadcasts"] = [finish(crowd, "broadcasts")]


def while_idle(place, server, found):
    """Turns of the loop while nothing happens but what is periodic. Then messages to a few, amid
    which all others leave at once."""
    with Running(place, server, "idle"):
        crowd = start(place, server, "idle",
                      [f"--connections={BIG}", "--seconds=33", "--limit=120"], is_meek=True)
        wait_for_clients(server, BIG)
        time.sleep(1)
        before = server.turns()
        for _ in range(28):  # more than the interval of pings
            time.sleep(1)
            server.turns()
        found["turns while idle"] = [turns_between(before, server.turns())]
        if crowd.poll() is not None:
            raise RuntimeError("idle: the crowd left before the end")
        before = server.turns()
        listeners = listen(place, server)
        found["idle"] = [finish(crowd, "idle")]
        if listeners.poll() is not None:
            raise RuntimeError("idle: the crowd left after the listeners")
        found["unicast while all leave"] = [finish(listeners, "listeners")]
        found["turns while all leave"] = [turns_between(before, server.turns())]


def many(place, rounds):
    """50,000 held by several workers on one processor."""
    del rounds
    server = Belfry(place, BIG_WORKERS)
    found = {}
    while_broadcasts(place, server, found)
    while_idle(place, server, found)
    return found


def wait_for_clients(server, count, limit_s=120):
    until = time.monotonic() + limit_s
    url = f"http://127.0.0.1:{server.port}/ws/health"
    while time.monotonic() < until:
        health = json.loads(urllib.request.urlopen(url, timeout=30).read())
        if health["total_connections"] >= count:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{count} clients are not there in time")


ALL = {"memory": memory, "storms": storms, "incoming": incoming, "flatness": flatness,
       "many": many}
