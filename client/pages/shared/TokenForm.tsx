import type { FormEvent, ReactNode } from "react";

/** Asks for a token: label says whose, the note where one comes from. */
export function TokenForm(props: {
  label: string;
  note: ReactNode;
  error?: string | null;
  use: (token: string) => void;
}) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const token = new FormData(event.currentTarget).get("token");
    if (typeof token === "string" && token.trim()) props.use(token.trim());
  };
  return (
    <main>
      <form className="card ask" onSubmit={submit}>
        <label htmlFor="token">{props.label}</label>
        <input id="token" name="token" type="password" autoComplete="off" spellCheck={false} autoFocus required />
        <button type="submit">Show</button>
        {props.error && <p role="alert">{props.error}</p>}
        <p className="row-note">{props.note} It stays in this tab.</p>
      </form>
    </main>
  );
}
