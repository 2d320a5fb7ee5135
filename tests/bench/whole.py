"""Measures everything, keeps it in one JSON file, and writes the tables from that file.

All figures between marks in RESULTS.md and README.md are of one run of this: none is copied by
hand.
Takes about 20 minutes, on a machine that has nothing else to do.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import bench
import parts
import peers
import tables

HERE = pathlib.Path(__file__).resolve().parent


def parse_arguments():
    parser = argparse.ArgumentParser(prog="make bench-whole", description=__doc__)
    parser.add_argument("--json", default="bench-whole.json", help="file for every single figure")
    parser.add_argument("--rounds", type=int, default=5, help="of floor and Belfry")
    parser.add_argument("--peer-rounds", type=int, default=2, help="of the others")
    parser.add_argument("--part-rounds", type=int, default=3, help="of the parts")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--only", default="table,reloads,callgrind," + ",".join(parts.ALL))
    parser.add_argument("--no-tables", action="store_true", help="only measure")
    return parser.parse_args()


def table_of(arguments, directory):
    """The servers beside each other: rounds as bench.py keeps them."""
    raw = directory / "table.json"
    done = subprocess.run(
        [sys.executable, HERE / "bench.py", f"--rounds={arguments.rounds}",
         f"--peer-rounds={arguments.peer_rounds}", f"--connections={arguments.connections}",
         f"--json={raw}"], stdout=subprocess.DEVNULL, check=False)
    return {"connections": arguments.connections, "is_good": done.returncode == 0,
            "rounds": json.loads(raw.read_text())}


def reloads(directory):
    """Reloads and upgrades under traffic, Belfry's and Nchan's: name -> what reload.py found."""
    raw = directory / "reloads.json"
    subprocess.run([sys.executable, HERE / "reload.py", f"--json={raw}"],
                   stdout=subprocess.DEVNULL, check=False)
    return json.loads(raw.read_text())


def callgrind():
    done = subprocess.run([sys.executable, HERE / "callgrind.py"], stdout=subprocess.PIPE,
                          text=True, check=False)
    return {name.strip(): int(number) for name, number in
            re.findall(r"^(.+?)\s+(\d+) instructions", done.stdout, re.M)}


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure(arguments, directory, into):
    wanted = arguments.only.split(",")
    if "table" in wanted:
        say("table")
        into["table"] = table_of(arguments, directory)
    place = peers.Place(directory, 0, 1)
    for name, part in parts.ALL.items():
        if name not in wanted:
            continue
        say(name)
        try:
            into[name] = part(place, arguments.part_rounds)
        except (RuntimeError, OSError) as error:
            say(f"{name}: {error}")
            into["failed"].append(name)
    if "reloads" in wanted:
        say("reloads")
        into["reloads"] = reloads(directory)
    if "callgrind" in wanted:
        say("callgrind")
        into["callgrind"] = callgrind()


def main():
    arguments = parse_arguments()
    result = {"day": datetime.date.today().isoformat(), "machine": bench.machine(),
              "load_before": os.getloadavg()[0], "failed": []}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="belfry-bench-") as directory:
        measure(arguments, pathlib.Path(directory), result)
    result["minutes"] = round((time.monotonic() - start) / 60, 1)
    pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    say(f"{arguments.json}: {result['minutes']} minutes")
    if not arguments.no_tables:
        tables.write(result)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
