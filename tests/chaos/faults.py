"""What goes wrong in a chaos run: the schedule, which is a function of the seed, and its doing."""

import asyncio
import os
import signal

import redis as redis_client

import harness
from actors import generator

# Fault -> weight. Each is tried even in a short run (schedule()).
WEIGHTS = {
    "worker-kill": 3,        # SIGKILL of one worker
    "links-subscriber": 2,   # CLIENT KILL of every subscriber link
    "links-command": 2,      # ... and of every other link, the producers' too
    "link-one": 2,           # ... and of one subscriber link
    "redis-stop": 2,         # SIGSTOP, SIGCONT
    "redis-kill": 1.5,       # SIGKILL, started again with its append-only file
    "instance-kill": 1.5,    # SIGKILL of master and workers, started again
    "master-kill": 0.7,      # SIGKILL of the master alone, started again
    "instance-stop": 0.7,    # SIGTERM, started again
    "reload": 1.5,           # SIGHUP
    "client-cut": 5,         # TCP reset on both sides
    "client-vanish": 3,      # the client resets, the server hears nothing of it
    "client-stall": 3,       # the client reads nothing for a while, then goes on or is cut
}
START_S = 30


class Fault:
    def __init__(self, at_s, kind, r):
        self.at_s = at_s
        self.kind = kind
        self.index = r.randrange(1 << 16)    # of a worker, a link, an instance, a device
        self.second = r.randrange(1 << 16)
        self.long = r.random()               # how long, 0..1 of the fault's own scale
        self.coin = r.random() < 0.5

    def __str__(self):
        return "%7.2f s %s %d/%d %.2f %s" % (self.at_s, self.kind, self.index % 97,
                                             self.second % 97, self.long, "ab"[self.coin])


def schedule(seed, seconds, mean_s, kinds):
    """Every kind once in random order if there is time, then by weight."""
    r = generator(seed, "faults")
    kinds = sorted(kinds)
    first = r.sample(kinds, len(kinds))
    at, made = 0.5, []
    while kinds:
        at += r.expovariate(1 / mean_s)
        if at >= seconds:
            break
        kind = first.pop() if first else r.choices(kinds, [WEIGHTS[k] for k in kinds])[0]
        made.append(Fault(at, kind, r))
    return made


class Instance(harness.Belfry):
    """A belfryd that is killed, and started again at another port."""

    def __init__(self, label, redis, **options):
        super().__init__(redis, start=False, **options)
        self.label = label
        self.lock = asyncio.Lock()
        self.orphans = []
        self.lines = Lines()

    def children(self):
        try:
            with open("/proc/%d/task/%d/children" % (self.pid, self.pid), encoding="ascii") as f:
                return [(int(pid), started(int(pid))) for pid in f.read().split()]
        except (OSError, AttributeError):
            return []

    async def come_up(self):
        """Started; takes connections when this returns."""
        self.addresses = []
        await asyncio.to_thread(self.start, wait=False)

        def look():
            if not self.is_running():
                raise harness.Failure("%s ended with %s" % (self.label, self.child.returncode))
            status = self.ask("status", 2)
            return status if status and status["state"] == "running" else None

        async def status():
            try:
                return await asyncio.to_thread(look)
            except OSError:
                return None

        got = await harness.eventually_async(status, self.label + " runs", START_S, 0.05)
        self.addresses = got["listen"]
        self.generation = got["generation"]

    def log_text(self, after=0):
        with self.news:
            return "\n".join(list(self.lines)[after:])


class Lines(list):
    """A log's newest lines; what a sanitizer or the kernel said is kept apart."""

    def __init__(self):
        super().__init__()
        self.alarms = []

    def append(self, line):
        if harness.SANITIZER.search(line) or self.alarms and len(self.alarms) < 40:
            self.alarms.append(line)
        if len(self) > 20000:
            del self[:10000]
        super().append(line)


def started(pid):
    """Start time of a process, which tells it from a later one of the same number; None: gone."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def kill(pid, since):
    if started(pid) == since and since is not None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Faults:
    """Does what the schedule says. What concerns Redis is done one after the other, and so is what
    concerns one instance; a fault whose turn does not come in time is skipped."""

    PATIENCE_S = 3

    def __init__(self, run):
        self.run = run
        self.redis_lock = asyncio.Lock()

    def instance(self, fault):
        return self.run.instances[fault.index % len(self.run.instances)]

    def gate(self, fault):
        return self.run.devices[fault.index % len(self.run.devices)].gate

    async def do(self, fault):
        name = fault.kind.replace("-", "_")
        lock = None
        if fault.kind.startswith(("redis", "link")):
            lock = self.redis_lock
        elif not fault.kind.startswith("client"):
            lock = self.instance(fault).lock
        if lock is not None:
            try:
                await asyncio.wait_for(lock.acquire(), self.PATIENCE_S)
            except asyncio.TimeoutError:
                self.run.skipped += 1
                return
        try:
            await getattr(self, name)(fault)
        finally:
            if lock is not None:
                lock.release()

    def say(self, fault, text):
        self.run.faults_done[fault.kind] += 1
        self.run.say("%s: %s" % (fault.kind, text))

    # -- workers, instances

    async def worker_kill(self, fault):
        instance = self.instance(fault)
        children = instance.children()
        if children:
            pid, since = children[fault.second % len(children)]
            self.say(fault, "%s worker %d" % (instance.label, pid))
            kill(pid, since)

    async def instance_kill(self, fault, with_workers=True):
        instance = self.instance(fault)
        await self.run.tally(instance)
        children = instance.children()
        self.say(fault, "%s master %d workers %s" % (
            instance.label, instance.pid, [pid for pid, _ in children]))
        instance.child.kill()
        instance.addresses = []
        if with_workers:
            for pid, since in children:
                kill(pid, since)
        await asyncio.to_thread(instance.child.wait, harness.TIMEOUT)
        if not with_workers:
            instance.orphans += children
        await asyncio.sleep(2.5 * fault.long)
        await self.bring_up(instance)

    async def master_kill(self, fault):
        await self.instance_kill(fault, with_workers=False)

    async def instance_stop(self, fault):
        instance = self.instance(fault)
        await self.run.tally(instance)
        self.say(fault, "%s master %d" % (instance.label, instance.pid))
        instance.signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(instance.child.wait, harness.TIMEOUT)
        except Exception:
            self.run.ledger.problem("server", None, "%s did not stop" % instance.label)
            instance.child.kill()
            code = 0
        if code != 0:
            self.run.ledger.problem("server", None, "%s stopped with %d" % (instance.label, code))
        instance.addresses = []
        await asyncio.sleep(1.5 * fault.long)
        await self.bring_up(instance)

    async def bring_up(self, instance):
        try:
            await instance.come_up()
            self.run.say("%s is back" % instance.label)
        except harness.Failure as e:
            self.run.ledger.problem("server", None, str(e))

    async def reload(self, fault):
        instance = self.instance(fault)
        self.say(fault, instance.label)
        instance.signal(signal.SIGHUP)

        async def is_reloaded():
            try:
                status = await asyncio.to_thread(instance.ask, "status", 2)
            except OSError:
                return False
            return status and status["generation"] != instance.generation and status

        try:
            status = await harness.eventually_async(is_reloaded, "reloaded", START_S, 0.05)
            instance.generation = status["generation"]
            instance.addresses = status["listen"]
        except harness.Failure:
            self.run.ledger.problem("server", None, "%s did not reload" % instance.label)

    # -- Redis

    async def ask_redis(self, *words):
        client = self.run.redis.client
        try:
            if words[:2] == ("CLIENT", "LIST"):
                return await asyncio.to_thread(client.client_list, words[3])
            return await asyncio.to_thread(client.execute_command, *words)
        except (redis_client.RedisError, OSError):
            return None

    async def links_subscriber(self, fault):
        self.say(fault, "all")
        await self.ask_redis("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")

    async def links_command(self, fault):
        self.say(fault, "all")
        await self.ask_redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def link_one(self, fault):
        links = await self.ask_redis("CLIENT", "LIST", "TYPE", "pubsub")
        if links:
            link = links[fault.index % len(links)]
            self.say(fault, "client %s" % link["id"])
            await self.ask_redis("CLIENT", "KILL", "ID", link["id"])

    async def redis_stop(self, fault):
        hold_s = 0.1 + 4 * fault.long ** 2
        self.say(fault, "for %.2f s" % hold_s)
        self.run.redis.pause()
        try:
            await asyncio.sleep(hold_s)
        finally:
            self.run.redis.resume()
        self.run.say("redis goes on")

    async def redis_kill(self, fault):
        away_s = 2 * fault.long ** 2
        self.say(fault, "away for %.2f s" % away_s)
        await asyncio.to_thread(self.run.redis.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self.run.redis.start)
        self.run.say("redis is back")

    # -- clients

    async def client_cut(self, fault):
        gate = self.gate(fault)
        self.say(fault, gate.name)
        gate.cut()

    async def client_vanish(self, fault):
        gate = self.gate(fault)
        self.say(fault, gate.name)
        await gate.vanish(0.5 + 9 * fault.long)

    async def client_stall(self, fault):
        gate = self.gate(fault)
        hold_s = 0.2 + (20 if self.run.slow else 7) * fault.long
        self.say(fault, "%s for %.2f s, then %s" % (
            gate.name, hold_s, "cut" if fault.coin else "on"))
        await gate.stall(hold_s, fault.coin)
