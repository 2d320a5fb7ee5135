// How long to wait before the next try. Pure, but for chance.

import { CLOSES, type Advice } from "./tables.js";

export interface BackoffOptions {
  /** Upper bound of the first wait, in ms; doubles from try to try. */
  base: number;
  /** Upper bound of every wait, in ms. */
  cap: number;
  /** After 1012 (restarting): clients come back spread over so many ms. */
  spread: number;
}

export const BACKOFF: BackoffOptions = { base: 500, cap: 30_000, spread: 10_000 };

/** Anything from zero to the bound: those who were cut off together do not come back together. */
export function fullJitter(failures: number, { base, cap }: BackoffOptions): number {
  return Math.random() * Math.min(cap, base * 2 ** Math.min(failures, 30));
}

function between(low: number, high: number): number {
  return low + Math.random() * (high - low);
}

/** Unknown codes, and a connection that was just gone (1005, 1006), are worth another try. */
export function adviceFor(code: number): Advice {
  return CLOSES[code]?.advice ?? "retry";
}

/** ms to wait; null: do not come back. failures: how many tries in a row came to nothing. */
export function delayFor(advice: Advice, failures: number, options: BackoffOptions): number | null {
  switch (advice) {
    case "stop":
      return null;
    case "spread":
      return between(0, options.spread) + (failures > 1 ? fullJitter(failures, options) : 0);
    case "later":
      return between(options.cap / 6, options.cap);
    case "limit":
      return between(options.cap, options.cap * 2);
    case "slow":
    case "fault":
      return options.cap / 6 + fullJitter(failures + 2, options);
    case "token":
      // A fresh token is asked for first; only one that is refused, too, makes us wait.
      return failures > 1 ? fullJitter(failures, options) : 0;
    case "retry":
      return fullJitter(failures, options);
  }
}

/** These waits are the server's wish: that somebody looks at the page does not cut them short. */
export function isPatient(advice: Advice): boolean {
  return ["later", "limit", "slow", "fault", "stop"].includes(advice);
}
