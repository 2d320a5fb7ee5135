// Which types this device wants, as the commands `subscribe` and `unsubscribe` have it: everything
// until the first subscribe, which starts a list; unsubscribe takes from the list, or excludes while
// there is none.

/** What is not filtered: FULL_SYNC and the answers to commands. */
const ALWAYS = new Set([
  "FULL_SYNC",
  "ERROR",
  "SUBSCRIPTION_CONFIRMED",
  "UNSUBSCRIPTION_CONFIRMED",
  "DASHBOARD_REFRESH_COMPLETED",
  "NOTIFICATIONS_MARKED_READ",
  "CONNECTION_STATS",
]);

export class Filter {
  #wanted: Set<string> | null = null;
  readonly #excluded = new Set<string>();

  subscribe(types: readonly string[]): void {
    this.#wanted ??= new Set();
    for (const type of types) {
      this.#wanted.add(type.toUpperCase());
      this.#excluded.delete(type.toUpperCase());
    }
  }

  unsubscribe(types: readonly string[]): void {
    for (const type of types)
      if (this.#wanted) this.#wanted.delete(type.toUpperCase());
      else this.#excluded.add(type.toUpperCase());
  }

  /** The list; null while there is none. */
  get wanted(): string[] | null {
    return this.#wanted && [...this.#wanted];
  }

  get excluded(): string[] {
    return [...this.#excluded];
  }

  passes(type: string): boolean {
    const name = type.toUpperCase();
    if (ALWAYS.has(name)) return true;
    return this.#wanted ? this.#wanted.has(name) : !this.#excluded.has(name);
  }
}
