"""Soak and chaos: plain producers, devices that come back, and everything between them failing.

    make chaos SECONDS=1800 SEED=7            or, with the programs in BELFRYD and BELFRYCTL:
    tests/chaos/run --seconds 1800 --seed 7

Prints the seed and, at the end, what was sent, lost, repeated and disordered. The same seed gives
the same schedule of faults and the same choices of producers and devices; how they meet is up to
the machine. Exit status: 0 every promise was kept, 1 one was not, 2 the run itself failed.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import random
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import harness
from actors import HISTORY, Device, Producer
from faults import Faults, Instance, WEIGHTS, kill, schedule, started
from ledger import Ledger, clock

SETTLE_S = 45     # for what is still under way when the faults end
QUIET_S = 1.5     # for repeats that come late
TAIL = 60         # lines of a server's log


class Run:
    def __init__(self, options):
        self.options = options
        self.seed = options.seed
        self.slow = options.slow
        self.swell = 10 if options.slow else 1  # of the texts
        self.rate = options.rate
        self.crossing = options.producers > 1
        self.fresh = options.fresh
        # Retries and faults of Redis may make the list hold a message twice.
        self.ahead = HISTORY * 6 // 10 // options.producers
        self.ledger = Ledger()
        self.counts = collections.Counter()
        self.closes = collections.Counter()
        self.faults_done = collections.Counter()
        self.of_server = collections.Counter()
        self.tallied = {}
        self.skipped = 0
        self.longest_sync = 0.0
        self.enough = asyncio.Event()   # nothing new is sent
        self.is_over = False
        self.redis = None
        self.instances = []
        self.producers = []
        self.devices = []
        self.tasks = []
        self.trace = open(options.trace, "w", encoding="utf-8") if options.trace else None

    def say(self, text):
        self.ledger.event(text)
        if self.trace:
            self.trace.write("%s %s\n" % (clock(), text))
            self.trace.flush()

    # -- who takes part

    async def set_up(self):
        o = self.options
        self.redis = harness.Redis(appendonly=True)
        for n in range(o.instances):
            more = {"ping_interval": "3s", "pong_timeout": "3s"}
            if self.slow:
                more = {"ping_interval": "40s", "send_buffer_limit": "16k"}
            self.instances.append(Instance(
                "instance%d" % n, self.redis, workers=str(o.workers), log_level="info",
                redis_probe_interval="1s", redis_command_timeout="2s", redis_connect_timeout="1s",
                drain_time="2s", **more))
        await asyncio.gather(*(i.come_up() for i in self.instances))
        for u in range(o.users):
            user = "u%d" % u
            for n in range(o.producers):
                self.producers.append(Producer(self, user, n))
            for n in range(o.devices + u % 2):
                self.devices.append(Device(self, user, n, self.crossing))
        for device in self.devices:
            await device.gate.start()
            self.tasks.append(asyncio.ensure_future(device.live()))
        # Everybody has a position before anything goes wrong.
        for producer in self.producers:
            await producer.produce()
        await harness.eventually_async(
            lambda: all(len(d.record.got) >= o.producers for d in self.devices),
            "every device got its first messages", 30)

    async def go_wrong(self):
        """The faults, as they are due; the last of them end some seconds after."""
        faults = Faults(self)
        kinds = set(WEIGHTS) if self.options.faults == "all" else \
            set(filter(None, self.options.faults.split(",")))
        began = time.monotonic()
        pending = []
        told = began
        for fault in schedule(self.seed, self.options.seconds, self.options.every, kinds):
            wait_s = began + fault.at_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            pending.append(asyncio.ensure_future(faults.do(fault)))
            if time.monotonic() - told > 30:
                told = time.monotonic()
                self.progress(told - began)
        await asyncio.sleep(max(0.0, began + self.options.seconds - time.monotonic()))
        await asyncio.gather(*pending)

    def progress(self, seconds):
        print("%s %5.0f s: published %d, received %d, faults %d, %s" % (
            clock(), seconds, self.ledger.published, self.ledger.delivered,
            sum(self.faults_done.values()),
            ", ".join("%s %d" % (k, n) for k, n in self.ledger.counts.items()) or "no complaint"),
            flush=True)

    async def settle(self, work):
        self.enough.set()
        await asyncio.wait_for(asyncio.gather(*work), SETTLE_S)

        def is_settled():
            return all(self.ledger.lag(p.user, p.number) == 0 for p in self.producers) and (
                self.ledger.missing() == 0)

        with contextlib.suppress(harness.Failure):
            await harness.eventually_async(is_settled, "settled", SETTLE_S, 0.2)
        await asyncio.sleep(QUIET_S)

    async def judge_unrecovered(self, device):
        """A device was told that its position left the list. Did it?"""
        self.ledger.unrecovered += 1
        position = '"%s"' % device.recent[-1]
        key = "notifications:" + device.user
        for _ in range(50):
            try:
                entries = await asyncio.to_thread(self.redis.client.lrange, key, 0, -1)
                break
            except Exception:
                await asyncio.sleep(0.2)
        else:
            entries = []
        if any(position in entry.decode() for entry in entries):
            self.ledger.problem("unjustified", device.record,
                                "recovered: false, but %s is in the list" % position)
        device.record.on_told()

    async def tally(self, instance):
        """Adds an instance's own counters before it is killed; best effort."""
        try:
            messages = (await asyncio.to_thread(instance.stats))["statistics"]["messages"]
        except Exception:
            return
        self.of_server.update({k: n for k, n in messages.items() if isinstance(n, int)})

    # -- the end

    async def tear_down(self):
        self.is_over = True
        self.enough.set()
        for device in self.devices:
            await device.leave()
            await device.gate.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for producer in self.producers:
            await producer.drop_client()
        for instance in self.instances:
            await asyncio.to_thread(self.stop_instance, instance)

    def stop_instance(self, instance):
        try:
            if instance.is_running():
                instance.signal(signal.SIGTERM)
                code = instance.wait()
                if code != 0:
                    self.ledger.problem("server", None, "%s ended with %d" % (
                        instance.label, code))
        except harness.Failure as e:
            self.ledger.problem("server", None, str(e))
        left = [pid for pid, since in instance.orphans if started(pid) == since and since]
        if left:
            self.ledger.problem("server", None, "workers outlived their master: %s" % left)
        for pid, since in instance.orphans:
            kill(pid, since)
        if instance.lines.alarms:
            self.ledger.problem("server", None, "\n".join(instance.lines.alarms))

    def check_logs(self):
        """Workers that ended otherwise than by our SIGKILL or as they should."""
        for instance in self.instances:
            for line in instance.lines:
                if re.search(r" worker-ended .*(signal=(?!KILL)|status=[^0])", line):
                    self.ledger.problem("server", None, "%s: %s" % (instance.label, line))

    async def whole(self):
        try:
            await self.set_up()
            work = [asyncio.ensure_future(p.work()) for p in self.producers]
            self.tasks += work
            await self.go_wrong()
            await self.settle(work)
            for instance in self.instances:
                await self.tally(instance)
        finally:
            await self.tear_down()

    def report(self, is_kept):
        ledger, o = self.ledger, self.options
        kinds = ("lost", "repeated", "disordered")
        print("chaos: seed %s, %g s, %d users with %d producer(s) each, %d devices, %d instances "
              "of %d workers" % (self.seed, o.seconds, o.users, o.producers, len(self.devices),
                                 o.instances, o.workers))
        print("  messages   stored+published %d, of %d begun; commands sent again %d" % (
            ledger.published, len(ledger.messages), ledger.retries))
        print("  deliveries expected %d, delivered %d, %s" % (
            ledger.expected, ledger.delivered,
            ", ".join("%s %d" % (k, ledger.counts[k]) for k in kinds)))
        print("  positions  recovered:false %d (unjustified %d), missed and told %d; repeated at "
              "the edge of seen %d" % (
                  ledger.unrecovered, ledger.counts["unjustified"], ledger.told, ledger.edge))
        print("  other      altered %d, foreign %d, server %d; longest wait for FULL_SYNC %.1f s; "
              "producers held back %d times" % (
                  ledger.counts["altered"], ledger.counts["foreign"], ledger.counts["server"],
                  self.longest_sync, sum(p.held_back for p in self.producers)))
        print("  devices    connections %d, %s" % (
            sum(d.connections for d in self.devices),
            ", ".join("%s %d" % pair for pair in sorted(self.counts.items())) or "-"))
        print("  closes     %s" % ", ".join("%d: %d" % p for p in sorted(self.closes.items())))
        print("  faults     %d: %s; skipped %d" % (
            sum(self.faults_done.values()),
            ", ".join("%s %d" % p for p in sorted(self.faults_done.items())), self.skipped))
        print("  server     %s" % ", ".join(
            "%s %d" % p for p in sorted(self.of_server.items()) if p[1]))
        print("result %s" % ("kept" if is_kept else "BROKEN; again with --seed %s" % self.seed))

    def explain(self):
        for text in self.ledger.problems:
            print(text, file=sys.stderr)
        for instance in self.instances:
            print("log of %s, its end:" % instance.label, file=sys.stderr)
            for line in list(instance.lines)[-TAIL:]:
                print("    " + line, file=sys.stderr)
        sys.stderr.flush()

    def write_logs(self, directory):
        os.makedirs(directory, exist_ok=True)
        for instance in self.instances:
            with open(os.path.join(directory, instance.label + ".log"), "w",
                      encoding="utf-8") as f:
                f.write(instance.log_text())


def parse(arguments):
    p = argparse.ArgumentParser(description="Soak and chaos for belfryd.")
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--seed", default=None, help="any text; a random number when not given")
    p.add_argument("--users", type=int, default=6)
    p.add_argument("--devices", type=int, default=2, help="of one user; every second has one more")
    p.add_argument("--producers", type=int, default=1, help="of one user; 2 cross each other")
    p.add_argument("--instances", type=int, default=2)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--rate", type=float, default=8, help="messages a second of one producer")
    p.add_argument("--every", type=float, default=0.8, help="seconds between faults, on average")
    p.add_argument("--fresh", type=float, default=0.02,
                   help="how likely a device that comes back has forgotten everything")
    p.add_argument("--faults", default="all", help="comma-separated; of: " + " ".join(WEIGHTS))
    p.add_argument("--slow", action="store_true",
                   help="large messages, small buffers, long stalls: the limits for slow readers")
    p.add_argument("--trace", help="file for the faults as they are done")
    p.add_argument("--logs", help="directory for the servers' logs")
    p.add_argument("--schedule", action="store_true", help="print the schedule and end")
    options = p.parse_args(arguments)
    if not options.seed:
        options.seed = str(random.SystemRandom().randrange(1, 1 << 31))
    unknown = set(filter(None, options.faults.split(","))) - set(WEIGHTS) - {"all"}
    if unknown:
        p.error("unknown fault: " + " ".join(sorted(unknown)))
    return options


def give_up(*_):
    """Asked to end, or far over time: nothing is left behind, whatever state the run is in."""
    print("chaos: ended from outside or out of time", file=sys.stderr, flush=True)
    harness.end_everything()
    os._exit(2)


def main():
    options = parse(sys.argv[1:])
    if options.schedule:
        kinds = set(WEIGHTS) if options.faults == "all" else set(options.faults.split(","))
        for fault in schedule(options.seed, options.seconds, options.every, kinds):
            print(fault)
        return 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, give_up)
    signal.alarm(int(options.seconds) + 240)
    print("chaos: seed %s, %g s, %s" % (options.seed, options.seconds, harness.BELFRYD), flush=True)
    run = Run(options)
    try:
        asyncio.run(run.whole())
    except Exception:
        run.explain()
        print("chaos: seed %s: the run failed" % options.seed, file=sys.stderr)
        raise
    else:
        run.check_logs()
        is_kept = run.ledger.judge()
        if not is_kept:
            run.explain()
        run.report(is_kept)
        return 0 if is_kept else 1
    finally:
        if options.logs:
            run.write_logs(options.logs)
        harness.end_everything()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as e:
        import traceback
        traceback.print_exc()
        sys.exit(2)
