"""Does memory stay where it was while clients come and go?

Some connections stay all the time. Beside them others connect, are given messages, most are dropped
and come back with their last id, and leave: run after run, each with users of its own, for half an
hour. Between two runs the server's processes are measured (PSS). The first tenth of the time is for
what is filled once: rings, pools, the heap's habits. After it, growth above --tolerance fails.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import peers

FIRST_USER = 1000000  # of those who come and go: none of those who stay
USER_RUNS = 50        # then the same users come again, so that Redis does not grow
SETTLE_S = 2.5        # the heap is trimmed once a second, when most have left
AT_THE_ENDS = 5       # measurements at least, and a tenth of all, whose medians are compared
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
    """Bytes."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
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
    """([(seconds, bytes)], how many runs were not good)"""
    staying = hold(place, belfry, arguments)
    samples, bad, number, start = [], 0, 0, time.monotonic()
    try:
        while time.monotonic() - start < arguments.seconds:
            bad += not run_once(place, belfry, arguments, number)
            number += 1
            time.sleep(max(SETTLE_S, arguments.pause))
            samples.append((time.monotonic() - start, pss_of(processes_of(belfry.process.pid))))
            print(f"{samples[-1][0]:6.0f} s  run {number}  {samples[-1][1] / 1e6:.3f} MB",
                  file=sys.stderr, flush=True)
        if staying.poll() is not None:
            raise RuntimeError("those who were to stay are gone")
    finally:
        staying.terminate()
        staying.wait()
    return samples, bad


def verdict(samples, arguments):
    """(text, whether it is flat)"""
    after = [size for at, size in samples if at >= arguments.seconds / 10] or [samples[-1][1]]
    each = max(AT_THE_ENDS, len(after) // 10)
    first, last = after[:each], after[-each:]
    growth = (statistics.median(last) / statistics.median(first) - 1) * 100
    text = (f"{len(samples)} runs of {arguments.come:,} in {samples[-1][0]:.0f} s beside "
            f"{arguments.stay:,} that stay: {statistics.median(first) / 1e6:.2f} MB after a tenth "
            f"of the time, {statistics.median(last) / 1e6:.2f} MB at the end ({growth:+.1f} %, "
            f"highest {max(after) / 1e6:.2f} MB); bar {arguments.tolerance:g} %")
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
