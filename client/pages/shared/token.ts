// A token that lives as long as the tab, and never stands in the address.

export interface KeptToken {
  read(): string | null;
  keep(token: string | null): void;
}

export function keptToken(name: string): KeptToken {
  return {
    read() {
      try {
        return sessionStorage.getItem(name);
      } catch {
        return null;
      }
    },
    keep(token) {
      try {
        if (token === null) sessionStorage.removeItem(name);
        else sessionStorage.setItem(name, token);
      } catch {
        // Then it is asked for again.
      }
    },
  };
}
