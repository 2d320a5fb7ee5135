// The badge: connected or not, why not, and when the next try is.

import { useEffect, useState } from "react";
import type { ClientState } from "belfry-client";
import { useWebSocket } from "belfry-client/react";
import { client } from "../belfry.js";

function useSecondsUntil(time: number | null): number | null {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (time === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 200);
    return () => clearInterval(timer);
  }, [time]);
  return time === null ? null : Math.max(0, Math.ceil((time - now) / 1000));
}

const ROLES = {
  alone: "a socket of this tab",
  leader: "one socket for all tabs, held by this one",
  follower: "one socket for all tabs, held by another",
};

function reasonOf({ lastError }: ClientState): string {
  if (!lastError) return "";
  return lastError.code ? `${lastError.reason} (${lastError.code})` : lastError.reason;
}

export function ConnectionBadge() {
  const { connectionState: state } = useWebSocket();
  const seconds = useSecondsUntil(state.retryAt);
  const reason = reasonOf(state);
  const title = state.status === "connected" ? "Live" : state.status === "connecting" ? "Reconnecting" : "Offline";
  const first = state.status === "connecting" && !state.lastError;
  return (
    <div className={`badge ${state.status}`}>
      <span className="dot" aria-hidden="true" />
      <div className="badge-text">
        <strong role="status">{first ? "Connecting" : title}</strong>
        <span className="badge-detail">
          {state.status === "connected" && ROLES[state.role]}
          {state.status !== "connected" && reason}
          {seconds !== null && reason && ` · next try in ${seconds} s`}
          {state.status === "connecting" && state.retryAt === null && reason && " · trying now"}
        </span>
      </div>
      {(state.retryAt !== null || state.status === "disconnected") && (
        <button type="button" className="small" onClick={() => client.connect()}>
          Connect now
        </button>
      )}
    </div>
  );
}
