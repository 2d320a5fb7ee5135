// Makes src/core/tables.ts from the server's own tables: event types with their payloads, and close
// codes with what a client should do.
//
//   node scripts/generate-tables.mjs           writes the file
//   node scripts/generate-tables.mjs --check   says whether it is up to date (exit status 1: not)

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const top = new URL("../../", import.meta.url);
const target = new URL("../src/core/tables.ts", import.meta.url);

/** What closes.def says a client should do, and the word the client has for it. */
const ADVICE = {
  "reconnect": "retry",
  "reconnect and resume": "retry",
  "reconnect after a random delay": "spread",
  "reconnect later": "later",
  "get a new token first": "token",
  "stay away": "stop",
  "close another": "limit",
  "slow down": "slow",
  "not repeat it": "fault",
};

/** What a letter behind a field's name stands for in events.def. */
const TYPES = {
  s: "string",
  i: "number",
  n: "number",
  b: "boolean",
  o: "Record<string, unknown>",
  a: "unknown[]",
  t: "string",
  p: "Priority",
  k: "NotificationKind",
  x: "unknown",
};

function readTable(name) {
  const text = readFileSync(new URL(`shared/${name}`, top), "utf8");
  return text.replace(/\/\*[^]*?\*\//g, "").replace(/\\\n/g, " ");
}

/** The rows of a table as arrays of arguments; text in quotes is joined and unquoted. */
function rowsOf(text, macro) {
  const defines = new Map();
  for (const [, name, value] of text.matchAll(/^#define (\w+) +(.*)$/gm)) defines.set(name, value);
  const body = text.replace(/^#.*$/gm, "");
  const rows = [];
  for (const [, inner] of body.matchAll(
    new RegExp(`\\b${macro}\\(((?:"(?:[^"\\\\]|\\\\.)*"|[^"()])*)\\)`, "g"),
  )) {
    const expanded = inner.replace(/\b[A-Z_]+\b/g, (word) => defines.get(word) ?? word);
    rows.push(split(expanded));
  }
  const expected = body.match(new RegExp(`\\b${macro}\\(`, "g"))?.length ?? 0;
  if (rows.length === 0 || rows.length !== expected)
    throw new Error(`${macro}: ${expected} rows, of which ${rows.length} can be read`);
  return rows;
}

function split(row) {
  const parts = [];
  let part = "";
  for (const [token] of row.matchAll(/"(?:[^"\\]|\\.)*"|,|[^",\s]+|\s+/g)) {
    if (token === ",") {
      parts.push(part.trim());
      part = "";
    } else if (token.startsWith('"')) {
      part += JSON.parse(token);
    } else if (token.trim()) {
      part += token;
    }
  }
  parts.push(part.trim());
  return parts;
}

function payloadOf(fields) {
  return fields
    .split(" ")
    .filter(Boolean)
    .map((field) => {
      const [, name, optional, letter] = /^(\w+)(\?)?:([a-z])$/.exec(field) ?? [];
      if (!TYPES[letter]) throw new Error(`events.def: cannot read the field ${field}`);
      return optional ? `${name}?: ${TYPES[letter]} | null` : `${name}: ${TYPES[letter]}`;
    });
}

function renderEvents() {
  const rows = rowsOf(readTable("events.def"), "EVENT");
  const shapes = new Map(); // fields -> name of the first type that has them
  const lines = ["/** Payload of each event type. */", "export interface EventPayloads {"];
  for (const [name, , , , fields] of rows) {
    const same = shapes.get(fields);
    if (!fields) {
      lines.push(`  ${name}: Record<string, unknown>;`);
    } else if (same) {
      lines.push(`  ${name}: EventPayloads["${same}"];`);
    } else {
      shapes.set(fields, name);
      lines.push(`  ${name}: {`, ...payloadOf(fields).map((field) => `    ${field};`), "  };");
    }
  }
  lines.push("}", "", "/** What becomes of a message that Belfry's own writers write. */");
  lines.push("export const EVENTS = {");
  for (const [name, group, store, conflate] of rows)
    lines.push(
      `  ${name}: { group: "${group.toLowerCase()}", store: "${store.toLowerCase()}", ` +
        `conflate: ${JSON.stringify(conflate)} },`,
    );
  return [...lines, "} as const;"];
}

function renderCloses() {
  const lines = [
    "/** Each close code of the protocol: the reason in its frame and what a client does then. */",
    "export const CLOSES: Readonly<Record<number, { reason: string; advice: Advice }>> = {",
  ];
  const known = new Map(); // code -> advice: the first row's reason stands for the others
  for (const [name, code, reason, , client] of rowsOf(readTable("closes.def"), "CLOSE")) {
    if (code === "0") continue;
    if (!ADVICE[client]) throw new Error(`closes.def: ${name}: no word for "${client}"`);
    if (known.has(code)) {
      if (known.get(code) !== ADVICE[client]) throw new Error(`closes.def: ${code}: two advices`);
      continue;
    }
    known.set(code, ADVICE[client]);
    lines.push(`  ${code}: { reason: ${JSON.stringify(reason)}, advice: "${ADVICE[client]}" },`);
  }
  const union = [...new Set(known.values())].sort().map((word) => `"${word}"`).join(" | ");
  return [`export type Advice = ${union};`, "", ...lines, "};"];
}

const text = [
  "// Made by scripts/generate-tables.mjs from shared/events.def and shared/closes.def: edit those.",
  "",
  'export type Priority = "low" | "medium" | "high" | "critical";',
  'export type NotificationKind = "success" | "error" | "warning" | "info";',
  "",
  ...renderEvents(),
  "",
  "export type EventType = keyof EventPayloads;",
  "",
  ...renderCloses(),
  "",
].join("\n");

if (process.argv.includes("--check")) {
  let present = "";
  try {
    present = readFileSync(target, "utf8");
  } catch {
    // Not there: as good as out of date.
  }
  if (present !== text) {
    console.error(`${fileURLToPath(target)} is out of date: npm run generate`);
    process.exit(1);
  }
} else {
  writeFileSync(target, text);
}
