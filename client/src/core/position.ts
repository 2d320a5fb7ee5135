// Where this device stands in its user's messages: what it says when it comes back.
//
// belfry-protocol(7), "Delivery": last_id is the newest stored message that it has, seen are the
// newest ones, up to 32. A device that has fewer names the last_id of its first FULL_SYNC as well,
// once it has got all that this announced.

import { isStored, type BelfryMessage, type SyncInfo } from "./protocol.js";

const SEEN_MAX = 32;

export interface PositionData {
  lastId: string | null;
  seen: string[];
}

/** Where positions can be kept: sessionStorage is one. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export class Position {
  lastId: string | null = null;
  #seen: string[] = [];
  #anchor: string | null = null;
  /** Messages still to come before the anchor holds. */
  #owed = 0;

  /** What an `auth` frame or a query says of it. */
  get wire(): { last_id?: string; seen?: string[] } {
    if (this.lastId === null) return {};
    return { last_id: this.lastId, seen: [...this.#seen] };
  }

  get data(): PositionData {
    return { lastId: this.lastId, seen: [...this.#seen] };
  }

  /** The FULL_SYNC of a new connection. */
  begin(sync: SyncInfo): void {
    this.#anchor = sync.last_id;
    this.#owed = sync.missed;
    if (this.#owed <= 0) this.#settle();
  }

  /** A message arrived, be it a repeat. */
  note(message: BelfryMessage): void {
    if (!message.id) return;
    if (isStored(message) && !this.#seen.includes(message.id)) {
      this.lastId = message.id;
      this.#seen.push(message.id);
      if (this.#seen.length > SEEN_MAX) this.#seen.shift();
    }
    if (this.#owed > 0 && --this.#owed === 0) this.#settle();
  }

  #settle(): void {
    const anchor = this.#anchor;
    this.#anchor = null;
    if (anchor === null || this.#seen.includes(anchor)) return;
    // Older than whatever came since: it goes to the front.
    if (this.#seen.length < SEEN_MAX) this.#seen.unshift(anchor);
    this.lastId ??= anchor;
  }

  restore(data: PositionData): void {
    this.lastId = data.lastId;
    this.#seen = data.seen.slice(-SEEN_MAX);
    this.#anchor = null;
    this.#owed = 0;
  }

  reset(): void {
    this.restore({ lastId: null, seen: [] });
  }
}

/** Reads and writes a position; storage that fails (full, forbidden) is as good as none. */
export class PositionKeeper {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly storage: PositionStorage,
    readonly key: string,
    readonly position: Position,
  ) {}

  load(): void {
    try {
      const data: unknown = JSON.parse(this.storage.getItem(this.key) ?? "null");
      const { lastId, seen } = (data ?? {}) as Partial<PositionData>;
      if (typeof lastId === "string" && Array.isArray(seen))
        this.position.restore({ lastId, seen: seen.filter((id) => typeof id === "string") });
    } catch {
      // What cannot be read is not there.
    }
  }

  /** Soon: many messages in a row are written once. */
  saveSoon(): void {
    this.#timer ??= setTimeout(() => this.save(), 200);
  }

  save(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    try {
      this.storage.setItem(this.key, JSON.stringify(this.position.data));
    } catch {
      // The next connection begins without a position.
    }
  }
}
