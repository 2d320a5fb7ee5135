// BelfryClient: what an application holds. Puts the parts together and decides what a message is:
// new or a repeat, wanted or not, where it moves the position to.

import { ACKS, Acks, type AckOptions } from "./acks.js";
import { fullJitter, BACKOFF, type BackoffOptions } from "./backoff.js";
import type { ConnectionOptions, SocketConstructor } from "./connection.js";
import { Emitter } from "./emitter.js";
import { watchEnvironment } from "./environment.js";
import { Filter } from "./filter.js";
import type { HeartbeatOptions } from "./heartbeat.js";
import { OwnLink, connectionMaker, type Link } from "./link.js";
import { Position, PositionKeeper, type PositionStorage } from "./position.js";
import {
  encodeCommand,
  isRecord,
  isStored,
  type BelfryMessage,
  type EventName,
  type MessageOf,
} from "./protocol.js";
import { RecentIds } from "./recent.js";
import { SharedLink, canShare, type Memory, type SharedHooks } from "./shared-link.js";
import { INITIAL, errorOf, type ClientState } from "./state.js";
import { TokenSource, subjectOf, type GetToken } from "./token.js";

export interface BelfryOptions {
  /** ws://, wss://, or, in a browser, a path of the page's own server. */
  url: string;
  getToken: GetToken;
  /** Receive these types only. */
  types?: readonly string[];
  /** The class to make sockets with, where there is none in the environment (Node before 22). */
  WebSocket?: unknown;
  /** How the token travels. In the URL it may end up in logs. Default: the first frame. */
  tokenIn?: "frame" | "subprotocol" | "query";
  /** One socket for all tabs, where the browser can. Default: yes. */
  share?: boolean;
  /** Whose a token is: tabs share a socket only for one user. Default: the claim `sub`. */
  userOf?: (token: string) => string | null;
  /** Keep the position over a reload of the page: true is sessionStorage. Default: no. */
  persist?: boolean | PositionStorage;
  /** Acknowledge what arrived, so that the user's next device begins there. Default: no. */
  ack?: boolean | Partial<AckOptions>;
  backoff?: Partial<BackoffOptions>;
  heartbeat?: Partial<HeartbeatOptions>;
}

/** There may be messages that nobody can bring back: load your data anew. */
export interface Gap {
  reason: "too late" | "tab was away";
}

export interface ClientEvents {
  state: ClientState;
  /** Everything but heartbeats: events, FULL_SYNC, replies. Each id once. */
  message: BelfryMessage;
  gap: Gap;
}

/** How many messages a tab keeps for those that join. */
const MEMORY_MAX = 100;
/** A release that is followed by an acquire within this closes nothing. */
const LINGER = 300;

export class BelfryClient {
  readonly #options: BelfryOptions;
  readonly #emitter = new Emitter();
  readonly #filter = new Filter();
  readonly #position = new Position();
  readonly #recent = new RecentIds();
  readonly #tokens: TokenSource;
  readonly #acks: Acks | null;

  #state: ClientState = INITIAL;
  #link: Link | null = null;
  #keeper: PositionKeeper | null = null;
  #user: string | null = null;
  #stopWatching: (() => void) | null = null;
  #memory: BelfryMessage[] = [];
  #sync: BelfryMessage | null = null;
  #holders = 0;
  #lingerTimer: ReturnType<typeof setTimeout> | undefined;
  #run = 0; // grows with connect and close
  #joinTimer: ReturnType<typeof setTimeout> | undefined;
  #early: string[] = []; // said before there was a link

  constructor(options: BelfryOptions) {
    this.#options = options;
    this.#tokens = new TokenSource(options.getToken);
    if (options.types) this.#filter.subscribe(options.types);
    this.#acks = options.ack
      ? new Acks({ ...ACKS, ...(options.ack === true ? {} : options.ack) }, (id) =>
          this.#link?.isSource ? this.#link.sendNow(encodeCommand("ack", { last_id: id })) : false,
        )
      : null;
  }

  // ---- life ----

  get state(): ClientState {
    return this.#state;
  }

  /** Id of the newest stored message that arrived: where this device resumes. */
  get lastId(): string | null {
    return this.#position.lastId;
  }

  /** Connects, and stays connected until close. While waiting for the next try: tries now. */
  connect(): void {
    if (this.#link) {
      this.#link.retryNow();
      return;
    }
    if (this.#stopWatching) {
      // On its way: waits for a token, or to ask for one again.
      if (this.#state.retryAt === null) return;
      clearTimeout(this.#joinTimer);
      void this.#join(++this.#run, 0);
      return;
    }
    socketOf(this.#options.WebSocket); // complains here rather than later
    this.#stopWatching = watchEnvironment({
      wake: () => (this.#link ? this.#link.wake() : this.connect()),
      doubt: () => this.#link?.wake(),
      leave: () => {
        this.#keeper?.save();
        this.#acks?.flush();
      },
    });
    this.#setState({ ...INITIAL, status: "connecting" });
    void this.#join(++this.#run, 0);
  }

  /** Ends the connection; connect resumes where it was. */
  close(): void {
    this.#run++;
    clearTimeout(this.#joinTimer);
    clearTimeout(this.#lingerTimer);
    this.#acks?.flush();
    this.#acks?.stop();
    this.#keeper?.save();
    this.#stopWatching?.();
    this.#stopWatching = null;
    const link = this.#link;
    this.#link = null;
    this.#early = [];
    link?.stop();
    this.#setState({ ...INITIAL, lastError: this.#state.lastError });
  }

  /** connect for one of several users of this object: it closes when all have let go. */
  acquire(): () => void {
    clearTimeout(this.#lingerTimer);
    if (this.#holders++ === 0 && !this.#stopWatching) this.connect();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.#holders > 0) return;
      this.#lingerTimer = setTimeout(() => this.close(), LINGER);
    };
  }

  // ---- listening ----

  /** Listens; returns what ends it. A type may be written in either case. */
  on<K extends keyof ClientEvents>(name: K, listener: (value: ClientEvents[K]) => void): () => void;
  on<T extends EventName>(type: T, listener: (message: MessageOf<T>) => void): () => void;
  on(type: string, listener: (message: BelfryMessage) => void): () => void;
  on(name: string, listener: (value: never) => void): () => void {
    return this.#emitter.on(listenerKey(name), listener);
  }

  // ---- speaking ----

  /** Sent now, or as soon as the connection is up; false when it is neither. */
  send(command: string, payload: object = {}): boolean {
    const name = command.toLowerCase();
    if (name === "subscribe" || name === "unsubscribe") {
      const { types } = payload as { types?: unknown };
      const list = Array.isArray(types) ? types.filter((t) => typeof t === "string") : [];
      return name === "subscribe" ? this.subscribe(list) : this.unsubscribe(list);
    }
    return this.#say(encodeCommand(command, payload));
  }

  /** Of the types only these, and those of earlier calls. Holds over reconnects. */
  subscribe(types: readonly string[]): boolean {
    this.#filter.subscribe(types);
    return this.#sayOwn("subscribe", types);
  }

  /** These no more. */
  unsubscribe(types: readonly string[]): boolean {
    this.#filter.unsubscribe(types);
    return this.#sayOwn("unsubscribe", types);
  }

  /** A fresh FULL_SYNC. */
  refreshDashboard(): boolean {
    return this.send("dashboard_refresh");
  }

  markNotificationsRead(ids: readonly string[]): boolean {
    return this.send("mark_notification_read", { notification_ids: ids });
  }

  /** Acknowledges up to this message, or all that arrived. */
  ack(lastId: string | null = this.#position.lastId): boolean {
    return lastId !== null && this.send("ack", { last_id: lastId });
  }

  #say(text: string): boolean {
    if (this.#link) return this.#link.send(text);
    if (this.#state.status === "disconnected" || this.#early.length >= 64) return false;
    this.#early.push(text);
    return true;
  }

  /** The socket of all tabs carries what any of them wants: then each filters for itself. */
  #sayOwn(command: string, types: readonly string[]): boolean {
    if (this.#link instanceof OwnLink) return this.#link.sendNow(encodeCommand(command, { types }));
    return true;
  }

  // ---- joining ----

  /** Whose messages these are decides which tabs belong together, so a token comes first. */
  async #join(run: number, failures: number): Promise<void> {
    let token: string | null;
    try {
      token = await this.#tokens.peek();
    } catch (error) {
      if (run === this.#run) this.#joinLater(run, failures + 1, error);
      return;
    }
    if (run !== this.#run) return;
    if (token === null) {
      this.close();
      this.#setState({ ...INITIAL, lastError: errorOf(0, "nobody is signed in", "stop") });
      return;
    }
    this.#enter(token);
    this.#link = this.#makeLink();
    this.#link.start();
    for (const text of this.#early.splice(0)) this.#link?.send(text);
  }

  #joinLater(run: number, failures: number, error: unknown): void {
    const delay = fullJitter(failures, { ...BACKOFF, ...this.#options.backoff });
    const reason = `no token: ${error instanceof Error ? error.message : String(error)}`;
    this.#joinTimer = setTimeout(() => void this.#join(run, failures), delay);
    this.#setState({
      ...this.#state,
      attempts: failures,
      retryAt: Date.now() + delay,
      lastError: errorOf(0, reason, "retry"),
    });
  }

  /** From now on it is this token's user. Another user's position and messages are forgotten. */
  #enter(token: string): void {
    const user = this.#userOf(token);
    if (this.#user !== null && user !== this.#user) {
      this.#position.reset();
      this.#recent.clear();
      this.#memory = [];
      this.#sync = null;
    }
    const isNew = user !== this.#user;
    this.#user = user;
    const storage = storageOf(this.#options.persist);
    if (!storage || !isNew) return;
    this.#keeper = new PositionKeeper(storage, `${this.#name()}:position`, this.#position);
    this.#keeper.load();
  }

  #userOf(token: string): string | null {
    return (this.#options.userOf ?? subjectOf)(token);
  }

  /** Names what belongs together: server, user, types. */
  #name(): string {
    const types = [...(this.#options.types ?? [])].map((t) => t.toUpperCase()).sort();
    return ["belfry", resolveUrl(this.#options.url), this.#user ?? "", types.join(",")].join("|");
  }

  #makeLink(): Link {
    const options: ConnectionOptions = {
      url: resolveUrl(this.#options.url),
      WebSocket: socketOf(this.#options.WebSocket),
      tokenIn: this.#options.tokenIn ?? "frame",
      backoff: this.#options.backoff,
      heartbeat: this.#options.heartbeat,
    };
    const make = connectionMaker(options, this.#tokens);
    const isShared = this.#options.share !== false && this.#user !== null && canShare();
    const run = this.#run;
    // What a link that was left says at its end is not this client's state.
    const isCurrent = () => run === this.#run;
    const hooks: SharedHooks = {
      greeting: () => this.#greeting(isShared),
      accepts: (token) => this.#accepts(token),
      message: (message) => isCurrent() && this.#receive(message),
      state: (state) => isCurrent() && this.#setState(state),
      lastId: () => this.#position.lastId,
      memory: (lastId) => this.#recall(lastId),
      welcome: (memory, isFresh) => isCurrent() && this.#welcome(memory, isFresh),
    };
    return isShared ? new SharedLink(this.#name(), make, hooks) : new OwnLink(make, hooks);
  }

  #greeting(isShared: boolean) {
    const types = isShared ? (this.#options.types ?? null) : this.#filter.wanted;
    return { ...this.#position.wire, ...(types ? { types: [...types] } : {}) };
  }

  /** A token of somebody else: everything begins anew. */
  #accepts(token: string): boolean {
    if (this.#userOf(token) === this.#user) return true;
    queueMicrotask(() => {
      if (!this.#link) return;
      this.close();
      this.connect();
    });
    return false;
  }

  // ---- messages ----

  #receive(message: BelfryMessage): void {
    if (message.type.toUpperCase() === "FULL_SYNC") {
      this.#receiveSync(message);
      return;
    }
    this.#position.note(message);
    if (message.id !== undefined && !this.#recent.add(message.id)) return;
    if (message.id !== undefined) this.#remember(message);
    if (this.#filter.passes(message.type)) this.#deliver(message);
  }

  #remember(message: BelfryMessage): void {
    this.#memory.push(message);
    if (this.#memory.length > MEMORY_MAX) this.#memory.shift();
    this.#keeper?.saveSoon();
    if (message.id !== undefined && isStored(message)) this.#acks?.add(message.id);
  }

  #receiveSync(message: BelfryMessage): void {
    const { sync } = message;
    const isFirst = sync && sync.connection_id !== this.#sync?.sync?.connection_id;
    if (sync) this.#sync = message;
    else if (this.#sync) this.#sync = { ...this.#sync, payload: message.payload };
    if (sync && isFirst) this.#position.begin(sync);
    if (isFirst && this.#link instanceof OwnLink && this.#filter.excluded.length)
      this.#sayOwn("unsubscribe", this.#filter.excluded);
    this.#deliver(message);
    if (sync?.recovered === false) this.#emitter.emit("gap", { reason: "too late" });
  }

  #deliver(message: BelfryMessage): void {
    this.#emitter.emit("message", message);
    this.#emitter.emit(message.type.toUpperCase(), message);
  }

  #setState(state: ClientState): void {
    this.#state = state;
    this.#emitter.emit("state", state);
  }

  // ---- for other tabs ----

  #recall(lastId: string | null): Memory {
    const index = lastId === null ? -1 : this.#memory.findIndex((m) => m.id === lastId);
    return {
      sync: this.#sync,
      messages: this.#memory.slice(index + 1),
      position: this.#position.data,
    };
  }

  #welcome(memory: Memory, isFresh: boolean): void {
    const isFull = memory.messages.length >= MEMORY_MAX;
    const overlaps = memory.messages.some((m) => m.id !== undefined && this.#recent.has(m.id));
    if (isFresh && memory.sync) {
      this.#sync = memory.sync;
      this.#deliver(memory.sync);
    }
    for (const message of memory.messages) this.#receive(message);
    if (isFresh) this.#position.restore(memory.position);
    else if (isFull && !overlaps) this.#emitter.emit("gap", { reason: "tab was away" });
  }
}

/** Names of events of the client itself are in lower case, those of types in upper case. */
function listenerKey(name: string): string {
  return name === "state" || name === "message" || name === "gap" ? name : name.toUpperCase();
}

function resolveUrl(url: string): string {
  if (!url.startsWith("/") || typeof location === "undefined") return url;
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${url}`;
}

function socketOf(given: unknown): SocketConstructor {
  const found = given ?? (globalThis as { WebSocket?: unknown }).WebSocket;
  if (typeof found !== "function")
    throw new Error("no WebSocket here: give one, as in { WebSocket: (await import('ws')).default }");
  return found as SocketConstructor;
}

function storageOf(persist: BelfryOptions["persist"]): PositionStorage | null {
  if (!persist) return null;
  if (isRecord(persist)) return persist as unknown as PositionStorage;
  try {
    return sessionStorage;
  } catch {
    return null; // forbidden, or not a browser
  }
}
