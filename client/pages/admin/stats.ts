// What GET /ws/stats tells, asked again and again: the present, and what happened in between.

export type Counters = Record<string, number>;

export interface Row {
  slot: number;
  pid: number;
  generation: number;
  state: string;
  restarts: number;
  active_connections: number;
  connected_users: number;
  uptime_seconds: number;
  messages: Counters;
  redis: Counters;
  turns: Counters;
  latency: Counters;
}

export interface Stats {
  statistics: {
    active_connections: number;
    connected_users: number;
    uptime_seconds: number;
    messages: Counters;
    client: Counters;
    closes: Counters;
    latency: Counters;
    redis_stats: Record<string, number | string | null>;
  };
  workers: Row[];
  manager_info: {
    instance_id: string;
    generation: number;
    last_reload: { ok: boolean; at: string; message: string } | null;
  };
}

export interface Instance {
  id: string;
  stats: Stats;
}

/** One instance between two answers, or several together. Null: there is no answer before it. */
export interface Point {
  connections: number;
  users: number;
  received: number | null; // a second
  delivered: number | null;
  sentBytes: number | null;
  latency: Counters; // what was delivered in between
  probeMs: number;
}

/** All points of one time. */
export interface Moment {
  at: number; // ms
  points: Map<string, Point>;
}

const FRESH = 15_000;
const SHOWN = 60_000;

const zero: Point = {
  connections: 0, users: 0, received: null, delivered: null, sentBytes: null, latency: {}, probeMs: 0,
};

const plus = (a: number | null, b: number | null) => (a === null ? b : b === null ? a : a + b);

export function added(a: Counters, b: Counters): Counters {
  const all = { ...a };
  for (const [name, value] of Object.entries(b)) all[name] = (all[name] ?? 0) + value;
  return all;
}

/** Several instances as one. */
export function together(points: Iterable<Point>): Point {
  let all = zero;
  for (const p of points)
    all = {
      connections: all.connections + p.connections,
      users: all.users + p.users,
      received: plus(all.received, p.received),
      delivered: plus(all.delivered, p.delivered),
      sentBytes: plus(all.sentBytes, p.sentBytes),
      latency: added(all.latency, p.latency),
      probeMs: Math.max(all.probeMs, p.probeMs),
    };
  return all;
}

function pointOf(stats: Stats, before: Stats | null, seconds: number): Point {
  const now = stats.statistics;
  const old = before?.statistics;
  // Totals never go back; were they to, another one has taken the instance's name.
  const rate = (value: number | undefined, was: number | undefined) =>
    old && seconds > 0 && (value ?? 0) >= (was ?? 0) ? ((value ?? 0) - (was ?? 0)) / seconds : null;
  const latency = Object.fromEntries(
    Object.entries(now.latency ?? {}).map(([name, n]) => [name, old ? Math.max(0, n - (old.latency?.[name] ?? 0)) : 0]),
  );
  return {
    connections: now.active_connections,
    users: now.connected_users,
    received: rate(now.messages.messages_received, old?.messages.messages_received),
    delivered: rate(now.messages.deliveries, old?.messages.deliveries),
    sentBytes: rate(now.client.sent_bytes, old?.client.sent_bytes),
    latency,
    probeMs: Number(now.redis_stats.redis_delivery_probe_us ?? 0) / 1000,
  };
}

/** What each instance said last, and what came of it. A load balancer chooses who answers. */
export class Instances {
  readonly #known = new Map<string, { at: number; stats: Stats; point: Point; isNew: boolean }>();

  add(stats: Stats, at: number): void {
    const id = stats.manager_info.instance_id;
    const before = this.#known.get(id);
    // Two answers within a moment say nothing about rates.
    if (before && at - before.at < 500) return;
    const point = pointOf(stats, before?.stats ?? null, before ? (at - before.at) / 1000 : 0);
    this.#known.set(id, { at, stats, point, isNew: true });
  }

  /** Those that were heard in the last minute. */
  all(now: number): Instance[] {
    for (const [id, one] of this.#known) if (now - one.at > SHOWN) this.#known.delete(id);
    return [...this.#known].map(([id, { stats }]) => ({ id, stats })).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** All of now. What was delivered counts once, when it was heard; the rest holds until the next answer. */
  moment(at: number): Moment {
    const points = new Map<string, Point>();
    for (const [id, one] of this.#known) {
      if (at - one.at >= FRESH) continue;
      points.set(id, one.isNew ? one.point : { ...one.point, latency: {} });
      one.isNew = false;
    }
    return { at, points };
  }

  clear(): void {
    this.#known.clear();
  }
}

/** One instance's point in a moment, or that of all; null: it was not heard. */
export function seen(moment: Moment, id: string | null): Point | null {
  if (id !== null) return moment.points.get(id) ?? null;
  return moment.points.size > 0 ? together(moment.points.values()) : null;
}

export const sum = (all: readonly Instance[], pick: (stats: Stats) => number | undefined) =>
  all.reduce((total, one) => total + (pick(one.stats) ?? 0), 0);

/** Two of each worker that serves: to hear messages, and to ask. */
export function redisLinks(all: readonly Instance[]): { up: number; of: number } {
  const ready = all.flatMap((one) => one.stats.workers).filter((w) => w.state === "ready");
  return { up: ready.reduce((n, w) => n + linksUp(w), 0), of: 2 * ready.length };
}

export const linksUp = ({ redis }: Row) => (redis.redis_subscriber_up ?? 0) + (redis.redis_command_up ?? 0);

const UNITS: Record<string, number> = { us: 0.001, ms: 1 };

/** A histogram's rows, "delivered_in_50us" or "loop_turns_to_5ms": bounds in ms, null for the last. */
function buckets(counters: Counters): { bound: number | null; count: number }[] {
  return Object.entries(counters)
    .map(([name, count]) => {
      const found = /_(\d+)(us|ms)$/.exec(name);
      return { bound: found ? Number(found[1]) * (UNITS[found[2] as string] as number) : null, count };
    })
    .sort((a, b) => (a.bound ?? Infinity) - (b.bound ?? Infinity));
}

/** How long this share of all took at most, in ms, as if they lay evenly between the bounds. */
export function quantile(counters: Counters, share: number): number | null {
  const rows = buckets(counters);
  const wanted = rows.reduce((n, row) => n + row.count, 0) * share;
  if (wanted === 0) return null;
  let below = 0;
  let from = 0;
  for (const { bound, count } of rows) {
    if (bound === null) return from;
    if (count > 0 && below + count >= wanted) return from + ((bound - from) * (wanted - below)) / count;
    below += count;
    from = bound;
  }
  return from;
}

/** Those that are not zero, largest first, names in words. */
export function named(counters: Counters, drop: RegExp): [string, number][] {
  return Object.entries(counters)
    .filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => [name.replace(drop, "").replaceAll("_", " "), count]);
}

export class Refused extends Error {}

/** Throws Refused, with the server's words, where the token is not an administrator's. */
export async function ask(path: string, token: string, signal: AbortSignal): Promise<unknown> {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal });
  if (answer.ok) return answer.json();
  const body = (await answer.json().catch(() => null)) as { message?: string } | null;
  const text = body?.message ?? `the server answered ${answer.status}`;
  throw answer.status === 401 || answer.status === 403 ? new Refused(text) : new Error(text);
}
