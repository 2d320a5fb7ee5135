// One socket for all tabs of an origin.
//
// Who holds the Web Lock is the leader: it has the socket and tells the others over a
// BroadcastChannel what arrives. The lock is released by the browser when the leader's tab ends,
// however it ends; the next in line then connects with its own position, and since every tab drops
// repeats, each gets every message once.
//
// A tab that joins says hello and is welcomed with what it has missed: the leader's FULL_SYNC and
// the messages it remembers. Until then it hears nothing, for the welcome contains all of it. A
// leader that does not answer (its tab is frozen) is robbed of the lock.

import type { Connection, ConnectionHooks } from "./connection.js";
import type { Link, MakeConnection } from "./link.js";
import type { PositionData } from "./position.js";
import type { BelfryMessage } from "./protocol.js";
import { INITIAL, type ClientState } from "./state.js";

/** What a tab remembers for those who join. */
export interface Memory {
  sync: BelfryMessage | null;
  messages: BelfryMessage[];
  position: PositionData;
}

export interface SharedHooks extends ConnectionHooks {
  /** Id of the newest message that this tab has. */
  lastId(): string | null;
  /** What this tab has; only what is newer than lastId, if it knows that. */
  memory(lastId: string | null): Memory;
  /** What the leader has. isFresh: this tab had nothing before. */
  welcome(memory: Memory, isFresh: boolean): void;
}

type Note =
  | { kind: "hello"; from: string; lastId: string | null }
  | { kind: "welcome"; to: string; state: ClientState; memory: Memory }
  | { kind: "leader" }
  | { kind: "state"; state: ClientState }
  | { kind: "message"; message: BelfryMessage }
  | { kind: "send"; text: string }
  | { kind: "retry" };

/** A leader answers within this, or is robbed. */
const ANSWER_TIMEOUT = 3_000;
/** How often a visible tab asks whether the leader is there. */
const CHECK_INTERVAL = 30_000;

/** Pages only: Node has both means, too, but no tabs. */
export function canShare(): boolean {
  return (
    typeof document !== "undefined" &&
    typeof BroadcastChannel === "function" &&
    typeof navigator !== "undefined" &&
    typeof navigator.locks?.request === "function"
  );
}

export class SharedLink implements Link {
  readonly #name: string;
  readonly #make: MakeConnection;
  readonly #hooks: SharedHooks;
  readonly #id = Math.random().toString(36).slice(2);

  #channel: BroadcastChannel | null = null;
  #connection: Connection | null = null; // of the leader
  #state: ClientState = INITIAL; // of the leader's connection
  #isWelcome = false;
  #isFresh = true;
  #waiting: string[] = []; // to be sent, once somebody leads
  #release: (() => void) | null = null;
  #queue: AbortController | null = null;
  #answerTimer: ReturnType<typeof setTimeout> | undefined;
  #checkTimer: ReturnType<typeof setInterval> | undefined;

  constructor(name: string, make: MakeConnection, hooks: SharedHooks) {
    this.#name = name;
    this.#make = make;
    this.#hooks = hooks;
  }

  get isSource(): boolean {
    return this.#connection !== null;
  }

  start(): void {
    if (this.#channel) return;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = (event: MessageEvent<Note>) => this.#hear(event.data);
    this.#checkTimer = setInterval(() => {
      if (typeof document === "undefined" || document.visibilityState === "visible") this.#check();
    }, CHECK_INTERVAL);
    this.#report({ ...INITIAL, status: "connecting", role: "follower" });
    this.#queueUp();
    this.#check();
  }

  stop(): void {
    clearInterval(this.#checkTimer);
    clearTimeout(this.#answerTimer);
    this.#queue?.abort();
    this.#resign();
    this.#channel?.close();
    this.#channel = null;
    this.#isWelcome = false;
    this.#waiting = [];
    this.#report({ ...this.#state, status: "disconnected", retryAt: null, connectionId: null });
  }

  send(text: string): boolean {
    if (this.#connection) return this.#connection.send(text);
    if (!this.#channel) return false;
    if (this.#isWelcome) this.#post({ kind: "send", text });
    else if (this.#waiting.push(text) > 64) this.#waiting.shift();
    return true;
  }

  sendNow(text: string): boolean {
    return this.#connection?.sendNow(text) ?? false;
  }

  wake(): void {
    if (this.#connection) this.#connection.wake();
    else this.#check();
  }

  retryNow(): void {
    if (this.#connection) this.#connection.retryNow();
    else this.#post({ kind: "retry" });
  }

  #post(note: Note): void {
    try {
      this.#channel?.postMessage(note);
    } catch {
      // A message that cannot be cloned: JSON always can.
    }
  }

  #report(state: ClientState): void {
    this.#state = state;
    this.#hooks.state({ ...state, role: this.#connection ? "leader" : "follower" });
  }

  // ---- the lock ----

  #queueUp(steal = false): void {
    this.#queue?.abort();
    const queue = new AbortController();
    this.#queue = queue;
    const hold = () =>
      new Promise<void>((resolve) => {
        if (queue.signal.aborted) return resolve();
        this.#release = resolve;
        this.#lead();
      });
    // A lock that is stolen cannot be waited for, so there is no signal to give.
    const options = steal ? { steal } : { signal: queue.signal };
    navigator.locks.request(this.#name, options, hold).catch(() => {
      // Robbed, or not wanted any more.
      if (queue.signal.aborted || this.#queue !== queue) return;
      this.#resign();
      this.#isWelcome = false;
      this.#queueUp();
      this.#check();
    });
  }

  #lead(): void {
    clearTimeout(this.#answerTimer);
    const isStopped =
      this.#state.status === "disconnected" && this.#state.lastError?.advice === "stop";
    const own: Connection = this.#make({
      greeting: () => this.#hooks.greeting(),
      accepts: (token) => this.#hooks.accepts(token),
      message: (message) => {
        this.#post({ kind: "message", message });
        this.#isFresh = false;
        this.#hooks.message(message);
      },
      state: (state) => {
        // What it says at its end concerns nobody: the next leader has a connection of its own.
        if (this.#connection !== own) return;
        this.#post({ kind: "state", state });
        this.#report(state);
      },
    });
    this.#connection = own;
    this.#post({ kind: "leader" });
    // Told to stay away, the tabs stay away, whoever leads; retryNow starts again.
    if (isStopped) this.#report(this.#state);
    else own.start();
    for (const text of this.#waiting.splice(0)) own.send(text);
  }

  #resign(): void {
    const connection = this.#connection;
    this.#connection = null;
    if (connection) {
      this.#hooks.state({ ...this.#state, status: "connecting", role: "follower" });
      connection.stop();
    }
    this.#release?.();
    this.#release = null;
  }

  // ---- the channel ----

  /** Asks the leader for what is new. Without an answer this tab takes over. */
  #check(): void {
    if (!this.#channel || this.#connection) return;
    const lastId = this.#isFresh ? null : this.#hooks.lastId();
    this.#post({ kind: "hello", from: this.#id, lastId });
    clearTimeout(this.#answerTimer);
    const due = Date.now() + ANSWER_TIMEOUT;
    this.#answerTimer = setTimeout(() => {
      if (!this.#channel || this.#connection) return;
      // Held up itself, this tab may have missed the answer.
      if (Date.now() - due > ANSWER_TIMEOUT) this.#check();
      else this.#queueUp(true);
    }, ANSWER_TIMEOUT);
  }

  #hear(note: Note): void {
    if (this.#connection) this.#hearAsLeader(note, this.#connection);
    else this.#hearAsFollower(note);
  }

  #hearAsLeader(note: Note, connection: Connection): void {
    if (note.kind === "hello")
      this.#post({
        kind: "welcome",
        to: note.from,
        state: connection.state,
        memory: this.#hooks.memory(note.lastId),
      });
    else if (note.kind === "send") connection.send(note.text);
    else if (note.kind === "retry") connection.retryNow();
  }

  #hearAsFollower(note: Note): void {
    if (note.kind === "leader") {
      this.#isWelcome = false;
      this.#check();
    } else if (note.kind === "welcome" && note.to === this.#id) {
      clearTimeout(this.#answerTimer);
      this.#isWelcome = true;
      this.#report(note.state);
      // A leader that has got nothing itself has nothing to give.
      if (note.memory.sync) {
        this.#hooks.welcome(note.memory, this.#isFresh);
        this.#isFresh = false;
      }
      for (const text of this.#waiting.splice(0)) this.#post({ kind: "send", text });
    } else if (this.#isWelcome && note.kind === "state") {
      this.#report(note.state);
    } else if (this.#isWelcome && note.kind === "message") {
      this.#isFresh = false;
      this.#hooks.message(note.message);
    }
  }
}
