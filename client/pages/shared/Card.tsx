import { useId, type ReactNode } from "react";

/** A titled part of the page; its heading names the region. */
export function Card(props: { title: string; aside?: ReactNode; className?: string; children: ReactNode }) {
  const id = useId();
  return (
    <section className={`card ${props.className ?? ""}`} aria-labelledby={id}>
      <header className="card-head">
        <h2 id={id}>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="empty">{children}</p>;
}

export function Bar(props: { percent: number; label: string; tone: string }) {
  const shown = Math.max(0, Math.min(100, props.percent));
  return (
    <div
      className={`bar ${props.tone}`}
      role="progressbar"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(shown)}
      aria-valuetext={`${Math.round(props.percent)} percent`}
    >
      <div style={{ width: `${shown}%` }} />
    </div>
  );
}
