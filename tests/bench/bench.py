"""Measures Belfry, a floor and its peers side by side, in rounds, and writes the table.

In each round each scenario is run with each server, one after the other, each freshly started: what
the machine does meanwhile meets all of them. A ratio is to the floor of the same round; of all
rounds the median stands in the table, with the lowest and the highest.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import peers

# name: (title, mode, options)
SCENARIOS = {
    "one": ("broadcast, one at a time", "broadcast", ["--window=1"]),
    "window": ("broadcast, 64 in flight", "broadcast", ["--window=64"]),
    "unicast": ("unicast, 1,000 in flight", "unicast", ["--window=1000"]),
    "rate": ("unicast, 5,000 a second", "unicast", ["--rate=5000"]),
    "storm": ("back after a drop", "storm", []),
}

# column: (title, scenario, figure, multiplied by, decimals)
COLUMNS = {
    "one": ("broadcast, one at a time, µs", "one", "cpu_us_per_delivery", 1, 2),
    "window": ("broadcast, 64 in flight, µs", "window", "cpu_us_per_delivery", 1, 3),
    "unicast": ("unicast, 1,000 in flight, µs", "unicast", "cpu_us_per_delivery", 1, 2),
    "p50": ("unicast at 5,000/s, p50, ms", "rate", "latency_p50_us", 1e-3, 2),
    "p99": ("unicast at 5,000/s, p99, ms", "rate", "latency_p99_us", 1e-3, 2),
    "memory": ("idle, kB PSS", "unicast", "pss_bytes_per_connection", 1e-3, 2),
    "connect": ("CPU per connect, µs", "unicast", "cpu_us_per_connect", 1, 1),
    "back": ("all back, s", "storm", "back_s", 1, 2),
}

# What Belfry is to cost at most, but for memory: that is held against its bar with more connections
# than these (parts.py), where it is not mostly the processes' own. column: (bar, floor the ratio is to; None: the figure itself)
BARS = {
    "one": (1.08, "floor"),
    "window": (1.25, "floor, joining"),
    "unicast": (1.20, "floor"),
    "p50": (1.2, "floor"),
    "p99": (1.5, "floor"),
    "connect": (50, None),
}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int,
                        help="rounds in which the others than floor and Belfry are measured")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--peers", help="names, comma-separated (all that are at hand)")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="Belfry and the floor, shorter")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--json", help="file for every single figure")
    parser.add_argument("--results", help="file for the table and the machine (Markdown)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.peers = arguments.peers or "floor,floor joining,belfry"
        arguments.rounds = min(arguments.rounds, 3)
        arguments.connections = min(arguments.connections, 2000)
    if len(os.sched_getaffinity(0)) < 2:
        arguments.server_cpu = arguments.client_cpu = None
    return arguments


def plain(name):
    return name.lower().replace(",", "")


def choose(arguments, place):
    wanted = arguments.peers and [plain(n.strip()) for n in arguments.peers.split(",")]
    chosen = []
    for kind in peers.ALL:
        if wanted and plain(kind.name) not in wanted:
            continue
        peer = kind(place)
        why = peer.missing()
        if why:
            print(f"{peer.name}: left out: {why}", file=sys.stderr)
        else:
            chosen.append(peer)
    return chosen


def how_many(scenario, connections, quick):
    """About so many deliveries that a server at 10 µs is busy for some seconds."""
    part = 3 if quick else 1
    if scenario == "one":
        return ["--messages", str(max(10, 200000 // connections // part))]
    if scenario == "window":
        return ["--messages", str(max(192, 2000000 // connections // part))]
    if scenario == "rate":
        return ["--messages", str(30000 // part), "--warmup", "5000"]
    if scenario == "unicast":
        return ["--messages", str(40000 // part), "--warmup", "4000"]
    return []


def measure(place, peer, scenario, arguments):
    """One run: belfry-bench's figures, None when it was not good."""
    _, mode, options = SCENARIOS[scenario]
    place.start_redis()
    try:
        peer.start(scenario)
        before, after = peer.bench_options(scenario)
        if scenario == "storm" and not peer.resumes:
            options = [*options, "--during=0"]
        command = [os.environ["BELFRY_BENCH"], f"--redis-url=unix://{place.redis_socket}",
                   f"--jwt-secret-file={place.secret}", *before, mode,
                   f"--connections={arguments.connections}", f"--pid={peer.process.pid}",
                   "--json", f"--name={peer.name}", *options, *after,
                   *how_many(scenario, arguments.connections, arguments.quick)]
        done = subprocess.run(place.pinned(place.client_cpu, command), stdout=subprocess.PIPE,
                              check=False)
    finally:
        peer.stop()
        place.stop_redis()
    if done.returncode != 0:
        print(f"{peer.name}: {scenario}: not good: {done.stdout.decode()}", file=sys.stderr)
    return json.loads(done.stdout) if done.returncode == 0 else None


def run_round(place, chosen, arguments, figures):
    """Fills figures: (peer, scenario) -> what belfry-bench said"""
    for scenario in SCENARIOS:
        if scenario not in arguments.scenarios.split(","):
            continue
        for peer in chosen:
            if scenario in peer.scenarios:
                figures[peer.name, scenario] = measure(place, peer, scenario, arguments)
        shown = ", ".join(
            f"{p.name} {figures[p.name, scenario].get('cpu_us_per_delivery', '')}"
            for p in chosen if figures.get((p.name, scenario)))
        print(f"{scenario}: {shown}", file=sys.stderr)


def of_round(chosen, number, arguments):
    if arguments.peer_rounds is None or number < arguments.peer_rounds:
        return chosen
    return [p for p in chosen if isinstance(p, (peers.Floor, peers.Belfry))]


def run_rounds(place, chosen, arguments):
    """A list of rounds. Interrupted, it is what was measured so far."""
    rounds = []
    try:
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            rounds.append({})
            run_round(place, of_round(chosen, number, arguments), arguments, rounds[-1])
    except KeyboardInterrupt:
        print("interrupted: the table is of what was measured so far", file=sys.stderr)
    return rounds


def values_of(rounds, peer, column):
    """One value for each round in which it was measured: [(round, value)]"""
    _, scenario, figure, factor, _ = COLUMNS[column]
    found = []
    for number, figures in enumerate(rounds):
        run = figures.get((peer, scenario))
        if run and figure in run:
            found.append((number, run[figure] * factor))
    return found


def ratios_of(rounds, peer, column, floor):
    base = dict(values_of(rounds, floor, column))
    return [value / base[number] for number, value in values_of(rounds, peer, column)
            if base.get(number)]


def spread(values, decimals):
    text = f"{statistics.median(values):.{decimals}f}"
    if len(values) > 1:
        text += f" ({min(values):.{decimals}f}–{max(values):.{decimals}f})"
    return text


def cell(rounds, peer, column):
    values = [value for _, value in values_of(rounds, peer, column)]
    if not values:
        return "–"
    text = spread(values, COLUMNS[column][4])
    floor = BARS.get(column, (0, None))[1]
    if floor and peer != floor and ratios_of(rounds, peer, column, floor):
        text += f", ×{statistics.median(ratios_of(rounds, peer, column, floor)):.2f}"
    return text


def table(rounds, chosen):
    columns = [c for c in COLUMNS if any(values_of(rounds, p.name, c) for p in chosen)]
    lines = ["| | " + " | ".join(COLUMNS[c][0] for c in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for peer in chosen:
        lines.append(f"| {peer.name} | "
                     + " | ".join(cell(rounds, peer.name, c) for c in columns) + " |")
    return lines


def bars(rounds):
    lines = []
    for column, (bar, floor) in BARS.items():
        values = (ratios_of(rounds, "Belfry", column, floor) if floor
                  else [value for _, value in values_of(rounds, "Belfry", column)])
        if values:
            what = f"times the {floor}" if floor else COLUMNS[column][0].rsplit(" ", 1)[-1]
            verdict = "holds" if statistics.median(values) <= bar else "MISSED"
            lines.append(f"- {COLUMNS[column][0].rsplit(',', 1)[0]}: {spread(values, 2)} {what},"
                         f" bar {bar:g}: {verdict}")
    return lines


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    except (OSError, IndexError):
        return "?"


def machine():
    model = "?"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    kilobytes = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return [f"- {os.cpu_count()} × {model}, {kilobytes / 1048576:.0f} GB, "
            f"Linux {platform.release().split('-')[0]}",
            f"- {first_line('redis-server', '--version')}"]


def report(rounds, chosen, arguments):
    return [f"{arguments.connections:,} connections of as many users, 200-byte JSON, "
            f"{len(rounds)} rounds: median (lowest–highest), × ratio to the floor of the same "
            "round. CPU time of all the server's processes.", "",
            *table(rounds, chosen), "", *bars(rounds), "",
            *(f"- {p.name}: {p.about}" for p in chosen), "", *machine()]


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="belfry-bench-") as directory:
        place = peers.Place(directory, arguments.server_cpu, arguments.client_cpu)
        chosen = choose(arguments, place)
        rounds = run_rounds(place, chosen, arguments)
    lines = report(rounds, chosen, arguments)
    print("\n".join(lines))
    if arguments.results:
        pathlib.Path(arguments.results).write_text("# Results\n\n" + "\n".join(lines) + "\n")
    if arguments.json:
        raw = [{f"{peer}: {scenario}": run for (peer, scenario), run in figures.items()}
               for figures in rounds]
        pathlib.Path(arguments.json).write_text(json.dumps(raw, indent=1) + "\n")
    return 0 if all(run for figures in rounds for run in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
