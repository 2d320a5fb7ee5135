import type { FormEvent } from "react";
import { keepToken } from "../belfry.js";

/** Where the server made no token for a first look. */
export function AskForToken() {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const token = new FormData(event.currentTarget).get("token");
    if (typeof token === "string" && token.trim()) keepToken(token.trim());
  };
  return (
    <form className="card ask" onSubmit={submit}>
      <label htmlFor="token">A user's token</label>
      <input id="token" name="token" type="password" autoComplete="off" spellCheck={false} required />
      <button type="submit">Show</button>
      <p className="row-note">
        <code>belfryctl token --user you</code> makes one. It stays in this tab.
      </p>
    </form>
  );
}
