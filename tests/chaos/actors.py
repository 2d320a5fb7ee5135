"""Who takes part in a chaos run: plain producers, devices that come back, and the gate between a
device and the instances.

What an actor chooses comes from a generator of its own, seeded by the run's seed and its name, so
that the choices of a run can be had again. How long it waits before it tries again does not.
"""

import asyncio
import contextlib
import json
import random
import socket
import struct
import time

import redis.asyncio
import redis.asyncio.retry
import redis.backoff

import harness
from ledger import digest

HISTORY = 100
SEEN = 32
TYPES = ("NOTIFICATION", "BUDGET_ALERT", "NEW_TRANSACTION", "goal_achieved", "CHAOS_OF_ITS_OWN")
FILLING = ("x", "\u00e9", "\"", "\\", "\u20ac", "\U0001f514", "</script>", "\n", " ")


def generator(seed, name):
    return random.Random("%s/%s" % (seed, name))


# ---- producers ----------------------------------------------------------------------------------


class Producer:
    """LPUSH, LTRIM, EXPIRE, PUBLISH, each until Redis acknowledged it; it knows nothing else."""

    def __init__(self, run, user, number):
        self.run = run
        self.user = user
        self.number = number
        self.name = "%s/producer%d" % (user, number)
        self.random = generator(run.seed, self.name)
        self.client = None
        self.held_back = 0
        run.ledger.stream(user, number)

    async def command(self, sent, *words):
        while True:
            try:
                if self.client is None:
                    self.client = redis.asyncio.Redis(
                        unix_socket_path=self.run.redis.path, socket_timeout=1.0,
                        retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0))
                return await self.client.execute_command(*words)
            except Exception:  # the library has more of them than RedisError when a link is cut
                sent.tries += 1
                self.run.ledger.retries += 1
                await self.drop_client()
                await asyncio.sleep(random.uniform(0.02, 0.2))

    async def drop_client(self):
        client, self.client = self.client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.connection_pool.disconnect()

    def texts(self):
        """The stored and the live text of the next message; they differ as the field's do."""
        r = self.random
        number = len(self.run.ledger.streams[self.user, self.number])
        id = "%s.%d.%06d.%08x" % (self.user, self.number, number, r.getrandbits(32))
        size = r.choice((0, 10, 50, 50, 200, 200, r.randrange(2000))) * self.run.swell
        body = {"id": id, "type": r.choice(TYPES), "timestamp": harness.utc(), "user_id": self.user,
                "payload": {"n": number, "text": r.choice(FILLING) * size}}
        live = dict(body, channel="ws:user:" + self.user)
        if r.random() < 0.5:
            live["timestamp"] = harness.utc(0.001)[:-1]
        separators = r.choice(((", ", ": "), (",", ":")))
        plain = r.random() < 0.5
        return id, *(json.dumps(b, ensure_ascii=plain, separators=separators)
                     for b in (body, live))

    async def produce(self):
        id, stored, live = self.texts()
        pause = self.random.choice((0, 0, 0, self.random.uniform(0, 0.06)))
        if self.run.crossing and self.random.random() < 0.4:
            pause = self.random.uniform(0, 0.4)  # time for the other to store and publish
        sent = self.run.ledger.begin(id, self.user, self.number, (digest(stored), digest(live)))
        key = "notifications:" + self.user
        await self.command(sent, "LPUSH", key, stored)
        sent.stored = time.time()
        await self.command(sent, "LTRIM", key, 0, HISTORY - 1)
        await self.command(sent, "EXPIRE", key, 604800)
        if pause:
            await asyncio.sleep(pause)
        await self.command(sent, "PUBLISH", "ws:user:" + self.user, live)
        sent.published = time.time()

    async def work(self):
        """Until the run says enough. It never runs so far ahead of a device that the list could
        not hold what the device has yet to get."""
        burst = 0
        while not self.run.enough.is_set():
            if self.run.ledger.lag(self.user, self.number) >= self.run.ahead:
                self.held_back += 1
                await asyncio.sleep(0.05)
                continue
            await self.produce()
            if burst:
                burst -= 1
                continue
            if self.random.random() < 0.03:
                burst = self.random.randrange(3, 15)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.run.enough.wait(),
                                       self.random.expovariate(self.run.rate))


# ---- the network --------------------------------------------------------------------------------


def reset(writer):
    """Ends TCP with RST at once."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Gate:
    """A device's way to the service: a TCP proxy that tries one instance after the other. It has
    the two members of a server that harness.Client asks for."""

    def __init__(self, run, name):
        self.run = run
        self.name = name
        self.random = random.Random(name)  # which instance: no choice that a seed could repeat
        self.addresses = []
        self.server = None
        self.pair = None      # (client's writer, server's writer, tasks) of the newest connection
        self.flows = asyncio.Event()
        self.flows.set()
        self.tasks = set()
        self.chosen = "?"

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=16384)
        self.addresses = ["127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]]

    def address(self, index=0):
        return harness.parse_address(self.addresses[index])

    async def connect(self):
        """(reader, writer) to any instance that takes the connection."""
        for instance in self.random.sample(self.run.instances, len(self.run.instances)):
            for address in instance.addresses[:1]:
                sock = socket.socket()
                sock.setblocking(False)
                if self.run.slow:  # the server's kernel sizes its buffer by the segments
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
                try:
                    await asyncio.wait_for(asyncio.get_running_loop().sock_connect(
                        sock, harness.parse_address(address)[1]), 2)
                    self.chosen = instance.label
                    return await asyncio.open_connection(sock=sock, limit=16384)
                except (OSError, asyncio.TimeoutError):
                    sock.close()
        return None

    async def accept(self, reader, writer):
        back = await self.connect()
        if back is None:
            reset(writer)
            return
        back_reader, back_writer = back
        tasks = [asyncio.ensure_future(self.pump(reader, back_writer, False)),
                 asyncio.ensure_future(self.pump(back_reader, writer, True))]
        self.pair = (writer, back_writer, tasks)
        self.tasks.update(tasks)
        for task in tasks:
            task.add_done_callback(self.tasks.discard)

    async def pump(self, reader, writer, is_down):
        try:
            while True:
                if is_down:
                    await self.flows.wait()
                data = await reader.read(16384)
                if is_down:
                    await self.flows.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            reset(writer)

    # -- faults; all of them of the newest connection, and nothing when there is none

    def cut(self):
        """The network is gone for both sides."""
        if self.pair:
            for writer in self.pair[:2]:
                reset(writer)

    async def vanish(self, hold_s):
        """The client is gone; its server hears nothing, and nobody reads what it sends."""
        if not self.pair:
            return
        client, server, tasks = self.pair
        self.pair = None
        for task in tasks:
            task.cancel()
        with contextlib.suppress(RuntimeError):
            server.transport.pause_reading()
        reset(client)
        await asyncio.sleep(hold_s)
        reset(server)

    async def stall(self, hold_s, then_cut):
        """Nothing comes to the client for a while; it goes on, or ends."""
        self.flows.clear()
        await asyncio.sleep(hold_s)
        if then_cut:
            self.cut()
        self.flows.set()

    async def stop(self):
        self.flows.set()
        if self.server:
            self.server.close()
        if self.pair:
            self.cut()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


# ---- devices ------------------------------------------------------------------------------------


class Device:
    """Connects, remembers what came, and comes back with last_id (and seen) whenever it is cut."""

    def __init__(self, run, user, number, crosses):
        self.run = run
        self.user = user
        self.name = "%s/device%d" % (user, number)
        self.random = generator(run.seed, self.name)
        self.crosses = crosses  # its user's producers cross each other
        self.uses_seen = crosses or number % 2 == 0
        self.gate = Gate(run, self.name)
        self.connections = 0
        self.lives = 0
        self.ws = None
        self.recent = []
        self.replay_left = 0    # messages that FULL_SYNC said were missed, and that are yet to come
        self.shown = set()      # ids that the connection's request named
        self.begin_life()

    def begin_life(self):
        """A device that was set up anew knows nothing of what came before."""
        name = "%s.%d" % (self.name, self.lives)
        self.record = self.run.ledger.record(name, self.user, self.lives == 0)
        self.lives += 1
        self.recent = []

    def query(self):
        if not self.recent:
            return {}
        query = {"last_id": self.recent[-1]}
        if self.uses_seen:
            query["seen"] = ",".join(self.recent[:-SEEN - 1:-1])
        return query

    def wait_s(self, failures):
        jitter = self.random.choice((0, 0.02, 0.1, 0.3, 0.3, 0.6, 1.0, 3.0))
        return self.random.uniform(0, jitter) + min(2.0, 0.1 * failures)

    async def live(self):
        failures = 0
        while not self.run.is_over:
            try:
                client = await harness.Client.open(self.gate, self.user, query=self.query(),
                                                   open_timeout=10, close_timeout=10)
            except Exception as e:  # whatever a cut connection looks like to the library
                failures += 1
                self.record.note("not connected: %s" % (str(e) or type(e).__name__)[:60])
                await asyncio.sleep(self.wait_s(failures))
                continue
            self.connections += 1
            failures = 0 if await self.listen(client) else failures + 1
            if self.run.is_over:
                break
            await asyncio.sleep(self.wait_s(failures))
            is_fresh = self.random.random() < self.run.fresh
            # A device that has nothing yet is new anyway.
            if is_fresh and self.recent and not self.run.enough.is_set():
                self.record.is_retired = True
                self.run.counts["devices set up anew"] += 1
                self.begin_life()

    async def listen(self, client):
        """Until the connection ends; true when it was served at all."""
        began = time.time()
        is_synced = False
        self.ws = client.ws
        self.record.note("connected to %s with %s" % (
            self.gate.chosen, self.recent[-1:] or "nothing"))
        try:
            while True:
                text = await client.ws.recv()
                is_synced |= await self.take(text, began)
        except harness.websockets.exceptions.ConnectionClosed as e:
            code = e.rcvd.code if e.rcvd else 1006
            self.record.note("closed with %d" % code)
            self.run.closes[code] += 1
        finally:
            self.ws = None
        return is_synced

    async def take(self, text, began):
        body = json.loads(text)
        if body["type"].upper() == "FULL_SYNC":
            waited = time.time() - began
            self.run.longest_sync = max(self.run.longest_sync, waited)
            sync = body["sync"]
            if waited > 3:
                self.run.say("%s waited %.1f s for FULL_SYNC from %s, conn %s" % (
                    self.name, waited, self.gate.chosen, sync["connection_id"]))
            self.record.note("sync recovered=%s missed=%d conn=%s after %.2f s" % (
                sync["recovered"], sync["missed"], sync["connection_id"], waited))
            self.record.on_sync()
            self.replay_left = sync["missed"]
            self.shown = set(self.recent[-SEEN:])
            if not sync["recovered"]:
                await self.run.judge_unrecovered(self)
            return True
        if "error" in body.get("type", "").lower():
            self.run.counts["error replies"] += 1
        id = body.get("id")
        self.record.on_message(id, text, self.replay_left > 0 and self.is_edge(id))
        self.replay_left -= 1
        if id in self.record.got:
            self.recent = (self.recent + [id])[-64:]
        return False

    def is_edge(self, id):
        """See Record.on_message."""
        messages = self.run.ledger.messages
        if not self.crosses or id not in messages or id in self.shown:
            return False
        stored = messages[id].stored
        return stored is None or any(messages[one].begun <= stored for one in self.shown)

    async def leave(self):
        ws = self.ws
        if ws is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(ws.close(), 2)
