// One socket, and everything that brings it back: token, first frame, heartbeat, close codes, waits.
// Knows nothing of what the messages mean, nor of other tabs.

import { BACKOFF, adviceFor, delayFor, isPatient, type BackoffOptions } from "./backoff.js";
import { HEARTBEAT, Heartbeat, type HeartbeatOptions } from "./heartbeat.js";
import {
  SUBPROTOCOL,
  encodeCommand,
  isRecord,
  parseMessage,
  parseTime,
  type BelfryMessage,
} from "./protocol.js";
import { INITIAL, errorOf, type ClientState } from "./state.js";
import type { Advice } from "./tables.js";
import { readClaims, refreshDelay, type TokenSource } from "./token.js";

/** As much of the WebSocket interface as is used; that of browsers, of Node and of `ws` have it. */
export interface SocketLike {
  readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}
export type SocketConstructor = new (url: string, protocols?: string | string[]) => SocketLike;

export interface ConnectionOptions {
  url: string;
  WebSocket: SocketConstructor;
  /** How the token travels: in the first frame, as a subprotocol, or in the URL. */
  tokenIn: "frame" | "subprotocol" | "query";
  backoff?: Partial<BackoffOptions> | undefined;
  heartbeat?: Partial<HeartbeatOptions> | undefined;
}

export interface ConnectionHooks {
  /** What is said at each connect beside the token: position and types. */
  greeting(): { last_id?: string; seen?: string[]; types?: string[] };
  /** A token was given; false: it is another user's, and this connection's time is over. */
  accepts(token: string): boolean;
  message(message: BelfryMessage): void;
  state(state: ClientState): void;
}

/** From the first step to the answer to `auth`. */
const CONNECT_TIMEOUT = 15_000;
/** Shorter lives do not count as success. */
const STABLE = 10_000;
/** A token that was refused is not shown again before this (it may only have come too late). */
const REFUSED_FOR = 60_000;
/** A server that closes each connection at once is not asked more often than this. */
const MIN_GAP = 250;
const OUTBOX_MAX = 64;
const MAX_TIMER = 2 ** 31 - 1;
const OPEN = 1;

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #backoff: BackoffOptions;
  readonly #hooks: ConnectionHooks;
  readonly #tokens: TokenSource;
  readonly #heartbeat: Heartbeat;

  #state: ClientState = INITIAL;
  /** Grows whenever what was begun is given up: answers that come later are nobody's. */
  #run = 0;
  #socket: SocketLike | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined; // to connect, or for connecting to take
  #refreshTimer: ReturnType<typeof setTimeout> | undefined;
  #outbox: string[] = [];

  #failures = 0; // losses in a row, short lives included
  #readyAt = 0; // 0: not ready
  #triedAt = 0;
  #needsFresh = false; // the last token was refused, or may have been
  #refused: { token: string | null; at: number } | null = null;
  #expiresAt: number | null = null;
  #clockOffset = 0; // the server's clock minus ours

  constructor(options: ConnectionOptions, tokens: TokenSource, hooks: ConnectionHooks) {
    this.#options = options;
    this.#backoff = { ...BACKOFF, ...options.backoff };
    this.#tokens = tokens;
    this.#hooks = hooks;
    this.#heartbeat = new Heartbeat(
      { ...HEARTBEAT, ...options.heartbeat },
      () => this.#transmit(encodeCommand("ping", { sent_at: Date.now() })),
      () => this.#lost(0, "no answer from the server", "retry"),
    );
  }

  get state(): ClientState {
    return this.#state;
  }

  start(): void {
    if (this.#state.status !== "disconnected") return;
    this.#failures = 0;
    this.#set({ status: "connecting", attempts: 0, lastError: null });
    void this.#connect();
  }

  stop(): void {
    this.#abandon();
    this.#outbox = [];
    this.#set({ status: "disconnected", attempts: 0, retryAt: null, connectionId: null });
  }

  /** Sent, or kept until the connection is up; false when too much waits already. */
  send(text: string): boolean {
    if (this.#transmit(text)) return true;
    if (this.#state.status === "disconnected" || this.#outbox.length >= OUTBOX_MAX) return false;
    this.#outbox.push(text);
    return true;
  }

  /** Sent now or not at all. */
  sendNow(text: string): boolean {
    return this.#transmit(text);
  }

  /** A good moment: try now if waiting, else find out whether the connection is still alive. */
  wake(): void {
    if (this.#readyAt) {
      this.#heartbeat.probe();
    } else if (this.#state.retryAt !== null && !isPatient(this.#state.lastError?.advice ?? "retry")) {
      this.retryNow();
    }
  }

  /** Somebody asks for it. */
  retryNow(): void {
    if (this.#state.status === "disconnected") this.start();
    else if (this.#state.retryAt !== null) this.#schedule(this.#triedAt + MIN_GAP - Date.now());
  }

  #set(change: Partial<ClientState>): void {
    this.#state = { ...this.#state, ...change };
    this.#hooks.state(this.#state);
  }

  // ---- connecting ----

  #schedule(delay: number): void {
    const wait = Math.max(0, delay);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#connect(), wait);
    this.#set({ status: "connecting", retryAt: Date.now() + wait });
  }

  async #connect(): Promise<void> {
    const run = ++this.#run;
    clearTimeout(this.#timer);
    this.#triedAt = Date.now();
    this.#set({ attempts: this.#state.attempts + 1, retryAt: null });
    let token: string | null;
    try {
      token = await this.#tokens.get(this.#needsFresh);
    } catch (error) {
      if (run === this.#run) this.#lost(0, `no token: ${messageOf(error)}`, "retry");
      return;
    }
    if (run !== this.#run) return;
    if (token === null) {
      this.#end(errorOf(0, "nobody is signed in", "stop"));
    } else if (token === this.#refused?.token && Date.now() - this.#refused.at < REFUSED_FOR) {
      // The server has said no to this very token: asking it again helps nobody.
      const error = this.#state.lastError;
      this.#lost(error?.code ?? 4001, error?.reason ?? "", "token");
    } else if (this.#hooks.accepts(token)) {
      this.#needsFresh = false;
      this.#open(run, token);
    }
  }

  #open(run: number, token: string): void {
    let socket: SocketLike;
    try {
      socket = new this.#options.WebSocket(this.#address(token), this.#protocols(token));
    } catch (error) {
      // A URL that is none, or one that the page may not use: no later try will do better.
      this.#end(errorOf(0, messageOf(error), "stop"));
      return;
    }
    this.#socket = socket;
    this.#timer = setTimeout(
      () => this.#lost(0, "the server does not answer", "retry"),
      CONNECT_TIMEOUT,
    );
    socket.onopen = () => {
      if (run !== this.#run) return;
      if (this.#options.tokenIn === "frame")
        this.#write(encodeCommand("auth", { token, ...this.#hooks.greeting() }));
      else this.#write(encodeCommand("ping", { sent_at: Date.now() }));
    };
    socket.onmessage = (event: { data: unknown }) => {
      if (run === this.#run && typeof event.data === "string") this.#receive(event.data, token);
    };
    socket.onclose = (event: { code: number; reason: string }) => {
      if (run !== this.#run) return;
      if (event.code === 4001) this.#refused = { token: this.#tokens.last, at: Date.now() };
      this.#lost(event.code === 1005 || event.code === 1006 ? 0 : event.code, event.reason);
    };
    socket.onerror = () => {}; // close follows, and says more
  }

  #protocols(token: string): string[] {
    return this.#options.tokenIn === "subprotocol"
      ? [SUBPROTOCOL, `bearer.${token}`]
      : [SUBPROTOCOL];
  }

  #address(token: string): string {
    const { url, tokenIn } = this.#options;
    if (tokenIn === "frame") return url;
    const { last_id, seen, types } = this.#hooks.greeting();
    const query = new URLSearchParams();
    if (tokenIn === "query") query.set("token", token);
    if (last_id !== undefined) query.set("last_id", last_id);
    // A list in a query is divided by commas: an id with one in it cannot be told.
    const plain = seen?.filter((id) => !id.includes(","));
    if (plain?.length) query.set("seen", plain.join(","));
    if (types) query.set("types", types.join(","));
    const text = query.toString();
    return text ? url + (url.includes("?") ? "&" : "?") + text : url;
  }

  // ---- open ----

  #receive(text: string, token: string): void {
    this.#heartbeat.heard();
    const message = parseMessage(text);
    if (!message) return; // the bare `pong`, or nothing that a client knows
    const type = message.type.toUpperCase();
    if (type === "AUTH_OK") {
      this.#ready(isRecord(message.payload) ? message.payload.expires_at : null);
      return;
    }
    const isPong = type === "PONG" && message.id === undefined;
    if (!this.#readyAt && type !== "ERROR") this.#ready(readExpiry(token));
    if (type === "FULL_SYNC" || isPong) this.#readClock(message);
    if (type === "FULL_SYNC" && message.sync)
      this.#set({ connectionId: message.sync.connection_id ?? null });
    if (!isPong) this.#hooks.message(message);
  }

  #readClock(message: BelfryMessage): void {
    const now = parseTime(message.timestamp);
    if (!Number.isFinite(now)) return;
    const offset = now - Date.now();
    const isNews = Math.abs(offset - this.#clockOffset) > 2_000;
    this.#clockOffset = offset;
    if (isNews) this.#planRefresh();
  }

  /** Authenticated: for the first time, or again in band. */
  #ready(expiresAt: unknown): void {
    const expires = typeof expiresAt === "number" ? expiresAt : parseTime(expiresAt);
    this.#expiresAt = Number.isFinite(expires) ? expires : null;
    this.#planRefresh();
    if (this.#readyAt) return;
    clearTimeout(this.#timer);
    this.#readyAt = Date.now();
    this.#refused = null;
    this.#heartbeat.start();
    this.#set({ status: "connected", attempts: 0, retryAt: null, lastError: null });
    const waiting = this.#outbox;
    this.#outbox = [];
    for (const text of waiting) this.send(text);
  }

  #planRefresh(): void {
    clearTimeout(this.#refreshTimer);
    if (this.#expiresAt === null) return;
    const remaining = this.#expiresAt - Date.now() - this.#clockOffset;
    this.#refreshTimer = setTimeout(
      () => void this.#refresh(),
      Math.min(MAX_TIMER, refreshDelay(remaining)),
    );
  }

  /** A fresh token in band, before the old one ends. When that fails: again, until 4002 comes. */
  async #refresh(): Promise<void> {
    const run = this.#run;
    const before = this.#tokens.last;
    let token: string | null = null;
    try {
      token = await this.#tokens.get(true);
    } catch {
      // As good as none.
    }
    if (run !== this.#run) return;
    if (token !== null && token !== before) {
      if (this.#hooks.accepts(token)) this.#transmit(encodeCommand("auth", { token }));
      return;
    }
    const remaining = (this.#expiresAt ?? 0) - Date.now() - this.#clockOffset;
    if (remaining > 0)
      this.#refreshTimer = setTimeout(
        () => void this.#refresh(),
        Math.max(1_000, Math.min(30_000, remaining / 2)),
      );
  }

  #transmit(text: string): boolean {
    return this.#readyAt > 0 && this.#write(text);
  }

  #write(text: string): boolean {
    if (this.#socket?.readyState !== OPEN) return false;
    try {
      this.#socket.send(text);
      return true;
    } catch {
      return false;
    }
  }

  // ---- the end of a connection ----

  #lost(code: number, reason: string, advice: Advice = adviceFor(code)): void {
    const wasReady = this.#readyAt > 0;
    const wasStable = wasReady && Date.now() - this.#readyAt >= STABLE;
    this.#abandon();
    this.#failures = wasStable ? 1 : this.#failures + 1;
    // A handshake refused in HTTP looks like no server at all: it may have been the token, too.
    this.#needsFresh = advice === "token" || (!wasReady && this.#failures % 3 === 0) || this.#needsFresh;
    const error = errorOf(code, reason, advice);
    const delay = delayFor(advice, this.#failures, this.#backoff);
    if (delay === null) {
      this.#end(error);
      return;
    }
    this.#set({ lastError: error, connectionId: null });
    this.#schedule(Math.max(delay, this.#triedAt + MIN_GAP - Date.now()));
  }

  /** Until somebody asks for it: start, retryNow. */
  #end(error: NonNullable<ClientState["lastError"]>): void {
    this.#abandon();
    this.#outbox = [];
    this.#set({ status: "disconnected", retryAt: null, lastError: error, connectionId: null });
  }

  #abandon(): void {
    this.#run++;
    clearTimeout(this.#timer);
    clearTimeout(this.#refreshTimer);
    this.#heartbeat.stop();
    this.#readyAt = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {}; // `ws` throws where nobody listens
    try {
      socket.close(1000);
    } catch {
      // It is gone already.
    }
  }
}

function readExpiry(token: string): number | null {
  const exp = readClaims(token)?.exp;
  return typeof exp === "number" ? exp * 1000 : null;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
