import { useState, type FormEvent } from "react";
import { Explain } from "./parts/Explain.js";
import { Plot } from "./parts/Plot.js";
import { Reasons, Workers } from "./parts/Tables.js";
import { quantile, rate, sum, type Counters, type Sample, type Stats } from "./stats.js";
import { usePolling, type Polled } from "./usePolling.js";

const KEY = "belfry-admin-token";

/** Kept as long as the tab; never in the address. */
function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(token: string | null): void {
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Then it is asked for again.
  }
}

export function App() {
  const [token, setToken] = useState<string | null>(stored);
  const polled = usePolling(token);
  const use = (next: string | null) => {
    store(next);
    setToken(next);
  };
  return (
    <div className="page">
      <header className="top">
        <h1>Belfry <span>operation</span></h1>
        {token !== null && <State polled={polled} />}
        {token !== null && <button type="button" className="small" onClick={() => use(null)}>Forget the token</button>}
      </header>
      {token === null || polled.isRefused
        ? <TokenForm error={polled.isRefused ? polled.error : null} use={use} />
        : polled.instances.length > 0 && <Overview polled={polled} token={token} />}
    </div>
  );
}

function TokenForm({ error, use }: { error: string | null; use: (token: string) => void }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const token = new FormData(event.currentTarget).get("token");
    if (typeof token === "string" && token.trim()) use(token.trim());
  };
  return (
    <form className="card ask" onSubmit={submit}>
      <label htmlFor="token">An administrator's token</label>
      <input id="token" name="token" type="password" autoComplete="off" spellCheck={false} required />
      <button type="submit">Show</button>
      {error !== null && <p role="alert">{error}</p>}
      <p className="row-note">
        <code>belfryctl token --user you --admin</code> makes one. It stays in this tab.
      </p>
    </form>
  );
}

function State({ polled }: { polled: Polled }) {
  const stats = polled.instances.map((one) => one.stats);
  const links = sum(stats, (s) => Number(s.statistics.redis_stats.redis_subscriber_up ?? 0));
  const workers = sum(stats, (s) => s.workers.filter((w) => w.state === "ready").length);
  const isBad = polled.error !== null || links < workers;
  return (
    <p className={`state-line ${isBad ? "bad" : "good"}`} role="status">
      {polled.error ??
        `${polled.instances.length === 1 ? "1 instance" : `${polled.instances.length} instances`}, ${workers} workers ready, ` +
          `${links} of ${workers} links to Redis`}
    </p>
  );
}

function Overview({ polled: { instances, samples }, token }: { polled: Polled; token: string }) {
  const stats = instances.map((one) => one.stats);
  const times = samples.map((s) => s.at / 1000);
  const rates = (name: "received" | "delivered" | "sentBytes") =>
    samples.map((s, i) => (i === 0 ? null : rate(samples[i - 1] as Sample, s, name)));
  const probes = samples.map((s) => s.probeMs);
  const newest = samples.at(-1);
  return (
    <main className="grid">
      <Figures stats={stats} probes={probes} newest={newest} />
      <Plot title="Messages" note="Each second, from Redis and to devices." times={times} lines={[
        { label: "in", color: "var(--blue)", values: rates("received") },
        { label: "out", color: "var(--accent)", values: rates("delivered") },
      ]} />
      <Plot title="Connections" note="Devices, and the users they belong to." times={times} lines={[
        { label: "devices", color: "var(--accent)", values: samples.map((s) => s.connections) },
        { label: "users", color: "var(--blue)", values: samples.map((s) => s.users) },
      ]} />
      <Plot title="Delivery probe" note="A message through Redis and back, in ms: the slowest instance's." times={times} lines={[
        { label: "ms", color: "var(--good)", values: probes },
      ]} />
      <Plot title="Sent" note="kB each second." times={times} lines={[
        { label: "kB", color: "var(--warn)", values: rates("sentBytes").map((v) => v === null ? null : v / 1000) },
      ]} />
      <Workers instances={instances} />
      <Reasons title="Why connections ended" counters={merged(stats, (s) => s.statistics.closes)} drop={/^closed_/} none="None has ended." />
      <Reasons title="Not delivered as it came" counters={drops(stats)} drop={/^messages_/} none="Everything was delivered as it came." />
      <Explain token={token} />
    </main>
  );
}

function Figures(props: { stats: Stats[]; probes: number[]; newest: Sample | undefined }) {
  const { stats, probes, newest } = props;
  const p50 = quantile(probes, 0.5);
  const p99 = quantile(probes, 0.99);
  const ms = (value: number | null) => (value === null ? "–" : `${value.toFixed(1)} ms`);
  const figures: [string, string][] = [
    ["devices", (newest?.connections ?? 0).toLocaleString("en")],
    ["users", (newest?.users ?? 0).toLocaleString("en")],
    ["slow readers", String(sum(stats, (s) => s.statistics.messages.devices_lagging))],
    ["delivery probe, 50 %", ms(p50)],
    ["delivery probe, 99 %", ms(p99)],
    ["workers that died", String(sum(stats, (s) => s.workers.reduce((n, w) => n + w.restarts, 0)))],
    ["generation", [...new Set(stats.flatMap((s) => s.workers.map((w) => w.generation)))].join(", ")],
  ];
  return (
    <dl className="figures">
      {figures.map(([name, value]) => (
        <div key={name} className="figure"><dt>{name}</dt><dd>{value}</dd></div>
      ))}
    </dl>
  );
}

function merged(stats: Stats[], pick: (stats: Stats) => Counters): Counters {
  const all: Counters = {};
  for (const one of stats)
    for (const [name, value] of Object.entries(pick(one))) all[name] = (all[name] ?? 0) + value;
  return all;
}

const DROPS = [
  "messages_invalid_json", "messages_invalid_utf8", "messages_not_object", "messages_duplicate",
  "messages_conflated", "messages_dropped_slow", "deliveries_filtered", "lag_replays_unrecovered",
  "repairs_unrecovered", "attaches_unrecovered", "stored_invalid",
];

function drops(stats: Stats[]): Counters {
  const all = merged(stats, (s) => s.statistics.messages);
  return Object.fromEntries(DROPS.map((name) => [name, all[name] ?? 0]));
}
