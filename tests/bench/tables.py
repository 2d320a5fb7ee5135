"""Writes the tables of RESULTS.md and README.md from the JSON file of whole.py, and nothing else:
between a line <!-- bench: NAME --> and <!-- end of bench: NAME --> stands what it makes.

    tests/bench/tables.py bench-whole.json
"""

import json
import pathlib
import statistics
import sys
import types

import bench
import parts
import peers
import reload

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
README = HERE.parent.parent / "README.md"

STORM_BARS = {"5000": 0.6, "15000": 2.0}
INCOMING_BAR = 2.0
FLAT_BAR = 5  # per cent
SLICED_BAR = 25  # ms
STALL_BAR = 0.02  # s
MEMORY_BAR = 800  # bytes
MILLION = 1000000


def median_of(runs, figure, factor=1.0):
    return statistics.median(run[figure] * factor for run in runs)


def spread(runs, figure, factor, decimals):
    return bench.spread([run[figure] * factor for run in runs], decimals)


def verdict(what, value, bar, unit, decimals=2):
    held = "holds" if value <= bar else "MISSED"
    return f"- {what}: {value:.{decimals}f}{unit}, bar {bar:g}{unit}: {held}"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|",
            *("| " + " | ".join(map(str, row)) + " |" for row in rows)]


def rounds_of(result):
    """As bench.py has them: (peer, scenario) -> run"""
    return [{tuple(key.rsplit(": ", 1)): run for key, run in figures.items()}
            for figures in result["table"]["rounds"]]


def measured(rounds):
    return [kind for kind in peers.ALL
            if any(run and key[0] == kind.name for figures in rounds
                   for key, run in figures.items())]


# ---- RESULTS.md ---------------------------------------------------------------------------------


def servers(result):
    rounds = rounds_of(result)
    chosen = measured(rounds)
    lines = [f"{result['table']['connections']:,} connections of as many users, 200-byte JSON: "
             "median (lowest–highest), × ratio to the floor of the same round. CPU time of all the "
             "server's processes.", "", *bench.table(rounds, chosen), "", *bench.bars(rounds)]
    return [*lines, "", *(f"- {kind.name}: {kind.about}" for kind in chosen)]


def storms(result):
    rows, bars = [], []
    for connections, runs in result["storms"].items():
        rows.append([f"{int(connections):,}", spread(runs, "back_s", 1, 2),
                     spread(runs, "back_p50_us", 1e-6, 2),
                     spread(runs, "cpu_us_per_return", 1, 1),
                     spread(runs, "syns_dropped", 1, 0)])
        bars.append(verdict(f"{int(connections):,} back", median_of(runs, "back_s"),
                            STORM_BARS[connections], " s"))
    return ["## All dropped at once", "",
            "One worker; they come back with their last id, and are live when the subscription is "
            "confirmed and the list read; 1,000 messages are stored and published meanwhile. "
            "Nothing was lost or came twice.", "",
            *table(["connections", "all back, s", "half of them, s", "CPU each, µs",
                    "SYNs that found the queue full"], rows), "", *bars]


def ratios_of(ones, others):
    """Of p99, round by round."""
    return [one["latency_p99_us"] / other["latency_p99_us"] for one, other in zip(ones, others)]


def incoming_ratios(servers):
    """(Belfry's p99 times its quiet one, the floor's, Belfry's times the floor's while others come
    in), each the median of the rounds'"""
    floor, belfry = servers["floor"], servers["Belfry"]
    return [statistics.median(ratios) for ratios in (
        ratios_of(belfry["incoming"], belfry["quiet"]),
        ratios_of(floor["incoming"], floor["quiet"]),
        ratios_of(belfry["incoming"], floor["incoming"]))]


def incoming(result):
    rows, bars = [], []
    for setup, servers_of in result["incoming"].items():
        for name, part in servers_of.items():
            rows += [[setup, name, who, spread(part[key], "latency_p50_us", 1e-3, 2),
                      spread(part[key], "latency_p99_us", 1e-3, 2)]
                     for who, key in (("nobody", "quiet"),
                                      (f"{parts.INCOMING_RATE:,}", "incoming"))]
        mine, floor, beside = incoming_ratios(servers_of)
        what = f"{setup}: p99 while others come in, times the quiet one"
        bars += [verdict(what, mine, INCOMING_BAR, "") if setup == parts.REAL_TIME
                 else f"- {what}: {mine:.2f}",
                 f"- {setup}: the same of the floor: {floor:.2f}; Belfry's p99 while others come "
                 f"in, times the floor's: {beside:.2f}"]
    return ["## While others come in", "",
            "2,000 connected clients, 2,000 messages a second; one worker. Who comes in is of a "
            "generator of its own, which has the processor that it shares with Redis and with "
            "those who measure only while neither of them wants it. Ordinary: all processes are "
            "as they are started. Real time: all are of SCHED_RR, so that none waits for the end "
            "of another program's slice; the bar is held against that one. Ratios are medians of the "
            "rounds' own.", "",
            *table(["processes", "", "come in each second", "p50, ms", "p99, ms"], rows), "",
            *bars]


def flatness(result):
    rows, ratios = [], []
    for workers, connections in parts.FLATNESS:
        both = [result["flatness"][f"{name}, {workers}, {connections}"]
                for name in ("floor", "Belfry")]
        ratios.append(statistics.median(
            mine["cpu_us_per_delivery"] / floor["cpu_us_per_delivery"]
            for floor, mine in zip(*both)))
        rows.append([workers, f"{connections:,}",
                     *(spread(runs, "cpu_us_per_delivery", 1, 2) for runs in both),
                     f"×{ratios[-1]:.2f}"])
    width = (max(ratios) / min(ratios) - 1) * 100
    return ["## By workers and connections", "",
            "CPU for each delivery of a broadcast, one at a time. The more sockets, the less of "
            "the kernel's part is in a cache: the floor, which does nothing but send, grows as "
            "much, so it is the ratio that is held against the bar.", "",
            *table(["workers", "connections", "floor, µs", "Belfry, µs", "ratio"], rows), "",
            verdict("highest ratio above the lowest", width, FLAT_BAR, " %", 1)]


def longest(turns):
    """The bound below which all turns are."""
    count = max(turns.values())
    return min(float(bound) for bound, n in turns.items() if n == count)


def turns_row(what, turns):
    below = {float(bound): n for bound, n in turns.items()}
    return [what, f"{max(below.values()):,}",
            *(f"{below[bound]:,}" for bound in (0.001, 0.005, 0.01, 0.02)),
            f"{longest(turns) * 1e3:g} ms"]


def many(result):
    part = result["many"]
    turns = {what: part[f"turns while {what}"][0] for what in ("idle", "broadcasts", "all leave")}
    waits = {what: part[f"unicast while {what}"][0] for what in ("broadcasts", "all leave")}
    return [f"## {parts.BIG:,} connections, {parts.BIG_WORKERS} workers on one processor", "",
            "How many turns of the loops took at most so long by the clock; where workers share a "
            "processor, a turn may be interrupted by another's.", "",
            *table(["", "turns", "≤ 1 ms", "≤ 5 ms", "≤ 10 ms", "≤ 20 ms", "all"],
                   [turns_row("28 s idle: pings, statistics, a scrape a second", turns["idle"]),
                    turns_row("a broadcast to all each second", turns["broadcasts"]),
                    turns_row("all leave at once", turns["all leave"])]), "",
            "200 other clients were sent 1,000 messages a second for 8 s. They are a generator of "
            f"their own; that of the {parts.BIG:,} has the processor only while neither they nor "
            "Redis want it.", "",
            *table(["meanwhile", "p50, ms", "p99, ms", "longest, ms"],
                   [[what, *(f"{waits[key][f'latency_{at}_us'] / 1e3:.1f}"
                             for at in ("p50", "p99", "max"))]
                    for what, key in (("a broadcast to all each second", "broadcasts"),
                                      ("all leave at once", "all leave"))]), "",
            verdict("longest turn while idle", longest(turns["idle"]) * 1e3, STALL_BAR * 1e3,
                    " ms", 0),
            verdict("p99 to users during broadcasts", waits["broadcasts"]["latency_p99_us"] / 1e3,
                    SLICED_BAR, " ms", 1)]


def asked_of_redis(run):
    """What came over the links for each connection: the commands that scripts call are not among
    it."""
    calls, count = run.get("redis"), run["connections"]
    if not calls:
        return []
    sent = ("watch", "eval", "evalsha", "multi", "lrange", "srandmember", "exec")
    lists = sum(calls.get(name, 0) for name in sent) + 2 * calls.get("lrange", 0)  # and two GETs
    return [f"- Redis commands of a connect ({count:,.0f} at once): {lists / count:.1f} for its "
            f"list, sent in one piece; {calls.get('subscribe', 0) / count:.2f} SUBSCRIBE. Redis "
            f"read from a link once for {count / calls['reads']:.0f} connects."]


def memory(result):
    rows = []
    for key, workers in (("one worker", 1), ("held", parts.HELD_WORKERS)):
        run = result["memory"][key][0]
        rows.append([workers, f"{run['connections']:,.0f}",
                     f"{run['pss_bytes_per_connection_held'] / 1e3:.2f}",
                     f"{run.get('slab_bytes_per_connection_both_ends', 0) / 1e3:.1f}",
                     f"{run['cpu_us_per_connect']:.0f}", f"{run['connect_s']:.1f}",
                     f"{run['cpu_percent']:.2f}"])
    one = result["memory"]["one worker"][0]["pss_bytes_per_connection_held"]
    redis = asked_of_redis(result["memory"]["one worker"][0])
    return ["## Idle connections of as many users", "",
            *table(["workers", "connections", "processes, kB each", "kernel's slab, both ends, kB",
                    "CPU of a connect, µs", "all live, s", "CPU while held, %"], rows), "",
            verdict("memory of an idle connection", one / 1e3, MEMORY_BAR / 1e3, " kB"), *redis]


def reloads(result):
    about = {kind.name: kind.about for kind in reload.ALL}
    rows = [(types.SimpleNamespace(name=name), found)
            for name, found in result["reloads"].items()]
    lines = ["`make bench-reload`, in the same run: 5,000 connections of as many users, 4 workers, 4 broadcasts a "
             "second to all, 200 messages a second to users, half of them stored. Belfry: HUP, "
             "USR2, HUP, USR2, HUP; Nchan: `nginx -s reload` three times. Silence: the longest "
             "that any connection heard nothing; 250 ms lie between two broadcasts. Away: the "
             "longest from being closed until a client was back. Latency: p50 / p99 / max, the "
             "worst of all times that something was done. CPU more: of all the server's "
             "processes, than the traffic alone costs.", "", *reload.summary_table(rows), "",
             *(f"- {peer.name}: {about.get(peer.name, '')}" for peer, _ in rows)]
    for peer, found in rows:
        if peer.name == "Belfry":
            lines += ["", "Belfry, phase by phase:", "", *reload.phase_table(found)]
    return lines


def callgrind(result):
    return ["## Instructions", "",
            "Of Belfry's own processes, by `make bench-callgrind` (200 connections; 300 for the "
            "last):", "", *table(["", "instructions"], [
                [name, f"{count:,}"] for name, count in result["callgrind"].items()])]


def conditions(result):
    failed = f" Not good, and left out: {', '.join(result['failed'])}." if result["failed"] else ""
    return [f"One run of `make bench-whole`, {result['day']}, {result['minutes']:.0f} minutes; "
            f"load of the machine before it {result['load_before']:.1f}.{failed}", "",
            *result["machine"]]


def results(result):
    lines = conditions(result)
    for name, section in (("table", servers), ("storms", storms), ("incoming", incoming),
                          ("flatness", flatness), ("many", many), ("memory", memory),
                          ("callgrind", callgrind)):
        if result.get(name):
            lines += ["", *section(result)]
    return lines


# ---- README.md ----------------------------------------------------------------------------------


def ratio_cell(rounds, peer, column):
    floor = bench.BARS[column][1]
    ratios = bench.ratios_of(rounds, peer, column, floor)
    if not ratios:
        return "–"
    if peer == floor:
        base = [value for _, value in bench.values_of(rounds, floor, column)]
        return f"1 ({statistics.median(base):.2g} µs)"
    ratio = statistics.median(ratios)
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def figure_cell(rounds, peer, column, unit, decimals):
    values = [value for _, value in bench.values_of(rounds, peer, column)]
    return f"{statistics.median(values):.{decimals}f}{unit}" if values else "–"


def cost(result):
    rounds = rounds_of(result)
    rows = []
    for kind in measured(rounds):
        rows.append([kind.name,
                     *(ratio_cell(rounds, kind.name, c) for c in ("one", "window", "unicast")),
                     figure_cell(rounds, kind.name, "memory", " kB", 2),
                     figure_cell(rounds, kind.name, "connect", " µs", 0),
                     figure_cell(rounds, kind.name, "back", " s", 2)])
    return table(["", "broadcast, one at a time", "broadcast, 64 in flight",
                  "unicast, 1,000 in flight", "memory of an idle client", "CPU of a connect",
                  "all back after a drop"], rows)


def deploy(result):
    rows = []
    for name, found in result["reloads"].items():
        phases = found["phases"]
        rows.append([name, f"{found['closed']:,}", f"{found['lost']:,}",
                     f"{reload.worst(phases[2:], 'silence_ms') / 1e3:.2f} s",
                     f"{reload.between(reload.acts(phases), 'took_s')} s"])
    return table(["", "connections closed", "deliveries lost", "longest silence", "each took"],
                 rows)


def million(result):
    run = result["memory"]["held"][0]
    kernel = run.get("slab_bytes_per_connection_both_ends", 0) / 2
    rows = [[f"{run['connections']:,.0f}, measured",
             f"{run['pss_bytes_per_connection_held'] * run['connections'] / 1e6:.0f} MB",
             f"{kernel * run['connections'] / 1e6:.0f} MB",
             f"{run['connect_s']:.0f} s",
             f"{run['cpu_us_per_connect'] * run['connections'] / 1e6:.0f} s"],
            [f"{MILLION:,}, by that",
             f"{run['pss_bytes_per_connection_held'] * MILLION / 1e9:.1f} GB",
             f"{kernel * MILLION / 1e9:.1f} GB", "–",
             f"{run['cpu_us_per_connect'] * MILLION / 1e6:.0f} s"]]
    return table(["connections", "Belfry's processes", "kernel, the server's half",
                  "all live after", "processor time to connect all"], rows)


# ---- files --------------------------------------------------------------------------------------


def put(path, name, lines):
    text = path.read_text()
    begin, end = f"<!-- bench: {name} -->\n", f"<!-- end of bench: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise RuntimeError(f"{path}: no place for {name}")
    head, rest = text.split(begin)
    path.write_text(head + begin + "\n".join(["", *lines, "", ""]) + end + rest.split(end)[1])
    print(f"{path}: {name}", file=sys.stderr)


def write(result):
    put(RESULTS, "results", results(result))
    if result.get("table"):
        put(README, "cost", cost(result))
    if result.get("reloads"):
        put(RESULTS, "reloads", reloads(result))
        put(README, "deploy", deploy(result))
    if result.get("memory"):
        put(README, "million", million(result))


if __name__ == "__main__":
    write(json.loads(pathlib.Path(sys.argv[1]).read_text()))
