// What happened to one message, as the workers of the instance that answers remember it.

import { useState, type FormEvent } from "react";
import { Card } from "./Tables.js";

interface TraceRecord {
  worker: number;
  fate: string;
  at_us: number;
  serial?: string;
  detail?: number;
  end?: string;
  end_us?: number;
}

interface Answer {
  instance_id: string;
  trace_size: number;
  records: TraceRecord[];
  cut: boolean;
}

/** Records of the message first; those of the worker itself only where something happened to it. */
const OF_WORKER = new Set(["started", "link-lost", "link-back"]);
/** Only what was queued becomes something. */
const QUEUED = new Set(["queued", "replayed", "repaired"]);
const OF_CONNECTION = new Set(["opened", "closed", "given", "taken", "open"]);

export function Explain({ token }: { token: string }) {
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [error, setError] = useState<string | null>(null);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const query = new URLSearchParams({ user: String(form.get("user")), id: String(form.get("id")) });
    try {
      const reply = await fetch(`/ws/explain?${query}`, {
        headers: { Authorization: `Bearer ${token}` },
        cache: "no-store",
      });
      const body = (await reply.json()) as Answer & { message?: string };
      setError(reply.ok ? null : (body.message ?? `the server answered ${reply.status}`));
      setAnswer(reply.ok ? body : null);
    } catch (reason) {
      setError(reason instanceof Error ? reason.message : String(reason));
    }
  };
  return (
    <Card title="What happened to a message?" className="wide">
      <form className="explain" onSubmit={(event) => void submit(event)}>
        <label>user <input name="user" required autoComplete="off" /></label>
        <label>id of the message <input name="id" required autoComplete="off" size={38} /></label>
        <button type="submit">Explain</button>
      </form>
      {error !== null && <p role="alert">{error}</p>}
      {answer !== null && <Records answer={answer} />}
    </Card>
  );
}

function Records({ answer }: { answer: Answer }) {
  const rows = answer.records
    .filter((r) => !OF_WORKER.has(r.fate))
    .sort((a, b) => a.at_us - b.at_us);
  const isKnown = rows.some((r) => !OF_CONNECTION.has(r.fate));
  return (
    <div aria-live="polite">
      <p className="row-note">
        Instance <code>{answer.instance_id.slice(-6)}</code>
        {answer.trace_size === 0 && ": the trace is off (trace-size)"}
        {answer.trace_size > 0 && !isKnown && ": nothing is remembered of this message here"}
        {answer.cut && ": there was more than is shown"}
        {". "}
        <code>belfryctl explain</code> asks all instances and the list.
      </p>
      {rows.length > 0 && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Table of what happened">
          <table className="left">
            <thead>
              <tr>
                <th scope="col">time</th><th scope="col">worker</th><th scope="col">connection</th>
                <th scope="col">what</th><th scope="col">became</th><th scope="col">after</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((r, i) => (
                <tr key={i}>
                  <td>{new Date(r.at_us / 1000).toISOString().slice(11, 23)}</td>
                  <td>{r.worker}</td>
                  <td>{r.serial && r.serial !== "0" ? <code>{r.serial}</code> : "–"}</td>
                  <td>{r.fate}</td>
                  <td>{(QUEUED.has(r.fate) && r.end) || "–"}</td>
                  <td>{r.end_us ? `${((r.end_us - r.at_us) / 1000).toFixed(1)} ms` : "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
