"""Does memory stay where it was while clients come and go?

Some connections stay all the time. Beside them others connect, are given messages, most are dropped
and come back with their last id, and leave: run after run, each with users of its own, for half an
hour. Between two runs the server's processes are measured: PSS of what is their own, anonymous and
shared memory of all of them. Pages of programs and libraries are told apart and not held against
the bar: they do not grow, and what is Belfry's share of them changes with whoever else on the
machine maps the same. The first tenth of the time is for what is filled once: rings, pools, the
heap's habits. What then is the median of a sixth of the rest, at its begin and at its end, is
compared; growth above --tolerance fails. A single figure says little: how much of the heap is in
pieces just then moves it by some per cent.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import peers

FIRST_USER = 1000000  # of those who come and go: none of those who stay
USER_RUNS = 50        # then the same users come again, so that Redis does not grow
SETTLE_S = 2.5        # the heap is trimmed once a second, when most have left
AT_THE_ENDS = 5       # measurements at least whose median is compared
WARM_UP = 10          # a tenth of the time
WINDOW = 6            # a sixth of what comes after it
KINDS = (["storm", "--during=500"], ["unicast", "--messages=5000", "--window=500", "--store"],
         ["storm", "--during=0"], ["broadcast", "--messages=20", "--window=20"])


def parse_arguments():
    parser = argparse.ArgumentParser(prog="make bench-churn", description=__doc__)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--stay", type=int, default=2000, help="connections that stay")
    parser.add_argument("--come", type=int, default=2000, help="connections of each run")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two runs")
    parser.add_argument("--tolerance", type=float, default=2.0, help="per cent")
    parser.add_argument("--json", help="file for every single figure")
    return parser.parse_args()


def processes_of(master):
    """The master and its workers."""
    children = pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def pss_of(pids):
    """{"Anon", "Shmem", "File": bytes}"""
    total = dict.fromkeys(("Anon", "Shmem", "File"), 0)
    for pid in pids:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        for kind, kilobytes in re.findall(r"^Pss_(Anon|File|Shmem): +(\d+) kB", text, re.M):
            total[kind] += int(kilobytes) * 1024
    return total


def bench_command(place, belfry, options):
    before, after = belfry.bench_options("churn")
    return place.pinned(place.client_cpu, [
        os.environ["BELFRY_BENCH"], f"--redis-url=unix://{place.redis_socket}",
        f"--jwt-secret-file={place.secret}", *before, *options, *after])


def hold(place, belfry, arguments):
    """Those who stay, connected; whoever gets the process ends it."""
    options = ["idle", f"--connections={arguments.stay}",
               f"--seconds={arguments.seconds + 600}", f"--limit={arguments.seconds + 600}"]
    staying = subprocess.Popen(bench_command(place, belfry, options), stdout=subprocess.DEVNULL)
    time.sleep(SETTLE_S + arguments.stay / 2000)
    return staying


def run_once(place, belfry, arguments, number):
    """False when the run was not good: a loss, a repeat, somebody refused."""
    first = FIRST_USER + number % USER_RUNS * arguments.come
    options = [*KINDS[number % len(KINDS)], f"--connections={arguments.come}",
               f"--first-user={first}", "--limit=60"]
    done = subprocess.run(bench_command(place, belfry, options), stdout=subprocess.PIPE,
                          check=False)
    if done.returncode != 0:
        print(f"run {number}: not good: {done.stdout.decode()}", file=sys.stderr)
    return done.returncode == 0


def churn(place, belfry, arguments):
    """([(seconds, bytes of its own, of files)], how many runs were not good)"""
    staying = hold(place, belfry, arguments)
    samples, bad, number, start = [], 0, 0, time.monotonic()
    try:
        while time.monotonic() - start < arguments.seconds:
            bad += not run_once(place, belfry, arguments, number)
            number += 1
            time.sleep(max(SETTLE_S, arguments.pause))
            pss = pss_of(processes_of(belfry.process.pid))
            samples.append((time.monotonic() - start, pss["Anon"] + pss["Shmem"], pss["File"]))
            print(f"{samples[-1][0]:6.0f} s  run {number}  {samples[-1][1] / 1e6:.3f} MB and "
                  f"{samples[-1][2] / 1e6:.3f} of files", file=sys.stderr, flush=True)
        if staying.poll() is not None:
            raise RuntimeError("those who were to stay are gone")
    finally:
        staying.terminate()
        staying.wait()
    return samples, bad


def verdict(samples, arguments):
    """(text, whether it is flat)"""
    after = [own for at, own, _ in samples if at >= arguments.seconds / WARM_UP]
    after = after or [samples[-1][1]]
    each = max(AT_THE_ENDS, len(after) // WINDOW)
    first, last = statistics.median(after[:each]), statistics.median(after[-each:])
    growth = (last / first - 1) * 100
    text = (f"{len(samples)} runs of {arguments.come:,} in {samples[-1][0]:.0f} s beside "
            f"{arguments.stay:,} that stay: {first / 1e6:.2f} MB after a tenth of the time, "
            f"{last / 1e6:.2f} MB at the end ({growth:+.1f} %; single ones {min(after) / 1e6:.2f} "
            f"to {max(after) / 1e6:.2f}), beside "
            f"{statistics.median(files for _, _, files in samples) / 1e6:.2f} MB of programs and "
            f"libraries; bar {arguments.tolerance:g} %")
    return text, growth <= arguments.tolerance


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="belfry-bench-") as directory:
        place = peers.Place(directory, None, None)
        belfry = peers.Belfry(place)
        place.start_redis()
        try:
            belfry.start("churn")
            samples, bad = churn(place, belfry, arguments)
        finally:
            belfry.stop()
            place.stop_redis()
    text, is_flat = verdict(samples, arguments)
    print(text + (": holds" if is_flat else ": MISSED") + (f"; {bad} runs not good" if bad else ""))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"samples": samples, "bad": bad}) + "\n")
    return 0 if is_flat and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
