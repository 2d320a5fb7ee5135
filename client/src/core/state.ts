// What a client says of its connection.

import { CLOSES, type Advice } from "./tables.js";

export type Status = "disconnected" | "connecting" | "connected";

export interface ConnectionError {
  /** Close code; 0 when there was no close frame. */
  code: number;
  reason: string;
  /** What the client does about it. */
  advice: Advice;
  /** When, in ms since 1970. */
  at: number;
}

/** Never changed in place: a new object each time. */
export interface ClientState {
  readonly status: Status;
  /** Tries since the connection was lost. */
  readonly attempts: number;
  /** When the next try is due, in ms since 1970. */
  readonly retryAt: number | null;
  /** Why the connection was lost; null while it is up. */
  readonly lastError: ConnectionError | null;
  /** As the server calls it in its log. */
  readonly connectionId: string | null;
  /** Whose socket: this tab's alone, this tab's for all, or another tab's. */
  readonly role: "alone" | "leader" | "follower";
}

export const INITIAL: ClientState = {
  status: "disconnected",
  attempts: 0,
  retryAt: null,
  lastError: null,
  connectionId: null,
  role: "alone",
};

export function errorOf(code: number, reason: string, advice: Advice): ConnectionError {
  return { code, reason: reason || CLOSES[code]?.reason || "connection lost", advice, at: Date.now() };
}
