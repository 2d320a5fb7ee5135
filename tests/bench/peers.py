"""The servers that are measured: how each is started, and how belfry-bench speaks to it."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent

SERVING, STANDING_BACK = 2, 1  # priorities of a run at real time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def may_be_realtime():
    """Root may, and whoever has CAP_SYS_NICE or a limit on real-time priorities that allows it."""
    try:
        return subprocess.run(["chrt", "--rr", str(SERVING), "true"], stderr=subprocess.DEVNULL,
                              check=False).returncode == 0
    except OSError:
        return False


class Place:
    """Where everything of one run lives: directory, processors, Redis, secret."""

    def __init__(self, directory, server_cpu, client_cpu):
        self.directory = pathlib.Path(directory)
        self.server_cpu = server_cpu
        self.client_cpu = client_cpu
        self.is_realtime = False
        self.redis = None
        self.redis_port = free_port()
        self.redis_socket = self.directory / "redis.sock"
        self.secret = self.directory / "secret"
        self.secret.write_text(os.urandom(32).hex())
        self.secret.chmod(0o600)
        self.directory.chmod(0o755)  # a worker that is not root finds the socket

    def scheduled(self, is_meek):
        """How a process gets its processor. is_meek: only while no other of the run wants it. At
        real time a process has it the moment that it wakes, whatever ordinary process of the
        machine is in the middle of its slice; otherwise it may wait for the end of that slice."""
        if self.is_realtime:
            return ["chrt", "--rr", str(STANDING_BACK if is_meek else SERVING)]
        return ["chrt", "--idle", "0"] if is_meek else []

    def pinned(self, cpu, command, is_meek=False):
        command = [*self.scheduled(is_meek), *command]
        return ["taskset", "-c", str(cpu), *command] if cpu is not None else command

    def start_redis(self):
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1",
                   "--unixsocket", str(self.redis_socket), "--unixsocketperm", "777",
                   "--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        self.redis = subprocess.Popen(self.pinned(self.client_cpu, command),
                                      stdout=subprocess.DEVNULL)
        wait_for(self.redis, self.redis_port)

    def stop_redis(self):
        if self.redis:
            self.redis.terminate()
            self.redis.wait()
            self.redis = None


def wait_for(process, port, limit_s=20):
    """The port accepts, or the process is gone."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args} does not listen")


class Peer:
    """A server; the scenario it is started for may change how."""

    name = ""
    about = ""
    resumes = False  # its clients come back with last_id, and nothing may be missing
    scenarios = ("one", "window", "unicast", "rate", "storm")

    def __init__(self, place):
        self.place = place
        self.process = None
        self.port = 0

    def missing(self):
        """Why it cannot be measured here; None when it can."""
        return None

    def command(self, scenario):
        raise NotImplementedError

    def bench_options(self, scenario):
        """(before the mode, after the mode)"""
        return [], [f"--url=ws://127.0.0.1:{self.port}/ws?user={{user_id}}"]

    def environment(self):
        return None

    def start(self, scenario):
        self.port = free_port()
        log = open(self.place.directory / f"{self.name.replace(' ', '-')}.log", "ab")
        with log:
            self.process = subprocess.Popen(
                self.place.pinned(self.place.server_cpu, self.command(scenario)), stdout=log,
                stderr=log, env=self.environment())
        wait_for(self.process, self.port)

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class Floor(Peer):
    name = "floor"
    about = "accept, handshake, epoll, one send() of a prebuilt frame for a message and connection"
    workers = 1

    def command(self, scenario):
        users = ["--users"] if scenario in ("unicast", "rate", "storm", "idle") else []
        return [os.environ["BENCH_FLOOR"], str(self.port), str(self.place.redis_socket),
                f"--workers={self.workers}", *users]


class JoiningFloor(Floor):
    name = "floor, joining"
    about = "the same; what one read from Redis brought leaves in one send(), up to 64 messages"
    scenarios = ("window",)

    def command(self, scenario):
        return super().command(scenario) + ["--join=64"]


class Belfry(Peer):
    name = "Belfry"
    about = "HS256 token, SUBSCRIBE for each user, list read, FULL_SYNC; one worker"
    resumes = True
    workers = 1

    def command(self, scenario):
        config = self.place.directory / "belfry.conf"
        config.write_text(f"listen = 127.0.0.1:{self.port}\n"
                          f"workers = {self.workers}\n"
                          f"redis-url = unix://{self.place.redis_socket}\n"
                          f"jwt-secret-file = {self.place.secret}\n"
                          f"control-socket = {self.place.directory}/control.sock\n"
                          f"log-level = warning\n")
        return [os.environ["BELFRYD"], f"--config={config}"]

    def bench_options(self, scenario):
        return [], [f"--url=ws://127.0.0.1:{self.port}"]


class Nchan(Peer):
    name = "Nchan"
    about = "nginx with nchan, messages in memory, published by HTTP; no token"
    redis = ""
    workers = 1
    channels = "nchan_channel_id $arg_id;"

    def missing(self):
        module = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
        if shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") and module.exists():
            return None
        return "nginx and libnginx-mod-nchan are not installed"

    def command(self, scenario):
        config = self.place.directory / "nginx.conf"
        temp = "".join(f"  {kind}_temp_path {self.place.directory}/nginx-{kind};\n"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config.write_text(f"""load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes {self.workers};
worker_rlimit_nofile 20000;
pid {self.place.directory}/nginx.pid;
error_log {self.place.directory}/nginx.log error;
events {{ worker_connections 19900; }}
http {{
  access_log off;
  nchan_shared_memory_size 512M;
{temp}  server {{
    listen 127.0.0.1:{self.port} backlog=65535;
    {self.redis.format(port=self.place.redis_port)}
    keepalive_requests 1000000000;
    location = /sub {{ nchan_subscriber websocket; {self.channels}
                       nchan_subscriber_first_message newest; }}
    location = /pub {{ nchan_publisher; nchan_channel_id $arg_id;
                       nchan_message_buffer_length 100; nchan_message_timeout 120s; }}
  }}
}}
""")
        return ["/usr/sbin/nginx", "-c", str(config)]

    def bench_options(self, scenario):
        who = "all" if scenario in ("one", "window") else "{user_id}"
        return [], [f"--url=ws://127.0.0.1:{self.port}/sub?id={who}", "--ready=open",
                    f"--publish-url=http://127.0.0.1:{self.port}/pub?id={{user_id}}"]


class NchanRedis(Nchan):
    name = "Nchan, Redis"
    about = "the same with its messages in Redis"
    redis = "nchan_redis_url redis://127.0.0.1:{port}; nchan_use_redis on;"


class NodeWs(Peer):
    name = "Node ws"
    about = "ws, ioredis, jsonwebtoken: token, SUBSCRIBE for each user"
    packages = ("ws", "ioredis", "jsonwebtoken")

    def __init__(self, place):
        super().__init__(place)
        self.modules = place.directory / "npm"

    def missing(self):
        if not shutil.which("node") or not shutil.which("npm"):
            return "node and npm are not installed"
        self.modules.mkdir(exist_ok=True)
        fetched = subprocess.run(["npm", "install", "--no-audit", "--no-fund", *self.packages],
                                 cwd=self.modules, capture_output=True, check=False)
        if fetched.returncode != 0:
            return "npm could not fetch " + ", ".join(self.packages)
        shutil.copy(HERE / "peer_ws.js", self.modules)
        return None

    def command(self, scenario):
        return ["node", str(self.modules / "peer_ws.js"), str(self.port),
                str(self.place.redis_socket), str(self.place.secret)]

    def bench_options(self, scenario):
        return [], [f"--url=ws://127.0.0.1:{self.port}"]


class Centrifugo(Peer):
    name = "Centrifugo"
    about = "Redis engine, HS256 token, one subscription; no history"

    def missing(self):
        self.program = os.environ.get("CENTRIFUGO") or shutil.which("centrifugo")
        return None if self.program else "no centrifugo in PATH or named by CENTRIFUGO"

    def command(self, scenario):
        config = self.place.directory / "centrifugo.json"
        config.write_text(json.dumps({
            "http_server": {"address": "127.0.0.1", "port": self.port},
            "client": {"token": {"hmac_secret_key": self.place.secret.read_text()},
                       "ping_pong": {"ping_interval": "600s", "pong_timeout": "10s"}},
            "channel": {"without_namespace": {"allow_subscribe_for_client": True}},
            "engine": {"type": "redis",
                       "redis": {"address": f"redis://127.0.0.1:{self.place.redis_port}"}},
            "log": {"level": "error"},
        }))
        return [self.program, "-c", str(config)]

    def environment(self):
        return {**os.environ, "GOMAXPROCS": "1"}

    def bench_options(self, scenario):
        channel = "everybody" if scenario in ("one", "window") else "{user_id}"
        hello = ('{"id":1,"connect":{"token":"{token}"}}\n'
                 '{"id":2,"subscribe":{"channel":"' + channel + '"}}')
        return (["--broadcast-channel=centrifugo.client.everybody",
                 "--user-channel=centrifugo.client.{user_id}"],
                [f"--url=ws://127.0.0.1:{self.port}/connection/websocket", "--centrifugo",
                 f"--hello={hello}"])


ALL = (Floor, JoiningFloor, Belfry, Nchan, NchanRedis, NodeWs, Centrifugo)
