"""What the tests start: processes whose output is followed, a private redis-server.

Every process is ended by its own pid, at the latest when the tests end.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import redis as redis_client

from waiting import TIMEOUT, Failure, deadline, eventually

_everything = []  # what has to be ended when the tests end, whatever happens


class Process:
    """A child with its stderr collected; ended by pid, at the latest when the tests end."""

    def __init__(self, name):
        self.name = name
        self.child = None
        self.lines = []
        self.news = threading.Condition()
        self.reader = None
        _everything.append(self)

    def spawn(self, argv, env=None, pipe="stderr", **how):
        self.child = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, **how,
            stdout=subprocess.PIPE if pipe == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if pipe == "stderr" else subprocess.STDOUT)
        self.follow(getattr(self.child, pipe))

    def follow(self, stream):
        self.reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.reader.start()

    def _read(self, stream):
        with stream:
            for raw in stream:
                with self.news:
                    self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                    self.news.notify_all()

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, seconds=None):
        """Exit code; negative for a signal."""
        try:
            code = self.child.wait(TIMEOUT if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            raise Failure("%s did not end in time" % self.name) from None
        self.reader.join(2)
        return code

    def mark(self):
        """A place in the log, for wait_log(after=...)."""
        with self.news:
            return len(self.lines)

    def wait_log(self, pattern, seconds=None, after=0):
        """The first log line with pattern in it; the match object's line."""
        left = deadline(seconds)
        with self.news:
            at = after
            while True:
                while at < len(self.lines):
                    if re.search(pattern, self.lines[at]):
                        return self.lines[at]
                    at += 1
                if left() <= 0 or (not self.is_running() and not self.reader.is_alive()):
                    raise Failure("%s: no log line with %r" % (self.name, pattern))
                self.news.wait(min(0.1, max(0.0, left())))

    def log_text(self, after=0):
        with self.news:
            return "\n".join(self.lines[after:])

    def end(self):
        """Without complaint; used by the clean-up."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGCONT)
                self.child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(TIMEOUT)
        if self in _everything:
            _everything.remove(self)


def end_everything():
    for process in list(_everything):
        process.end()


def running():
    return list(_everything)


def is_alive(pid):
    """A process that has not ended; one that nobody has waited for yet has."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
        return [int(one) for one in f.read().split()]


def make_directory():
    """Short (a unix socket's path has 107 bytes), and open to the user the workers become."""
    path = tempfile.mkdtemp(prefix="belfry-", dir="/tmp")
    os.chmod(path, 0o755)
    atexit.register(remove_directory, path)
    return path


def remove_directory(path):
    shutil.rmtree(path, ignore_errors=True)


def reserve_port():
    """A socket that keeps a port of 127.0.0.1: nobody listens there, the kernel gives it to nobody
    who does not ask for it, and a server that wants it by number (with SO_REUSEADDR) has it."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    return s


class Redis(Process):
    """A private redis-server on a unix socket (and a TCP port when asked).

    prefix: what it is started by, instead of directly.
    """

    def __init__(self, tcp=False, appendonly=False, password=None, arguments=(), prefix=()):
        super().__init__("redis-server")
        self.directory = make_directory()
        self.path = os.path.join(self.directory, "redis.sock")
        self.reserved = reserve_port() if tcp else None
        self.port = self.reserved.getsockname()[1] if tcp else 0
        self.appendonly = appendonly
        self.password = password
        self.arguments = list(arguments)
        self.prefix = list(prefix)
        self._client = None
        self.start()

    def start(self):
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        argv = self.prefix + [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path,
            "--unixsocketperm", "777", "--dir", self.directory, "--save", "",
            "--appendonly", "yes" if self.appendonly else "no", "--appendfsync", "always",
            "--daemonize", "no"] + self.arguments
        if self.password:
            argv += ["--requirepass", self.password]
        self.spawn(argv, pipe="stdout")
        self._client = None
        eventually(self._answers, "redis-server answers", 60)  # it reads its append-only file

    def _answers(self):
        if not self.is_running():
            raise Failure("redis-server ended:\n" + self.log_text())
        try:
            return self.client.ping()
        except redis_client.RedisError:
            return False

    @property
    def client(self):
        if self._client is None:
            self._client = redis_client.Redis(unix_socket_path=self.path, password=self.password,
                                              socket_timeout=TIMEOUT)
        return self._client

    @property
    def url(self):
        if self.password:
            return "unix://:%s@%s" % (self.password, self.path)
        return "unix://" + self.path

    def kill(self):
        self.child.kill()
        self.wait()

    def restart(self):
        if self.is_running():
            self.kill()
        self.start()

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def end(self):
        super().end()
        if self.reserved:
            self.reserved.close()
        remove_directory(self.directory)
