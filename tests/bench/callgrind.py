"""How many instructions of Belfry's own processes a delivery and a connection cost.

Time depends on the machine and on what else it does; instructions do not, so a regression shows as
a number. Each figure is the difference between two runs, one with more messages (or connections)
than the other, divided by how many more: what starting and stopping costs falls out. The kernel's
part is not in it. Needs valgrind.

Each figure is held against the one in baseline.txt: what is more than TOLERANCE above it fails. Who
makes something cheaper, or has a reason for a price, writes the new figures there (--record), in
the same commit.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import peers

CONNECTIONS = 200
BASELINE = pathlib.Path(__file__).resolve().parent / "baseline.txt"
TOLERANCE = 1.06  # how turns, slices and reads fall together moves a figure by some per cent
TOLERANCES = {"broadcast, 64 in flight": 1.15}  # how many come together is the machine's time's

# name: (mode, connections, options, messages of the two runs); no messages: connections are
# counted, the second run has twice as many.
FIGURES = {
    "broadcast, one at a time": ("broadcast", CONNECTIONS, ["--window=1"], (40, 120)),
    "broadcast, 64 in flight": ("broadcast", CONNECTIONS, ["--window=64"], (256, 768)),
    "unicast, 1,000 in flight": ("unicast", CONNECTIONS, ["--window=1000"], (3000, 9000)),
    "connection (connect, attach, leave)": ("idle", 300, ["--seconds=0"], None),
}


class Watched(peers.Belfry):
    """Belfry under callgrind, which follows forks and writes one file for each process."""

    def __init__(self, place, options):
        super().__init__(place)
        self.options = options
        self.outputs = place.directory / "callgrind"
        self.outputs.mkdir(exist_ok=True)
        self.outputs.chmod(0o777)  # the worker may be another user

    def command(self, scenario):
        for old in self.outputs.iterdir():
            old.unlink()
        return ["valgrind", "-q", "--tool=callgrind", *self.options,
                f"--callgrind-out-file={self.outputs}/out.%p", *super().command(scenario)]

    def instructions(self):
        """Sum over the processes; from the line that callgrind ends each file with."""
        found = [re.findall(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
                 for path in self.outputs.iterdir()]
        if len(found) < 2 or not all(found):
            raise RuntimeError("callgrind left no figures of a master and a worker")
        return sum(int(numbers[-1]) for numbers in found)


def run_once(place, watched, mode, options):
    place.start_redis()
    try:
        watched.start(mode)
        before, after = watched.bench_options(mode)
        command = [os.environ["BELFRY_BENCH"], f"--redis-url=unix://{place.redis_socket}",
                   f"--jwt-secret-file={place.secret}", *before, mode, "--json", "--limit=60",
                   *options, *after]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    finally:
        watched.stop()
        place.stop_redis()
    return watched.instructions()


def figure(place, watched, row, keep):
    mode, connections, options, messages = row
    if messages is None:
        sizes = (connections, 2 * connections)
        runs = [[f"--connections={n}", *options] for n in sizes]
        units = connections
    else:
        runs = [[f"--connections={connections}", f"--messages={n}", "--warmup=64", *options]
                for n in messages]
        units = (messages[1] - messages[0]) * (connections if mode == "broadcast" else 1)
    few, many = (run_once(place, watched, mode, run) for run in runs)
    if keep:
        shutil.copytree(watched.outputs, pathlib.Path(keep) / mode, dirs_exist_ok=True)
    return (many - few) / units


def read_baseline():
    """name: instructions"""
    if not BASELINE.exists():
        return {}
    lines = [line for line in BASELINE.read_text().splitlines() if line and line[0] != "#"]
    return {name.strip(): int(number) for name, number in (line.rsplit(None, 1) for line in lines)}


def record(figures):
    head = "# Instructions of Belfry's own processes, by make bench-callgrind: see callgrind.py.\n"
    BASELINE.write_text(head + "".join(f"{name:40} {number:10.0f}\n"
                                       for name, number in figures.items()))


def verdict(name, number, baseline):
    """(text, whether it is good)"""
    if name not in baseline:
        return "not recorded", True
    change = f"{100 * (number / baseline[name] - 1):+.1f} %"
    if number > baseline[name] * TOLERANCES.get(name, TOLERANCE):
        return f"{change} of {baseline[name]}: MORE THAN IT WAS", False
    return f"{change} of {baseline[name]}", True


def main():
    parser = argparse.ArgumentParser(prog="callgrind.py", description=__doc__)
    parser.add_argument("--only", default="", help="figures whose name holds this")
    parser.add_argument("--keep", help="directory for the files of each last run")
    parser.add_argument("--valgrind", default="", help="more options for valgrind")
    parser.add_argument("--record", action="store_true", help="write the figures to baseline.txt")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        print("valgrind is not installed", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="belfry-bench-") as directory:
        place = peers.Place(directory, None, None)
        watched = Watched(place, arguments.valgrind.split())
        baseline, is_good = read_baseline(), True
        figures = dict(baseline)
        for name, row in FIGURES.items():
            if arguments.only not in name:
                continue
            figures[name] = figure(place, watched, row, arguments.keep)
            text, holds = verdict(name, figures[name], baseline)
            is_good = is_good and holds
            print(f"{name:40} {figures[name]:10.0f} instructions, {text}", flush=True)
    if arguments.record:
        record(figures)
        return 0
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
