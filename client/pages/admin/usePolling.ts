// Asks every two seconds, keeps ten minutes.

import { useEffect, useRef, useState } from "react";
import { Instances, Refused, ask, sampleOf, type Sample, type Stats } from "./stats.js";

const INTERVAL = 2_000;
const KEPT = 300;

export interface Polled {
  instances: { id: string; stats: Stats }[];
  samples: Sample[];
  error: string | null;
  isRefused: boolean;
}

const NOTHING: Polled = { instances: [], samples: [], error: null, isRefused: false };

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
      try {
        const stats = await ask(token, AbortSignal.any([ended.signal, AbortSignal.timeout(10_000)]));
        const at = Date.now();
        instances.current.add(stats, at);
        const all = instances.current.all;
        const sample = sampleOf(all.map((one) => one.stats), at);
        setPolled((before) => ({
          instances: all,
          samples: [...before.samples, sample].slice(-KEPT),
          error: null,
          isRefused: false,
        }));
      } catch (error) {
        if (ended.signal.aborted) return;
        const text = error instanceof Error ? error.message : String(error);
        setPolled((before) => ({ ...before, error: text, isRefused: error instanceof Refused }));
        if (error instanceof Refused) return;
      }
      timer = setTimeout(() => void turn(), INTERVAL);
    };
    void turn();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [token]);
  return polled;
}
