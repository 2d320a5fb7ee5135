import type { ReactNode } from "react";
import { named, turnQuantile, type Counters, type Stats } from "../stats.js";

export function Card(props: { title: string; children: ReactNode; className?: string }) {
  return (
    <section className={`card ${props.className ?? ""}`} aria-label={props.title}>
      <header className="card-head"><h2>{props.title}</h2></header>
      {props.children}
    </section>
  );
}

const count = (n: number | undefined) => (n ?? 0).toLocaleString("en");

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

export function Workers({ instances }: { instances: { id: string; stats: Stats }[] }) {
  return (
    <Card title="Workers" className="wide">
      <div className="scroll" tabIndex={0} role="region" aria-label="Table of workers">
        <table>
          <thead>
            <tr>
              <th scope="col">instance</th><th scope="col">slot</th><th scope="col">pid</th>
              <th scope="col">generation</th><th scope="col">state</th><th scope="col">up</th>
              <th scope="col">died</th><th scope="col">connections</th><th scope="col">users</th>
              <th scope="col">received</th><th scope="col">delivered</th><th scope="col">slow now</th>
              <th scope="col">Redis links</th><th scope="col">probe</th><th scope="col">turns, 99 %</th>
            </tr>
          </thead>
          <tbody>
            {instances.flatMap(({ id, stats }) =>
              stats.workers.map((w) => (
                <tr key={`${id}-${w.slot}`}>
                  <td><code>{id.slice(-6) || "–"}</code></td><td>{w.slot}</td><td>{w.pid}</td>
                  <td>{w.generation}</td>
                  <td><span className={`state ${w.state}`}>{w.state}</span></td>
                  <td>{duration(w.uptime_seconds)}</td><td>{w.restarts}</td>
                  <td>{count(w.active_connections)}</td><td>{count(w.connected_users)}</td>
                  <td>{count(w.messages.messages_received)}</td><td>{count(w.messages.deliveries)}</td>
                  <td>{count(w.messages.devices_lagging)}</td>
                  <td>{(w.redis.redis_subscriber_up ?? 0) + (w.redis.redis_command_up ?? 0)} of 2</td>
                  <td>{((w.redis.redis_delivery_probe_us ?? 0) / 1000).toFixed(1)} ms</td>
                  <td>{turnQuantile(w.turns, 0.99)}</td>
                </tr>
              )),
            )}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

export function Reasons(props: { title: string; counters: Counters; drop: RegExp; none: string }) {
  const rows = named(props.counters, props.drop);
  const most = Math.max(1, ...rows.map(([, n]) => n));
  return (
    <Card title={props.title}>
      {rows.length === 0 && <p className="empty">{props.none}</p>}
      <ul className="reasons">
        {rows.map(([name, n]) => (
          <li key={name}>
            <span>{name}</span>
            <span className="track" aria-hidden="true"><i style={{ width: `${(n / most) * 100}%` }} /></span>
            <b>{count(n)}</b>
          </li>
        ))}
      </ul>
    </Card>
  );
}
