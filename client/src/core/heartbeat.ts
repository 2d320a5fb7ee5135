// Is the other side still there? Browsers answer the server's pings but tell nobody, so a connection
// that died without a word is only found by asking.

export interface HeartbeatOptions {
  /** Ask after so many ms of silence. */
  interval: number;
  /** Dead when nothing was heard so many ms after asking. */
  timeout: number;
  /** The same after the machine slept or the network changed, when doubt is greater. */
  probeTimeout: number;
}

export const HEARTBEAT: HeartbeatOptions = { interval: 25_000, timeout: 10_000, probeTimeout: 3_000 };

/** A timer that comes later than this was held up: by sleep, or by a browser that saves power. */
const HELD_UP = 5_000;

export class Heartbeat {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heardAt = 0;
  #askedAt = 0;

  constructor(
    readonly options: HeartbeatOptions,
    readonly ask: () => void,
    readonly dead: () => void,
  ) {}

  start(): void {
    this.heard();
    this.#rest();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#askedAt = 0;
  }

  /** Anything that arrives is a sign of life. */
  heard(): void {
    this.#heardAt = Date.now();
    if (this.#askedAt) {
      this.#askedAt = 0;
      this.#rest();
    }
  }

  /** Asks now. */
  probe(timeout = this.options.probeTimeout): void {
    clearTimeout(this.#timer);
    this.#askedAt = Date.now();
    const due = this.#askedAt + timeout;
    this.#timer = setTimeout(() => {
      // Nothing could be heard while this page was held up: ask once more.
      if (Date.now() - due > HELD_UP) this.probe();
      else this.dead();
    }, timeout);
    this.ask();
  }

  #rest(): void {
    clearTimeout(this.#timer);
    const { interval, timeout } = this.options;
    const wait = Math.max(0, this.#heardAt + interval - Date.now());
    this.#timer = setTimeout(() => {
      const silence = Date.now() - this.#heardAt;
      if (silence < interval) this.#rest();
      else this.probe(silence > interval + HELD_UP ? this.options.probeTimeout : timeout);
    }, wait);
  }
}
