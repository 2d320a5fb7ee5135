import type { ReactNode } from "react";

/** The head of a page: the bell, its name, what it is. */
export function Brand({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="brand">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="8" />
        <path d="M16 6a1.600 1.600 0 0 1 1.600 1.700A6.400 6.400 0 0 1 22.400 14v5l2 2.700H7.600l2-2.700v-5a6.400 6.400 0 0 1 4.800-6.300A1.600 1.600 0 0 1 16 6zm-2.600 17.400h5.200a2.600 2.600 0 0 1-5.200 0z" />
      </svg>
      <div>
        <h1>{name}</h1>
        <p>{children}</p>
      </div>
    </div>
  );
}
