// What happened to one message: what belfryctl explain tells, of all instances.

import { useState, type FormEvent } from "react";
import { Card } from "../../shared/Card.js";
import { ms, shortId } from "../format.js";
import { ask } from "../stats.js";

interface TraceRecord {
  fate: string;
  at: string;
  instance: string;
  worker: number;
  connection?: string;
  end?: string;
  end_at?: string | null;
}

interface Answer {
  known: boolean;
  user: string;
  id: string;
  lines: { about: string; text: string }[];
  records: TraceRecord[];
}

/** Those of a worker itself say nothing of the message. */
const OF_WORKER = new Set(["started", "link-lost", "link-back"]);

export function Explain({ token }: { token: string }) {
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [isAsking, setAsking] = useState(false);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const query = new URLSearchParams({ user: String(form.get("user")).trim(), id: String(form.get("id")).trim() });
    setAsking(true);
    try {
      setAnswer((await ask(`/ws/explain?${query}`, token, AbortSignal.timeout(15_000))) as Answer);
      setError(null);
    } catch (reason) {
      setAnswer(null);
      setError(reason instanceof Error ? reason.message : String(reason));
    }
    setAsking(false);
  };
  return (
    <Card title="What happened to a message?" className="wide">
      <form className="explain" onSubmit={(event) => void submit(event)}>
        <label>user <input name="user" required autoComplete="off" spellCheck={false} /></label>
        <label>id of the message <input name="id" required autoComplete="off" spellCheck={false} size={38} /></label>
        <button type="submit" disabled={isAsking}>Explain</button>
      </form>
      {error !== null && <p role="alert" className="bad">{error}</p>}
      <div aria-live="polite" aria-busy={isAsking}>{answer !== null && <Told answer={answer} />}</div>
    </Card>
  );
}

/** Lines about one thing belong together. */
function grouped(lines: Answer["lines"]): [string, string[]][] {
  const groups: [string, string[]][] = [];
  for (const { about, text } of lines) {
    const last = groups.at(-1);
    if (last && last[0] === about) last[1].push(text);
    else groups.push([about, [text]]);
  }
  return groups;
}

function Told({ answer }: { answer: Answer }) {
  return (
    <>
      {!answer.known && <p className="bad">Nobody knows this message of {answer.user}.</p>}
      <dl className="told">
        {grouped(answer.lines).map(([about, texts]) => (
          <div key={about}>
            <dt>{about}</dt>
            {texts.map((text, i) => <dd key={i}>{text}</dd>)}
          </div>
        ))}
      </dl>
      <Records records={answer.records.filter((r) => !OF_WORKER.has(r.fate))} />
    </>
  );
}

function Records({ records }: { records: TraceRecord[] }) {
  if (records.length === 0) return null;
  const took = (r: TraceRecord) => (r.end_at ? ms(Math.max(0, Date.parse(r.end_at) - Date.parse(r.at))) : "–");
  return (
    <details>
      <summary>The records it is told from ({records.length})</summary>
      <div className="scroll" tabIndex={0} role="region" aria-label="Table of records">
        <table className="left">
          <thead>
            <tr>
              <th scope="col">time</th><th scope="col">instance</th><th scope="col">worker</th>
              <th scope="col">connection</th><th scope="col">what</th><th scope="col">became</th>
              <th scope="col">after</th>
            </tr>
          </thead>
          <tbody>
            {records.map((r, i) => (
              <tr key={i}>
                <td>{r.at.slice(11, 23)}</td>
                <td><code>{shortId(r.instance)}</code></td>
                <td>{r.worker}</td>
                <td>{r.connection ? <code>{r.connection}</code> : "–"}</td>
                <td>{r.fate}</td>
                <td>{r.end ?? "–"}</td>
                <td>{took(r)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
