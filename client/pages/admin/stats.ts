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
}

export interface Stats {
  statistics: {
    active_connections: number;
    connected_users: number;
    total_connections_since_start: number;
    uptime_seconds: number;
    messages: Counters;
    connections: Counters;
    client: Counters;
    process: Counters;
    turns: Counters;
    closes: Counters;
    redis_stats: Record<string, number | string | null>;
  };
  workers: Row[];
  manager_info: { instance_id?: string };
}

/** One answer, or the sum over instances. */
export interface Sample {
  at: number; // ms
  connections: number;
  users: number;
  received: number;
  delivered: number;
  sentBytes: number;
  probeMs: number;
}

/** The newest answer of each instance that was heard in the last minute. */
export class Instances {
  readonly #newest = new Map<string, { at: number; stats: Stats }>();

  add(stats: Stats, at: number): void {
    this.#newest.set(stats.manager_info.instance_id ?? "", { at, stats });
    for (const [id, one] of this.#newest) if (at - one.at > 60_000) this.#newest.delete(id);
  }

  get all(): { id: string; stats: Stats }[] {
    return [...this.#newest].map(([id, { stats }]) => ({ id, stats })).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  clear(): void {
    this.#newest.clear();
  }
}

export const sum = (all: readonly Stats[], pick: (stats: Stats) => number | undefined) =>
  all.reduce((total, stats) => total + (pick(stats) ?? 0), 0);

export function sampleOf(all: readonly Stats[], at: number): Sample {
  const s = (pick: (of: Stats["statistics"]) => number | undefined) => sum(all, (x) => pick(x.statistics));
  return {
    at,
    connections: s((x) => x.active_connections),
    users: s((x) => x.connected_users),
    received: s((x) => x.messages.messages_received),
    delivered: s((x) => x.messages.deliveries),
    sentBytes: s((x) => x.client.sent_bytes),
    probeMs: Math.max(0, ...all.map((x) => Number(x.statistics.redis_stats.redis_delivery_probe_us ?? 0) / 1000)),
  };
}

/** Per second between two samples; null where the total went back: another set of instances. */
export function rate(before: Sample, after: Sample, name: "received" | "delivered" | "sentBytes"): number | null {
  const seconds = (after.at - before.at) / 1000;
  const grown = after[name] - before[name];
  return seconds > 0 && grown >= 0 ? grown / seconds : null;
}

/** Of the buckets "loop_turns_to_5ms": the bound below which the share of all turns lies, in ms. */
export function turnQuantile(turns: Counters, share: number): string {
  const buckets = Object.entries(turns).map(([name, count]) => ({
    bound: /to_(\d+)ms/.exec(name)?.[1] ?? null,
    count,
  }));
  const all = buckets.reduce((n, b) => n + b.count, 0);
  if (all === 0) return "–";
  let seen = 0;
  for (const { bound, count } of buckets) {
    seen += count;
    if (seen >= all * share) return bound === null ? "> 1000 ms" : `≤ ${bound} ms`;
  }
  return "–";
}

export function quantile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
}

/** Those that are not zero, largest first, names in words. */
export function named(counters: Counters, drop: RegExp): [string, number][] {
  return Object.entries(counters)
    .filter(([, count]) => count > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => [name.replace(drop, "").replaceAll("_", " "), count]);
}

export class Refused extends Error {}

export async function ask(token: string, signal: AbortSignal): Promise<Stats> {
  const answer = await fetch("/ws/stats", {
    headers: { Authorization: `Bearer ${token}` },
    cache: "no-store",
    signal,
  });
  if (answer.status === 401 || answer.status === 403) {
    const body = (await answer.json().catch(() => null)) as { message?: string } | null;
    throw new Refused(body?.message ?? `refused (${answer.status})`);
  }
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return (await answer.json()) as Stats;
}
