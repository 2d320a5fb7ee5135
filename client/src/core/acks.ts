// Acknowledges what arrived, many messages with one `ack`.

export interface AckOptions {
  /** At the latest after so many messages. */
  every: number;
  /** At the latest after so many ms. */
  delay: number;
}

export const ACKS: AckOptions = { every: 20, delay: 2_000 };

export class Acks {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastId: string | null = null;
  #count = 0;

  constructor(
    readonly options: AckOptions,
    readonly send: (lastId: string) => boolean,
  ) {}

  add(id: string): void {
    this.#lastId = id;
    if (++this.#count >= this.options.every) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), this.options.delay);
  }

  /** What cannot be sent stays for the next time. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#count = 0;
    if (this.#lastId !== null && this.send(this.#lastId)) this.#lastId = null;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
