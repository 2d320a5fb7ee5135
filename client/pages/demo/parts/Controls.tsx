// What a visitor can do: let things happen, and break things.

import { useEffect, useState } from "react";
import { useRealtimeStore } from "belfry-client/store";
import { break_, isDev, network } from "../belfry.js";
import { emit, useLedger } from "../producer.js";
import { SINGLE, earn, save, spend } from "../world.js";
import { Card } from "../../shared/Card.js";

export function EventButtons() {
  const [isFlowing, setFlowing] = useState(true);
  useEffect(() => {
    if (!isFlowing) return;
    const timer = setInterval(() => {
      const chance = Math.random();
      emit(chance < 0.8 ? spend() : chance < 0.92 ? save() : earn());
    }, 2_500);
    return () => clearInterval(timer);
  }, [isFlowing]);
  return (
    <Card
      title="Let it happen"
      aside={
        <label className="switch">
          <input type="checkbox" role="switch" checked={isFlowing} onChange={(e) => setFlowing(e.target.checked)} />
          Keep going by itself
        </label>
      }
    >
      <div className="buttons">
        {Object.entries(SINGLE).map(([name, make]) => (
          <button
            key={name}
            type="button"
            onClick={() => emit(make(useRealtimeStore.getState().recentTransactions[0]))}
          >
            {name}
          </button>
        ))}
      </div>
    </Card>
  );
}

const OFFLINE_S = 8;

/** What the server does to us when it runs for a first look. */
const WAYS = [
  ["connection", "Drop my connection"],
  ["token", "Expire my token"],
  ["worker", "Kill my worker"],
  ["account", "Throw me out"],
] as const;

function toButton([what, name]: (typeof WAYS)[number]) {
  return (
    <button key={what} type="button" onClick={() => break_(what)}>
      {name}
    </button>
  );
}

export function BreakThings() {
  const [left, setLeft] = useState(0);
  useEffect(() => {
    if (left === 0) return;
    const timer = setTimeout(() => {
      if (left === 1) network.up();
      setLeft(left - 1);
    }, 1_000);
    return () => clearTimeout(timer);
  }, [left]);
  const offline = () => {
    network.down();
    setLeft(OFFLINE_S);
  };
  return (
    <Card title="Break it">
      <div className="buttons break">
        {isDev && WAYS.slice(0, 1).map(toButton)}
        <button type="button" onClick={offline} disabled={left > 0}>
          {left > 0 ? `Offline for ${left} s` : `No network for ${OFFLINE_S} s`}
        </button>
        {isDev && WAYS.slice(1).map(toButton)}
      </div>
      <LedgerView />
    </Card>
  );
}

function LedgerView() {
  const { sent, received, twice, missing, latencies } = useLedger();
  const sorted = [...latencies].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  return (
    <dl className="ledger" aria-label="Events of this page">
      <div><dt>sent</dt><dd>{sent}</dd></div>
      <div><dt>arrived</dt><dd>{received}</dd></div>
      <div className={missing.size ? "waiting" : ""}><dt>pending</dt><dd>{missing.size}</dd></div>
      <div className={twice ? "wrong" : ""}><dt>twice</dt><dd>{twice}</dd></div>
      <div><dt>median</dt><dd>{median === undefined ? "–" : `${median < 10 ? median.toFixed(1) : Math.round(median)} ms`}</dd></div>
    </dl>
  );
}
