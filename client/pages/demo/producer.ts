// The backend of this page: writes events over the gateway's HTTP endpoint, numbers them, and keeps
// account of which came back.

import { create } from "zustand";
import { client, token } from "./belfry.js";
import type { Event } from "./world.js";

interface Ledger {
  sent: number;
  received: number;
  twice: number;
  /** Sent and not yet here, by number, with the time. */
  missing: Map<number, number>;
  /** ms from the request to the arrival, of the last ones. */
  latencies: number[];
}

export const useLedger = create<Ledger>()(() => ({
  sent: 0,
  received: 0,
  twice: 0,
  missing: new Map(),
  latencies: [],
}));

let number = 0;
const run = crypto.randomUUID().slice(0, 8);
const arrived = new Set<number>();
/** Written or not: the answer was lost. Those that arrive were. */
const unsure = new Set<number>();
const startedAt = new Map<number, number>();

client.on("message", (message) => {
  const { demo_run, demo_number } = message.payload as { demo_run?: string; demo_number?: number };
  if (demo_run !== run || typeof demo_number !== "number") return;
  useLedger.setState((ledger) => {
    if (arrived.has(demo_number)) return { twice: ledger.twice + 1 };
    arrived.add(demo_number);
    const missing = new Map(ledger.missing);
    missing.delete(demo_number);
    const took = performance.now() - (startedAt.get(demo_number) ?? performance.now());
    startedAt.delete(demo_number);
    return {
      missing,
      sent: ledger.sent + (unsure.delete(demo_number) ? 1 : 0),
      received: ledger.received + 1,
      latencies: [...ledger.latencies.slice(-59), took],
    };
  });
});

const userId = (): string => {
  try {
    return String((JSON.parse(atob(token.split(".")[1] ?? "")) as { sub?: unknown }).sub ?? "demo");
  } catch {
    return "demo";
  }
};

const queue: Event[] = [];
let isBusy = false;

export function emit(events: readonly Event[]): void {
  queue.push(...events);
  if (queue.length > 200) queue.splice(0, queue.length - 200);
  void drain();
}

async function drain(): Promise<void> {
  if (isBusy) return;
  isBusy = true;
  for (let event = queue.shift(); event; event = queue.shift()) await write(event);
  isBusy = false;
}

async function write({ type, payload }: Event): Promise<void> {
  // The snapshot is overwritten by the next one: it promises less, and is not counted.
  const isCounted = type !== "DASHBOARD_UPDATE";
  const own = isCounted ? ++number : 0;
  const body = isCounted ? { ...payload, demo_run: run, demo_number: own } : payload;
  if (isCounted) startedAt.set(own, performance.now());
  for (let attempt = 0; attempt < 40; attempt++) {
    let status = 0;
    try {
      const path = `/ws/test-message/${encodeURIComponent(userId())}?message_type=${type}`;
      const answer = await fetch(path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      });
      status = answer.status;
    } catch {
      if (arrived.has(own)) count(own);
      else if (isCounted) unsure.add(own);
      return;
    }
    if (status === 200) {
      if (isCounted) count(own);
      return;
    }
    // 404: the user is connected nowhere at the moment. 503: it is being restarted.
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function count(own: number): void {
  useLedger.setState((ledger) => {
    if (arrived.has(own)) return { sent: ledger.sent + 1 };
    return { sent: ledger.sent + 1, missing: new Map(ledger.missing).set(own, Date.now()) };
  });
}
