"""What the end-to-end tests stand on: the real belfryd, plain producers, foreign clients.

Every wait is bounded and ends by an event: an answer, a log line, a message, the end of a process.
Works with python3-websockets 10 to 15. What processes.py and waiting.py offer is found here, too.
"""

import asyncio
import base64
import contextlib
import http.client
import inspect
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.parse
import uuid

import jwt
import websockets

from processes import (Process, Redis, children_of, end_everything, is_alive, make_directory,
                       remove_directory, reserve_port, running)
from waiting import TIMEOUT, Failure, Stopwatch, Watch, deadline, eventually, eventually_async

BELFRYD = os.environ.get("BELFRYD", "./belfryd")
BELFRYCTL = os.environ.get("BELFRYCTL", "./belfryctl")
# Under memcheck (tests/e2e/valgrind) BELFRYD is a script; this is the program, to be copied,
# changed and run by these words. What it executes itself is watched, too.
PROGRAM = os.environ.get("BELFRY_TEST_PROGRAM", BELFRYD)
WRAPPER = os.environ.get("BELFRY_TEST_WRAPPER", "").split()
SECRET = "an end-to-end secret that is long enough for HS256"
SANITIZER = re.compile(
    r"(AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|ThreadSanitizer|runtime error:)")


def is_sanitized():
    """The server keeps what was freed, and more: its memory tells nothing."""
    if WRAPPER:
        return True
    with open(BELFRYD, "rb") as f:
        return b"__asan_init" in f.read()


def utc(offset_s=0.0):
    """ISO 8601 with microseconds and Z, now or so many seconds from now."""
    now = time.time() + offset_s
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%06dZ" % (now % 1 * 1e6)


def unique(prefix="u"):
    return "%s-%s" % (prefix, uuid.uuid4().hex[:12])


# ---- tokens -------------------------------------------------------------------------------------


def token(user="alice", admin=False, ttl=600, secret=SECRET, algorithm="HS256", headers=None,
          **claims):
    """claims are added last; a claim of None is left out."""
    body = {"sub": user, "iat": int(time.time()), "exp": int(time.time() + ttl)}
    if admin:
        body["role"] = "admin"
    body.update(claims)
    body = {name: value for name, value in body.items() if value is not None}
    # PyJWT 2.10 wants sub to be a string; that is a rule of its own, and ours to test without it.
    if isinstance(body.get("sub", ""), str):
        return jwt.encode(body, secret, algorithm=algorithm, headers=headers)
    return sign_by_hand(body, secret)


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign_by_hand(claims, secret=SECRET, header=None):
    """A token as no library would make it: any header, any claims, HMAC-SHA256."""
    import hashlib
    import hmac
    signed = part(header or {"alg": "HS256", "typ": "JWT"}) + "." + part(claims)
    key = secret if isinstance(secret, bytes) else secret.encode()
    return signed + "." + part(hmac.new(key, signed.encode(), hashlib.sha256).digest())


# ---- producers: a backend that knows nothing of Belfry ------------------------------------------


def message(kind="NOTIFICATION", user=None, payload=None, id=None, at=0.0, **more):
    body = {"id": id or str(uuid.uuid4()), "type": kind, "timestamp": utc(at)}
    if user is not None:
        body["user_id"] = user
    body["payload"] = {} if payload is None else payload
    body.update(more)
    return body


def text_of(body):
    return body if isinstance(body, (str, bytes)) else json.dumps(body)


def store(redis, user, *bodies, size=100, ttl=604800):
    """What plain producers do first; the commands are separate on purpose."""
    key = "notifications:%s" % user
    for body in bodies:
        redis.client.lpush(key, text_of(body))
        redis.client.ltrim(key, 0, size - 1)
        redis.client.expire(key, ttl)


def publish(redis, user, body):
    """What they do second. Returns how many subscribers heard it."""
    channel = "ws:user:%s" % user
    if isinstance(body, dict):
        body = dict(body, channel=channel)
    return redis.client.publish(channel, text_of(body))


def produce(redis, user, *bodies):
    for body in bodies:
        store(redis, user, body)
        publish(redis, user, body)


def broadcast(redis, body):
    if isinstance(body, dict):
        body = dict(body, channel="ws:broadcast")
    return redis.client.publish("ws:broadcast", text_of(body))


# ---- the server ---------------------------------------------------------------------------------


class Belfry(Process):
    """The real belfryd with a configuration file of its own.

    Options are given with '_' for '-'; a list repeats the option, None leaves a default out.
    """

    def __init__(self, redis=None, start=True, secret=SECRET, program=None, **options):
        super().__init__("belfryd")
        self.program = [*WRAPPER, program] if program else [BELFRYD]
        self.variables = {}  # of the environment
        self.successors = []  # pids of the masters that upgrades brought
        self.directory = make_directory()
        self.config = os.path.join(self.directory, "belfry.conf")
        self.control = os.path.join(self.directory, "control.sock")
        self.secret_file = os.path.join(self.directory, "secret")
        with open(self.secret_file, "w", encoding="utf-8") as f:
            f.write(secret + "\n")
        os.chmod(self.secret_file, 0o600)
        self.redis = redis
        self.options = {"listen": "127.0.0.1:0", "workers": "2", "control_socket": self.control,
                        "jwt_secret_file": self.secret_file, "log_level": "debug",
                        "redis_probe_interval": "1s"}
        if redis is not None:
            self.options["redis_url"] = redis.url
        self.options.update(options)
        self.addresses = []
        self.metrics_address = None
        self.generation = None
        self.write_config()
        if start:
            self.start()

    def write_config(self, **changes):
        self.options.update(changes)
        with open(self.config, "w", encoding="utf-8") as f:
            for name, value in self.options.items():
                for one in value if isinstance(value, (list, tuple)) else [value]:
                    if one is not None:
                        f.write("%s = %s\n" % (name.replace("_", "-"), one))

    def environment(self):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("BELFRY_")}
        environment.update(self.variables)
        return environment

    def start(self, *arguments, wait=True):
        self.spawn([*self.program, "--config", self.config, *arguments], env=self.environment())
        if wait:
            self.wait_ready()
        return self

    # -- the master of the moment: after an upgrade it is no child of ours

    @property
    def pid(self):
        return self.successors[-1] if self.successors else self.child.pid

    def is_running(self):
        if self.successors:
            return is_alive(self.successors[-1])
        return super().is_running()

    def wait(self, seconds=None):
        """Exit code of the first master; who came after it is waited for, too."""
        code = super().wait(seconds)
        for pid in self.successors:
            eventually(lambda: not is_alive(pid), "pid %d ends" % pid, seconds)
        return code

    def upgrade(self, seconds=None):
        """USR2 to the master, and waits until the new one is; its status."""
        self.signal(signal.SIGUSR2)
        return self.wait_successor(seconds)

    def wait_successor(self, seconds=None):
        before = self.pid
        status = eventually(
            lambda: (s := self.status()) and s["pid"] != before and s["state"] == "running" and s,
            "a new master", seconds)
        self.successors.append(status["pid"])
        return status

    def wait_ready(self, seconds=None):
        """Every worker is ready, and a client is answered."""
        status = self.wait_status(
            lambda s: s["state"] == "running" and s["workers"] and all(
                w["state"] == "ready" for w in s["workers"]), "all workers ready", seconds)
        self.addresses = status["listen"]
        self.metrics_address = status["metrics_listen"]
        self.generation = status["generation"]
        if not self.is_tls():
            assert self.http("GET", "/ws/health?live").status == 200
        return status

    def wait_healthy(self, seconds=None):
        return eventually(lambda: self.health().status == 200 and self.health().json,
                          "healthy", seconds)

    def is_tls(self):
        return bool(self.options.get("tls_certificate"))

    def wait_status(self, check, what, seconds=None):
        def look():
            if not self.is_running():
                self.reader.join(2)
                raise Failure("belfryd ended with %d:\n%s" % (self.child.returncode,
                                                              self.log_text()))
            status = self.status()
            return status if status and check(status) else None
        return eventually(look, what, seconds)

    def ask(self, request, seconds=None):
        """One request to the control socket; None while nobody listens there."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(TIMEOUT if seconds is None else seconds)
            try:
                s.connect(self.control)
                s.sendall(request.encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    got = s.recv(65536)
                    if not got:
                        return None
                    answer += got
            except (FileNotFoundError, ConnectionError):
                return None
        return json.loads(answer)

    def status(self):
        return self.ask("status")

    def worker_pids(self):
        return sorted(w["pid"] for w in self.status()["workers"] if w["state"] == "ready")

    def wait_replaced(self, pids, seconds=None):
        """As many workers as there should be are ready, and those pids are not among them; the
        status. Until the master has heard of an end, status says "ready" of who is dead."""
        def is_replaced(status):
            ready = {w["pid"] for w in status["workers"]
                     if w["state"] == "ready" and w["generation"] == status["generation"]}
            return len(ready) == status["worker_count"] and not ready & set(pids)
        return self.wait_status(is_replaced, "workers in place of %s" % list(pids), seconds)

    def kill_worker(self, pid=None, number=signal.SIGKILL, seconds=None):
        """Ends a worker, one of them where none is named, and waits for the one in its place; the
        status."""
        pid = self.worker_pids()[0] if pid is None else pid
        os.kill(pid, number)
        return self.wait_replaced([pid], seconds)

    # -- addresses

    def address(self, index=0):
        """(family, socket address) of a listener."""
        return parse_address(self.addresses[index])

    @property
    def port(self):
        return self.address()[1][1]

    def connect(self, index=0, seconds=None):
        """A plain socket to a listener."""
        return connect(self.address(index), seconds)

    # -- HTTP

    def http(self, method, path, body=None, headers=None, token=None, seconds=None):
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = "Bearer " + token
        if isinstance(body, dict):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        return ask_once(self.address(), method, path, body, headers, seconds)

    def health(self):
        return self.http("GET", "/ws/health")

    def stats(self, user="root"):
        answer = self.http("GET", "/ws/stats", token=token(user, admin=True))
        assert answer.status == 200, answer.body
        return answer.json

    def metrics(self, path="/metrics"):
        return ask_once(parse_address(self.metrics_address), "GET", path)

    # -- the end

    def stop(self, number=signal.SIGTERM, seconds=None):
        """Ends it as asked; it must have nothing to complain of."""
        if self.is_running():
            self.signal(number)
        code = self.wait(seconds)
        self.check_log()
        assert code == 0, "belfryd ended with %d" % code
        return code

    def signal(self, number):
        os.kill(self.pid, number)

    def check_log(self):
        found = SANITIZER.search(self.log_text())
        if found:
            raise Failure("%s in the server's output:\n%s" % (found.group(0), self.log_text()))

    def end(self):
        for pid in self.successors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.successors = []
        super().end()
        remove_directory(self.directory)


def end_all(made):
    """Ends these servers, which must stop cleanly and have nothing to complain of."""
    problems = []
    for belfry in made:
        try:
            if belfry.is_running():
                belfry.stop()
            belfry.check_log()
        except AssertionError as e:
            problems.append(str(e))
        finally:
            belfry.end()
    assert not problems, "\n".join(problems)


def parse_address(text):
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:]
    host, port = text.rsplit(":", 1)
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def connect(address, seconds=None):
    family, where = address
    s = socket.socket(family)
    s.settimeout(TIMEOUT if seconds is None else seconds)
    s.connect(where)
    return s


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


def ask_http(connection, method, path, body=None, headers=None):
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def ask_once(address, method, path, body=None, headers=None, seconds=None):
    """One request over a connection of its own; the socket may be of any family."""
    connection = http.client.HTTPConnection("localhost")
    with contextlib.closing(connection):
        connection.sock = connect(address, seconds)
        return ask_http(connection, method, path, body, headers)


def raw_http(sock, request):
    """Sends bytes, reads one whole answer. The socket stays open."""
    sock.sendall(request)
    return read_answer(sock)


def read_answer(sock, with_body=True):
    response = http.client.HTTPResponse(sock)
    response.begin()
    return Answer(response.status, response.headers, response.read() if with_body else b"")


def read_to_end(sock):
    """What comes until the peer closes; a reset is an end, too."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            piece = sock.recv(65536)
            if not piece:
                break
            got += piece
    return got


ERROR_FIELDS = {"error", "message", "error_code", "status_code", "timestamp", "path", "request_id"}


def assert_error(answer, status, code=None):
    """The one form of error bodies (contract: HTTP endpoints)."""
    assert answer.status == status, (answer.status, answer.body)
    body = answer.json
    assert ERROR_FIELDS <= set(body), body
    assert body["error"] is True
    assert body["status_code"] == status
    assert isinstance(body["message"], str) and body["message"]
    if code:
        assert body["error_code"] == code, body
    assert answer.headers["X-Request-ID"] == body["request_id"]
    assert answer.headers["Content-Type"].startswith("application/json")
    return body


# ---- clients ------------------------------------------------------------------------------------

_connect_arguments = inspect.signature(websockets.connect.__init__
                                       if inspect.isclass(websockets.connect)
                                       else websockets.connect).parameters
_headers_argument = ("additional_headers" if "additional_headers" in _connect_arguments
                     else "extra_headers")


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status, headers):
        super().__init__("HTTP %d" % status)
        self.status = status
        self.headers = headers


class Client:
    """One device, on python3-websockets."""

    def __init__(self, ws):
        self.ws = ws
        self.sync = None
        self.seen = []  # every message that came, in order

    @classmethod
    async def open(cls, server, user=None, token_text=None, query=None, headers=None, index=0,
                   path="/ws", subprotocols=None, origin=None, tls=None, no_token=False,
                   **arguments):
        """Connects; a token for user goes into the query, unless another way is taken."""
        query = dict(query or {})
        if token_text is None and user is not None and not no_token:
            token_text = token(user)
        if token_text is not None:
            query["token"] = token_text
        uri = "%s://%s%s" % ("wss" if tls else "ws", uri_host(server.addresses[index]), path)
        if query:
            uri += "?" + urllib.parse.urlencode(query)
        arguments.setdefault("open_timeout", TIMEOUT)
        arguments.setdefault("close_timeout", TIMEOUT)
        arguments.setdefault("ping_interval", None)
        arguments.setdefault("max_size", None)
        if "proxy" in _connect_arguments:
            arguments["proxy"] = None
        if headers:
            arguments[_headers_argument] = headers
        if tls:
            arguments["ssl"] = tls
        family, where = server.address(index)
        connect = websockets.connect
        if family == socket.AF_UNIX:
            connect, arguments["path"] = websockets.unix_connect, where
        try:
            if family == socket.AF_UNIX:
                ws = await connect(uri=uri, subprotocols=subprotocols, origin=origin, **arguments)
            else:
                ws = await connect(uri, subprotocols=subprotocols, origin=origin, **arguments)
        except websockets.exceptions.InvalidHandshake as e:
            response = getattr(e, "response", None)
            if response is not None:
                raise Refused(response.status_code, response.headers) from None
            if hasattr(e, "status_code"):
                raise Refused(e.status_code, e.headers) from None
            raise
        return cls(ws)

    @classmethod
    async def attach(cls, server, user=None, **arguments):
        """Connects and waits until FULL_SYNC came."""
        client = await cls.open(server, user, **arguments)
        client.sync = await client.expect("FULL_SYNC")
        return client

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def raw(self, seconds=None):
        """The next message as it came."""
        wait = TIMEOUT if seconds is None else seconds
        try:
            return await asyncio.wait_for(self.ws.recv(), wait)
        except asyncio.TimeoutError:
            raise Failure("no message within %.1f s; before it: %s" % (
                wait, [m.get("type") for m in self.seen][-10:])) from None

    async def next(self, seconds=None):
        body = json.loads(await self.raw(seconds))
        self.seen.append(body)
        return body

    async def expect(self, kind, seconds=None):
        """The next message, which must be of this type in any case."""
        body = await self.next(seconds)
        assert body["type"].upper() == kind.upper(), "%s instead of %s: %s" % (
            body["type"], kind, json.dumps(body)[:600])
        return body

    async def take(self, count, seconds=None):
        return [await self.next(seconds) for _ in range(count)]

    async def until(self, check, seconds=None):
        """All messages up to the first for which check is true, that one included."""
        left = deadline(seconds)
        got = []
        while True:
            got.append(await self.next(max(0.05, left())))
            if check(got[-1]):
                return got

    async def nothing(self, seconds=0.0):
        """Nothing waits: what a ping brings back is its pong, which follows what was queued."""
        if seconds:
            await asyncio.sleep(seconds)
        mark = unique("ping")
        await self.send({"type": "ping", "payload": {"client_time": mark}})
        body = await self.next()
        assert body["type"] == "pong" and body["payload"]["client_time"] == mark, body

    async def send(self, body):
        await self.ws.send(body if isinstance(body, (str, bytes)) else json.dumps(body))

    async def command(self, kind, payload=None, seconds=None):
        """Sends a command and returns the next message."""
        body = {"type": kind}
        if payload is not None:
            body["payload"] = payload
        await self.send(body)
        return await self.next(seconds)

    async def closed(self, seconds=None):
        """(code, reason) of the close that comes; code 1006 when TCP ended without one."""
        left = deadline(seconds)
        try:
            while True:
                body = await asyncio.wait_for(self.ws.recv(), max(0.01, left()))
                self.seen.append(json.loads(body))
        except asyncio.TimeoutError:
            raise Failure("was not closed") from None
        except websockets.exceptions.ConnectionClosed as e:
            return (e.rcvd.code, e.rcvd.reason) if e.rcvd else (1006, "")

    async def close(self):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.ws.close(), TIMEOUT)

    async def vanish(self):
        """The network is gone: TCP ends without a close frame."""
        self.ws.transport.abort()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.ws.wait_closed(), TIMEOUT)


def connection(client):
    """The id of an attached client's connection."""
    return client.sync["sync"]["connection_id"]


def worker_of(client):
    return int(connection(client).split("-")[1], 16)


async def on_worker(server, user, slot, **arguments):
    """A device on that worker: the kernel decides, so try until it is one."""
    for _ in range(200):
        client = await Client.attach(server, user, **arguments)
        if worker_of(client) == slot:
            return client
        await client.close()
    raise Failure("no connection came to worker %d" % slot)


class Everyone:
    """Waits until each of several has arrived."""

    def __init__(self, names):
        self.missing = set(names)
        self.complete = asyncio.Event()

    def arrived(self, name):
        self.missing.discard(name)
        if not self.missing:
            self.complete.set()

    async def wait(self):
        await asyncio.wait_for(self.complete.wait(), TIMEOUT)


async def follow(server, user, count, ready, on_message):
    """A device that keeps coming back with its last id until it has so many messages.

    ready is called when it has attached first, on_message after each message.
    """
    got = []
    left = deadline(4 * TIMEOUT)
    while len(got) < count:
        if left() <= 0:
            raise Failure("only %d messages of %d" % (len(got), count))
        try:
            c = await Client.attach(server, user,
                                    query={"last_id": got[-1]["id"]} if got else None)
        except (OSError, Refused, asyncio.TimeoutError, websockets.exceptions.WebSocketException):
            await asyncio.sleep(0.02)
            continue
        assert c.sync["sync"]["recovered"] is True
        ready()
        try:
            while len(got) < count:
                got.append(await c.next())
                on_message()
        except websockets.exceptions.ConnectionClosed:
            continue
        finally:
            await c.close()
    return got


async def closed_over(clients, expected, seconds, begin):
    """begin makes the server close them over so many seconds: from early on, to the end, half of
    them by the middle."""
    with Stopwatch() as watch:
        async def end(c):
            assert await c.closed() == expected
            return watch.seconds()

        ends = [asyncio.ensure_future(end(c)) for c in clients]
        await asyncio.to_thread(begin)
        late = watch.seconds()
        times = sorted(await asyncio.gather(*ends))
        late += watch.late_s
    assert times[0] < seconds / 2 + late and seconds / 2 < times[-1] < 1.75 * seconds + late, times
    assert 0.25 * seconds < times[len(times) // 2] < 0.85 * seconds + late, times


def uri_host(address):
    return "localhost" if address.startswith("unix:") else address


def ids(messages):
    return [m.get("id") for m in messages]


def kinds(messages):
    return [m["type"] for m in messages]


class RawClient:
    """A WebSocket client that may break every rule. RFC 6455, section 5."""

    KEY = "dGhlIHNhbXBsZSBub25jZQ=="
    ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    def __init__(self, server, query="", path="/ws", headers=(), index=0, receive_buffer=None,
                 after=b""):
        """after: bytes sent in the same packet as the request."""
        family, where = server.address(index)
        self.sock = socket.socket(family)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(where)
        self.sock.sendall(self.request(path, query, headers) + after)
        self.buffer = b""
        head = self._head()
        self.status = int(head.split(b" ", 2)[1])
        self.head = head.decode("latin-1")

    @classmethod
    def request(cls, path="/ws", query="", headers=(), version=13, key=KEY):
        lines = ["GET %s%s HTTP/1.1" % (path, "?" + query if query else ""), "Host: localhost",
                 "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: %s" % version]
        if key is not None:
            lines.append("Sec-WebSocket-Key: " + key)
        return ("\r\n".join(lines + list(headers)) + "\r\n\r\n").encode()

    @classmethod
    def frame(cls, opcode, payload=b"", fin=True, rsv=0, masked=True, claim=None):
        """claim: the length the header tells, instead of the true one."""
        payload = payload.encode() if isinstance(payload, str) else payload
        length = len(payload) if claim is None else claim
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if masked else 0
        if length < 126:
            head += bytes([bit | length])
        elif length < 65536:
            head += bytes([bit | 126]) + struct.pack(">H", length)
        else:
            head += bytes([bit | 127]) + struct.pack(">Q", length)
        if not masked:
            return head + payload
        mask = os.urandom(4)
        whole = (mask * (len(payload) // 4 + 1))[:len(payload)]
        masked_payload = (int.from_bytes(payload, "little")
                          ^ int.from_bytes(whole, "little")).to_bytes(len(payload), "little")
        return head + mask + masked_payload

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _head(self):
        while b"\r\n\r\n" not in self.buffer:
            piece = self.sock.recv(65536)
            if not piece:
                raise Failure("connection ended within the response's head: %r" % self.buffer)
            self.buffer += piece
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head

    def _need(self, count):
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            piece = self.sock.recv(1 << 18)
            if not piece:
                raise EOFError
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        got, self.buffer = whole[:count], whole[count:]
        return got

    def send(self, opcode, payload=b"", **how):
        self.sock.sendall(self.frame(opcode, payload, **how))

    def receive_frame(self):
        """(first byte, payload) of the next frame; raises EOFError at the end of TCP."""
        try:
            first, second = self._need(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", self._need(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._need(8))[0]
            assert not second & 0x80, "a server's frame is masked"
            return first, self._need(length)
        except ConnectionResetError:
            raise EOFError from None

    def receive(self):
        """(opcode, payload) of the next frame, which must be a whole plain message."""
        first, payload = self.receive_frame()
        assert first & 0x80 and not first & 0x70, "fragmented, or a reserved bit: %x" % first
        return first & 0x0F, payload

    def receive_json(self):
        while True:
            opcode, payload = self.receive()
            if opcode == 1:
                return json.loads(payload)
            assert opcode != 8, "closed: %r" % (payload,)

    def close_code(self):
        """(code, reason) of the close frame that comes; (1006, "") without one."""
        try:
            while True:
                opcode, payload = self.receive()
                if opcode == 8:
                    return (struct.unpack(">H", payload[:2])[0] if payload else 1005,
                            payload[2:].decode())
        except EOFError:
            return 1006, ""

    def is_ended(self):
        """Waits for the end of TCP."""
        try:
            while True:
                self.receive()
        except EOFError:
            return True


def make_certificate(directory):
    """(certificate, key): paths of a pair that signs itself."""
    certificate, key = os.path.join(directory, "c.pem"), os.path.join(directory, "k.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True)
    return certificate, key


def make_key(directory, name, *arguments):
    """(private key, path of the public one): a pair for tokens."""
    private = os.path.join(directory, name + ".pem")
    public = os.path.join(directory, name + ".pub")
    subprocess.run(["openssl", "genpkey", "-out", private, *arguments], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    with open(private, encoding="ascii") as f:
        return f.read(), public


def trusting(certificate):
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    return context
