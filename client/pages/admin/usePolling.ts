// Asks every two seconds, keeps ten minutes.

import { useEffect, useRef, useState } from "react";
import { Instances, Refused, ask, type Instance, type Moment, type Stats } from "./stats.js";

const INTERVAL = 2_000;
const KEPT = 300;
const MOST = 8; // questions in a row

export interface Polled {
  instances: Instance[];
  moments: Moment[];
  error: string | null;
  isRefused: boolean;
}

const NOTHING: Polled = { instances: [], moments: [], error: null, isRefused: false };

/** Asks once for each instance that is known, and once more: behind a load balancer another one
 * may answer. Each on a connection of its own: some balancers choose but once for each. */
async function askAround(instances: Instances, token: string, signal: AbortSignal): Promise<void> {
  for (let i = 0; i <= Math.min(MOST, instances.all(Date.now()).length); i++) {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(10_000)]);
    const stats = (await ask("/ws/stats?close", token, limit)) as Stats;
    instances.add(stats, Date.now());
  }
}

export function usePolling(token: string | null): Polled {
  const [polled, setPolled] = useState<Polled>(NOTHING);
  const instances = useRef(new Instances());
  useEffect(() => {
    instances.current.clear();
    setPolled(NOTHING);
    if (token === null) return;
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const turn = async () => {
      let error: unknown = null;
      await askAround(instances.current, token, ended.signal).catch((reason: unknown) => (error = reason));
      if (ended.signal.aborted) return;
      const at = Date.now();
      const moment = instances.current.moment(at);
      setPolled((before) => ({
        instances: instances.current.all(at),
        moments: [...before.moments, moment].slice(-KEPT),
        error: error === null ? null : error instanceof Error ? error.message : String(error),
        isRefused: error instanceof Refused,
      }));
      if (!(error instanceof Refused)) timer = setTimeout(() => void turn(), INTERVAL);
    };
    void turn();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [token]);
  return polled;
}
