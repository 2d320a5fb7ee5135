"""What clients notice of a reload and of an upgrade, under traffic.

belfry-bench holds the connections and publishes: stored messages, messages that are only published,
both one command after the other as a plain producer sends them, and a broadcast at a steady beat,
so that a connection that hears nothing shows. Meanwhile the server is told to reload (HUP) and to
replace its program (USR2). Then the same is done to Nchan with what it has: nginx -s reload.
"""

import argparse
import ctypes
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

import bench
import peers

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT_S = 60
ORDERS_MAX = 7  # two phases for each, two before: belfry-bench's 16
PHASE_S = 1.0  # at least: what an action does to messages may show a little later


def parse_arguments():
    parser = argparse.ArgumentParser(prog="make bench-reload", description=__doc__)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--order", default="HUP,USR2,HUP,USR2,HUP",
                        help="what is done; Nchan gets the HUPs")
    parser.add_argument("--rate", type=int, default=200, help="messages a second to users")
    parser.add_argument("--beat", type=int, default=4, help="broadcasts a second")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds before, between, after")
    parser.add_argument("--silence", type=float, default=1000, help="milliseconds, at most")
    parser.add_argument("--peers", help="names, comma-separated (all that are at hand)")
    parser.add_argument("--json", help="file for every figure")
    parser.add_argument("--results", help="file for the table and the machine (Markdown)")
    arguments = parser.parse_args()
    orders = arguments.order.split(",")
    if len(orders) > ORDERS_MAX or not {"HUP"} <= set(orders) <= {"HUP", "USR2"}:
        parser.error(f"--order: HUP and USR2, {ORDERS_MAX} at most, one HUP at least")
    return arguments


# ---- processes ----------------------------------------------------------------------------------


def stat_of(pid):
    """(parent, CPU seconds of itself and of the children it has waited for); None: it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return int(fields[1]), sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICKS


def family(without):
    """pid -> CPU seconds, of all descendants of this process but those that are not the server's"""
    stats = {}
    for entry in os.listdir("/proc"):
        stat = stat_of(entry) if entry.isdigit() else None
        if stat:
            stats[int(entry)] = stat
    ours, found = {os.getpid()}, {}
    while True:
        more = {pid for pid, (parent, _) in stats.items()
                if parent in ours and pid not in ours and pid not in without}
        if not more:
            return found
        ours |= more
        found.update({pid: stats[pid][1] for pid in more})


def adopt_orphans():
    """A master that leaves hands its successor to this process, not to init: so its CPU time and
    that of its workers is known whichever of them are still there."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_until(check, what, limit_s=LIMIT_S):
    until = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > until:
            raise RuntimeError(f"not in time: {what}")
        time.sleep(0.01)


def end_adopted(without):
    """Children of this process that it did not start itself."""
    left = [pid for pid in family(without) if stat_of(pid) and stat_of(pid)[0] == os.getpid()]
    for pid in left:
        os.kill(pid, signal.SIGTERM)
    for pid in left:
        try:
            wait_until(lambda pid=pid: os.waitpid(pid, os.WNOHANG)[0] == pid, "an end", 10)
        except RuntimeError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---- the servers --------------------------------------------------------------------------------


class Belfry(peers.Belfry):
    about = "plain TCP, handed over; HUP: new workers, USR2: new master and new workers"

    def __init__(self, place, arguments):
        super().__init__(place)
        self.workers = arguments.workers
        self.orders = arguments.order.split(",")
        self.pid_file = place.directory / "belfry.pid"

    def command(self, scenario):
        command = super().command(scenario)
        with open(self.place.directory / "belfry.conf", "a", encoding="ascii") as config:
            config.write(f"pid-file = {self.pid_file}\ndrain-time = 10s\n")
        return command

    def master(self):
        return int(self.pid_file.read_text())

    def status(self):
        """None while nobody answers."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            try:
                s.connect(str(self.place.directory / "control.sock"))
                s.sendall(b"status\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    got = s.recv(65536)
                    if not got:
                        return None
                    answer += got
            except OSError:
                return None
        return json.loads(answer)

    def is_settled(self, status, generation):
        return (status is not None and status["generation"] > generation
                and status["state"] == "running" and status["workers"]
                and all(w["state"] in ("ready", "empty") for w in status["workers"]))

    def spread(self):
        return sorted(w["connections"]["websockets"] for w in self.status()["workers"]
                      if w["state"] == "ready")

    def wait_serving(self):
        wait_until(lambda: self.is_settled(self.status(), 0), "workers are ready")

    def act(self, order):
        """Does it; returns when everything of the old generation has left."""
        before, old = self.status()["generation"], self.master()
        os.kill(old, getattr(signal, "SIG" + order))
        wait_until(lambda: self.is_settled(self.status(), before), order)
        if order == "USR2":
            wait_until(lambda: self.master() != old, "the pid file follows")
            if old == self.process.pid:
                self.process.wait(LIMIT_S)
            else:
                os.waitpid(old, 0)
        return {"spread": self.spread()}

    def stop(self):
        super().stop()
        end_adopted({self.place.redis.pid})


class Nchan(peers.Nchan):
    about = "nginx -s reload; clients come back at once, and do not say what they had"
    channels = "nchan_channel_id $arg_id all;"
    returns = ["--return=forget"]

    def __init__(self, place, arguments):
        super().__init__(place)
        self.workers = arguments.workers
        self.orders = ["HUP"] * sum(1 for order in arguments.order.split(",") if order == "HUP")

    def workers_now(self):
        return {int(pid) for pid in pathlib.Path(
            f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()}

    def wait_serving(self):
        pass

    def act(self, order):
        old = self.workers_now()
        os.kill(self.process.pid, signal.SIGHUP)  # what nginx -s reload does
        wait_until(lambda: not old & self.workers_now(), "old workers have left")
        return {}

    def bench_options(self, scenario):
        return [], [f"--url=ws://127.0.0.1:{self.port}/sub?id={{user_id}}", "--ready=open",
                    f"--publish-url=http://127.0.0.1:{self.port}/pub?id={{user_id}}",
                    "--limit=5", *self.returns]


class NchanResuming(Nchan):
    name = "Nchan, resuming"
    about = "they are told ids (ws+meta.nchan) and come back at once with the last"
    channels = Nchan.channels + " nchan_subscriber_last_message_id $arg_last_id;"
    returns = ["--return=resume", "--protocol=ws+meta.nchan"]


class NchanRedis(NchanResuming):
    name = "Nchan, Redis, resuming"
    about = "the same with its messages in Redis"
    redis = peers.NchanRedis.redis


class NchanSpread(Nchan):
    name = "Nchan, spread"
    about = "they come back within a second, as clients do that spare a server"
    returns = [*Nchan.returns, "--return-within=1000"]


class NchanRedisSpread(NchanRedis):
    name = "Nchan, Redis, resuming, spread"
    about = "they come back within a second with the last id; messages in Redis"
    returns = [*NchanRedis.returns, "--return-within=1000"]


ALL = (Belfry, Nchan, NchanSpread, NchanResuming, NchanRedis, NchanRedisSpread)


# ---- one run ------------------------------------------------------------------------------------


class Flow:
    """belfry-bench in flow mode."""

    def __init__(self, place, peer, arguments):
        before, after = peer.bench_options("flow")
        self.process = subprocess.Popen(
            [os.environ["BELFRY_BENCH"], f"--redis-url=unix://{place.redis_socket}",
             f"--jwt-secret-file={place.secret}", *before, "flow",
             f"--connections={arguments.connections}", f"--rate={arguments.rate}",
             f"--beat={arguments.beat}", "--json", f"--name={peer.name}", *after],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self.border()  # all are connected

    def border(self):
        line = self.process.stdout.readline()
        if not line.startswith("phase "):
            raise RuntimeError(f"belfry-bench has ended: {line}")

    def phase(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        self.border()

    def end(self):
        """What it counted."""
        self.process.stdin.close()
        line = self.process.stdout.read()
        self.process.wait(LIMIT_S)
        return json.loads(line)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Meter:
    """CPU time of the server's processes, those that have ended included."""

    def __init__(self, place, flow):
        self.without = {place.redis.pid, flow.process.pid}
        self.at = self.read()

    def read(self):
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = sum(family(self.without).values()) + ended.ru_utime + ended.ru_stime
        return time.monotonic(), cpu

    def lap(self):
        """(seconds, CPU seconds) since the last time."""
        before, self.at = self.at, self.read()
        return self.at[0] - before[0], self.at[1] - before[1]


def rest(flow, meter, seconds, name):
    """Traffic alone."""
    flow.phase(name)
    meter.lap()
    time.sleep(seconds)
    took, cpu = meter.lap()
    return {"lap_s": took, "cpu_s": cpu}


def disturb(flow, meter, peer, order, number):
    flow.phase(f"{order} {number}")
    meter.lap()
    began = time.monotonic()
    done = peer.act(order)
    done["took_s"] = time.monotonic() - began
    time.sleep(max(0.0, PHASE_S - done["took_s"]))
    took, cpu = meter.lap()
    return {"lap_s": took, "cpu_s": cpu, **done}


def acts(rows):
    """Those in which something was done to the server."""
    return [row for row in rows if "took_s" in row]


def go_through(flow, place, peer, arguments):
    """One row for each phase of the flow."""
    meter = Meter(place, flow)
    rows = [{}, rest(flow, meter, arguments.quiet, "before")]
    for number, order in enumerate(peer.orders):
        rows.append(disturb(flow, meter, peer, order, number + 1))
        rows.append(rest(flow, meter, arguments.quiet, f"after {number + 1}"))
    counted = flow.end()
    for row, phase in zip(rows, counted["phases"]):
        row.update(phase)
    usual = rows[1]["cpu_s"] / rows[1]["lap_s"]
    for row in acts(rows):
        row["cpu_more_s"] = row["cpu_s"] - usual * row["lap_s"]
    return {**counted, "phases": rows}


def run(place, peer, arguments):
    flow = None
    place.start_redis()
    try:
        peer.start("flow")
        peer.wait_serving()
        flow = Flow(place, peer, arguments)
        return go_through(flow, place, peer, arguments)
    finally:
        if flow:
            flow.kill()
        peer.stop()
        place.stop_redis()


# ---- what it came to ----------------------------------------------------------------------------


def phase_table(result):
    lines = ["| | took, s | CPU, s | p50, ms | p99, ms | max, ms | silence, ms | closed | spread |",
             "|---" * 9 + "|"]
    for row in result["phases"][1:]:
        is_act = "took_s" in row
        cpu = f"{row['cpu_s']:.2f}" + (f" ({row['cpu_more_s']:+.2f})" if is_act else "")
        took = row["took_s"] if is_act else row["seconds"]
        spread = ", ".join(map(str, row.get("spread", []))) or ""
        lines.append(f"| {row['name']} | {took:.2f} | {cpu} | {row['latency_p50_ms']:.2f} "
                     f"| {row['latency_p99_ms']:.1f} | {row['latency_max_ms']:.0f} "
                     f"| {row['silence_ms']:.0f} | {row['closed']} | {spread} |")
    return lines


def worst(rows, key):
    return max(row[key] for row in rows)


def between(rows, key):
    return f"{min(row[key] for row in rows):.2f}–{worst(rows, key):.2f}"


def latency(rows):
    return " / ".join(f"{worst(rows, f'latency_{part}_ms'):,.0f}" for part in
                      ("p50", "p99", "max"))


def summary_table(results):
    lines = ["| | closed | lost | repeated | out of order | silence, ms | away, ms "
             "| latency before, ms | during, ms | took, s | CPU more, s |", "|---" * 11 + "|"]
    for peer, result in results:
        rows = result["phases"]
        lines.append(f"| {peer.name} | "
                     + " | ".join(f"{result[key]:,}" for key in
                                  ("closed", "lost", "repeated", "disordered"))
                     + f" | {worst(rows[2:], 'silence_ms'):,.0f} "
                     f"| {worst(rows[2:], 'away_ms'):,.0f} | {latency(rows[1:2])} "
                     f"| {latency(acts(rows))} | {between(acts(rows), 'took_s')} "
                     f"| {between(acts(rows), 'cpu_more_s')} |")
    return lines


def is_good(result, silence_ms):
    return (result["ok"] and not any(result[key] for key in
                                     ("closed", "lost", "repeated", "disordered", "refused"))
            and all(p["silence_ms"] <= silence_ms for p in result["phases"][1:]))


def report(results, arguments):
    lines = [f"{arguments.connections:,} connections of as many users, {arguments.workers} "
             f"workers, {arguments.beat} broadcasts a second to all and {arguments.rate} messages "
             "a second to users, half of them stored. Silence: the longest that any connection "
             f"heard nothing; {1000 / arguments.beat:.0f} ms lie between two broadcasts. Latency: "
             "p50 / p99 / max; the worst of all times that something was done. CPU more: of all "
             "the server's processes, than traffic alone costs.", "", *summary_table(results), "",
             *(f"- {peer.name}: {peer.about}" for peer, _ in results), "", *bench.machine()]
    for peer, result in results:
        lines += ["", f"{peer.name}:", "", *phase_table(result)]
    return lines


def main():
    arguments = parse_arguments()
    wanted = arguments.peers and [bench.plain(n.strip()) for n in arguments.peers.split(",")]
    adopt_orphans()
    results, is_whole = [], True
    with tempfile.TemporaryDirectory(prefix="belfry-bench-") as directory:
        place = peers.Place(directory, None, None)
        for kind in ALL:
            if wanted and bench.plain(kind.name) not in wanted:
                continue
            peer = kind(place, arguments)
            why = peer.missing()
            if why:
                print(f"{peer.name}: left out: {why}", file=sys.stderr)
                continue
            try:
                results.append((peer, run(place, peer, arguments)))
            except (RuntimeError, OSError) as e:
                print(f"{peer.name}: not measured: {e}", file=sys.stderr)
                is_whole &= not isinstance(peer, Belfry)
                continue
            print("\n".join(summary_table(results[-1:])[2:]), file=sys.stderr)
    lines = report(results, arguments)
    print("\n".join(lines))
    if arguments.results:
        pathlib.Path(arguments.results).write_text("\n".join(lines) + "\n")
    raw = json.dumps({peer.name: result for peer, result in results})
    print("\n" + raw)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(raw + "\n")
    return 0 if is_whole and all(is_good(r, arguments.silence) for p, r in results
                                 if isinstance(p, Belfry)) else 1


if __name__ == "__main__":
    sys.exit(main())
