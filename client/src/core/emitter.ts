// Listeners by name.

export type Listener = (value: never) => void;

export class Emitter {
  readonly #listeners = new Map<string, Set<Listener>>();

  /** Returns what takes the listener off again. */
  on(name: string, listener: Listener): () => void {
    const own: Listener = (value) => listener(value); // the same function may listen twice
    let set = this.#listeners.get(name);
    if (!set) this.#listeners.set(name, (set = new Set()));
    set.add(own);
    return () => {
      set.delete(own);
      if (set.size === 0 && this.#listeners.get(name) === set) this.#listeners.delete(name);
    };
  }

  /** A listener that throws keeps none of the others from hearing. */
  emit(name: string, value: unknown): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(value as never);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
