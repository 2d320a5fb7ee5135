import { useState } from "react";
import { Brand } from "../shared/Brand.js";
import { ThemeSwitch } from "../shared/Theme.js";
import { TokenForm } from "../shared/TokenForm.js";
import { keptToken } from "../shared/token.js";
import { shortId } from "./format.js";
import { Explain } from "./parts/Explain.js";
import { Figures } from "./parts/Figures.js";
import { Plot } from "./parts/Plot.js";
import { Instances, Reasons, Workers } from "./parts/Tables.js";
import { added, quantile, redisLinks, seen, type Counters, type Instance, type Point, type Stats } from "./stats.js";
import { usePolling, type Polled } from "./usePolling.js";

const kept = keptToken("belfry-admin-token");

export function App() {
  const [token, setToken] = useState<string | null>(kept.read);
  const polled = usePolling(token);
  const use = (next: string | null) => {
    kept.keep(next);
    setToken(next);
  };
  const isAsking = token === null || polled.isRefused;
  return (
    <div className="page">
      <header className="top">
        <Brand name="Belfry">What the gateway is doing.</Brand>
        {!isAsking && <State polled={polled} />}
        <ThemeSwitch />
        {token !== null && <button type="button" className="small" onClick={() => use(null)}>Forget the token</button>}
      </header>
      {isAsking && (
        <TokenForm
          label="An administrator's token"
          note={<><code>belfryctl token --user you --admin</code> makes one.</>}
          error={polled.isRefused ? polled.error : null}
          use={use}
        />
      )}
      {!isAsking && polled.instances.length > 0 && <Overview polled={polled} token={token} />}
    </div>
  );
}

function State({ polled: { instances, error } }: { polled: Polled }) {
  const { up, of } = redisLinks(instances);
  const isBad = error !== null || up < of;
  const count = instances.length === 1 ? "1 instance" : `${instances.length} instances`;
  return (
    <p className={`state-line ${isBad ? "bad" : "good"}`} role="status">
      {error ?? (instances.length === 0 ? "Asking" : `${count}, ${of / 2} workers ready, ${up} of ${of} links to Redis`)}
    </p>
  );
}

/** What is shown: all instances, or one. */
function Choice(props: { instances: Instance[]; chosen: string | null; choose: (id: string | null) => void }) {
  return (
    <label className="choice">
      Show{" "}
      <select value={props.chosen ?? ""} onChange={(event) => props.choose(event.target.value || null)}>
        <option value="">all {props.instances.length} instances</option>
        {props.instances.map(({ id }) => <option key={id} value={id}>instance {shortId(id)}</option>)}
      </select>
    </label>
  );
}

function Overview({ polled: { instances, moments }, token }: { polled: Polled; token: string }) {
  const [wanted, choose] = useState<string | null>(null);
  const chosen = instances.some((one) => one.id === wanted) ? wanted : null;
  const shown = chosen === null ? instances : instances.filter((one) => one.id === chosen);
  const points = moments.map((moment) => seen(moment, chosen));
  const times = moments.map((moment) => moment.at / 1000);
  const line = (pick: (point: Point) => number | null) => points.map((point) => point && pick(point));
  return (
    <main className="grid">
      {instances.length > 1 && <Choice instances={instances} chosen={chosen} choose={choose} />}
      <Figures instances={shown} points={points} />
      <Plot title="Messages" note="Each second: in from Redis, out to devices." times={times} lines={[
        { label: "in", color: "var(--blue)", values: line((p) => p.received) },
        { label: "out", color: "var(--accent)", values: line((p) => p.delivered) },
      ]} />
      <Plot title="Delivery" note="Milliseconds from Redis to the device's socket: half of all deliveries, and 99 of 100, were as quick." times={times} lines={[
        { label: "p50", color: "var(--good)", values: line((p) => quantile(p.latency, 0.5)) },
        { label: "p99", color: "var(--warn)", values: line((p) => quantile(p.latency, 0.99)) },
      ]} />
      <Plot title="Connections" note={instances.length > 1 ? "Devices, and their users; who is at two instances counts twice." : "Devices, and the users they belong to."} times={times} lines={[
        { label: "devices", color: "var(--accent)", values: line((p) => p.connections) },
        { label: "users", color: "var(--blue)", values: line((p) => p.users) },
      ]} />
      <Plot title="Redis and the wire" note="A probe's way through Redis and back in ms, the slowest worker's; kB sent each second." times={times} lines={[
        { label: "probe ms", color: "var(--good)", values: line((p) => p.probeMs) },
        { label: "sent kB", color: "var(--blue)", values: line((p) => (p.sentBytes === null ? null : p.sentBytes / 1000)) },
      ]} />
      <Instances instances={shown} />
      <Workers instances={shown} />
      <Reasons title="Why connections ended" counters={merged(shown, (s) => s.statistics.closes)} drop={/^closed_/} none="None has ended." />
      <Reasons title="Not delivered as it came" counters={drops(shown)} drop={/^messages_/} none="Everything was delivered as it came." />
      <Explain token={token} />
    </main>
  );
}

function merged(instances: Instance[], pick: (stats: Stats) => Counters): Counters {
  return instances.reduce<Counters>((all, one) => added(all, pick(one.stats)), {});
}

const DROPS = [
  "messages_invalid_json", "messages_invalid_utf8", "messages_not_object", "messages_too_big", "messages_duplicate",
  "messages_conflated", "messages_dropped_slow", "deliveries_filtered", "lag_replays_unrecovered",
  "repairs_unrecovered", "attaches_unrecovered", "stored_invalid", "stored_too_big", "readings_cut",
];

function drops(instances: Instance[]): Counters {
  const all = merged(instances, (s) => s.statistics.messages);
  return Object.fromEntries(DROPS.map((name) => [name, all[name] ?? 0]));
}
