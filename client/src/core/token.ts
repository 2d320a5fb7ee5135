// Tokens: whose, until when, and where from. Nothing is verified here: that is the server's.

import { isRecord } from "./protocol.js";

export interface TokenRequest {
  /** The last token was refused, or ends soon: one from a cache will not do. */
  fresh: boolean;
}

/** Gives a token; null when nobody is signed in. */
export type GetToken = (request: TokenRequest) => string | null | Promise<string | null>;

/** The claims of a JSON Web Token; null when it is something else. */
export function readClaims(token: string): Record<string, unknown> | null {
  const part = token.split(".")[1];
  if (!part) return null;
  try {
    const bytes = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
    const text = decodeURIComponent(
      Array.from(bytes, (c) => "%" + c.charCodeAt(0).toString(16).padStart(2, "0")).join(""),
    );
    const claims: unknown = JSON.parse(text);
    return isRecord(claims) ? claims : null;
  } catch {
    return null;
  }
}

/** The default of the option userOf: the claim `sub`. */
export function subjectOf(token: string): string | null {
  const subject = readClaims(token)?.sub;
  return typeof subject === "string" || typeof subject === "number" ? String(subject) : null;
}

/**
 * When to ask for the next token, in ms from now: a quarter of what is left before the end, at most
 * a minute, and a little earlier by chance.
 */
export function refreshDelay(remaining: number): number {
  const lead = Math.min(60_000, remaining / 4);
  return Math.max(0, remaining - lead * (1 + Math.random() * 0.5));
}

const PATIENCE = 30_000;
const KEPT_FOR = 5_000;

/** Asks for tokens, one question at a time, and gives up on one that is never answered. */
export class TokenSource {
  #last: string | null = null;
  #kept: { token: string; at: number } | null = null;

  constructor(readonly getToken: GetToken) {}

  /** What was given last. */
  get last(): string | null {
    return this.#last;
  }

  /** The same, for who only wants to read it: the next `get` will find it, if that comes soon. */
  async peek(): Promise<string | null> {
    const token = await this.get(false);
    if (token !== null) this.#kept = { token, at: Date.now() };
    return token;
  }

  async get(fresh: boolean): Promise<string | null> {
    const kept = this.#kept;
    this.#kept = null;
    if (kept && !fresh && Date.now() - kept.at < KEPT_FOR) return kept.token;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("getToken did not answer")), PATIENCE);
    });
    try {
      const token = await Promise.race([this.getToken({ fresh }), late]);
      this.#last = token || null;
      return this.#last;
    } finally {
      clearTimeout(timer);
    }
  }
}
