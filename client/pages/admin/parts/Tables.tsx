import type { ReactNode } from "react";
import { Card } from "../../shared/Card.js";
import { count, duration, ms, shortId, shortTime } from "../format.js";
import { linksUp, named, quantile, redisLinks, type Counters, type Instance } from "../stats.js";

/** Columns of text are to the left, of numbers to the right. */
interface Column<T> {
  name: string;
  cell: (row: T) => ReactNode;
  isText?: boolean;
}

function Table<T>(props: { title: string; columns: Column<T>[]; rows: T[]; keyOf: (row: T) => string }) {
  const side = (column: Column<T>) => (column.isText ? "text" : undefined);
  return (
    <Card title={props.title} className="wide">
      <div className="scroll" tabIndex={0} role="region" aria-label={`Table of ${props.title.toLowerCase()}`}>
        <table>
          <thead>
            <tr>{props.columns.map((c) => <th key={c.name} scope="col" className={side(c)}>{c.name}</th>)}</tr>
          </thead>
          <tbody>
            {props.rows.map((row) => (
              <tr key={props.keyOf(row)}>
                {props.columns.map((c) => <td key={c.name} className={side(c)}>{c.cell(row)}</td>)}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

function Up({ up, of }: { up: number; of: number }) {
  return <span className={`state ${up === of ? "ready" : "bad"}`}>{up} of {of}</span>;
}

function LastReload({ stats }: Instance) {
  const reload = stats.manager_info.last_reload;
  if (reload === null) return <>none yet</>;
  return (
    <>
      <span className={`state ${reload.ok ? "ready" : "bad"}`}>{reload.ok ? "done" : "refused"}</span>{" "}
      {shortTime(reload.at)}
      {reload.message && <span className="said">{reload.message}</span>}
    </>
  );
}

export function Instances({ instances }: { instances: Instance[] }) {
  const redis = (one: Instance) => one.stats.statistics.redis_stats;
  return (
    <Table
      title="Instances"
      rows={instances}
      keyOf={(one) => one.id}
      columns={[
        { name: "instance", isText: true, cell: (one) => <code title={one.id}>{shortId(one.id)}</code> },
        { name: "up", cell: (one) => duration(one.stats.statistics.uptime_seconds) },
        { name: "generation", cell: (one) => one.stats.manager_info.generation },
        { name: "workers", cell: (one) => redisLinks([one]).of / 2 },
        { name: "connections", cell: (one) => count(one.stats.statistics.active_connections) },
        { name: "delivery p50", cell: (one) => ms(quantile(one.stats.statistics.latency, 0.5)) },
        { name: "p99", cell: (one) => ms(quantile(one.stats.statistics.latency, 0.99)) },
        { name: "Redis links", cell: (one) => <Up {...redisLinks([one])} /> },
        { name: "links lost", cell: (one) => count(Number(redis(one).redis_disconnects ?? 0)) },
        { name: "Redis", isText: true, cell: (one) => redis(one).redis_version ?? "no answer" },
        { name: "last reload", isText: true, cell: LastReload },
      ]}
    />
  );
}

export function Workers({ instances }: { instances: Instance[] }) {
  const rows = instances.flatMap(({ id, stats }) => stats.workers.map((worker) => ({ id, ...worker })));
  type Row = (typeof rows)[number];
  const columns: Column<Row>[] = [
    { name: "instance", isText: true, cell: (w) => <code>{shortId(w.id)}</code> },
    { name: "slot", cell: (w) => w.slot },
    { name: "pid", cell: (w) => w.pid },
    { name: "generation", cell: (w) => w.generation },
    { name: "state", isText: true, cell: (w) => <span className={`state ${w.state}`}>{w.state}</span> },
    { name: "up", cell: (w) => duration(w.uptime_seconds) },
    { name: "died", cell: (w) => w.restarts },
    { name: "connections", cell: (w) => count(w.active_connections) },
    { name: "users", cell: (w) => count(w.connected_users) },
    { name: "in", cell: (w) => count(w.messages.messages_received) },
    { name: "out", cell: (w) => count(w.messages.deliveries) },
    { name: "delivery p99", cell: (w) => ms(quantile(w.latency, 0.99)) },
    { name: "slow now", cell: (w) => count(w.messages.devices_lagging) },
    { name: "Redis links", cell: (w) => <Up up={linksUp(w)} of={2} /> },
    { name: "probe", cell: (w) => ms((w.redis.redis_delivery_probe_us ?? 0) / 1000) },
    { name: "turns p99", cell: (w) => ms(quantile(w.turns, 0.99)) },
  ];
  const isAlone = instances.length === 1;
  return <Table title="Workers" rows={rows} keyOf={(w) => `${w.id}-${w.slot}`} columns={isAlone ? columns.slice(1) : columns} />;
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
