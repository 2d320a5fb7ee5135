// A page for the browser tests: the package itself, as a browser loads it, and nothing else.

import { createServer, type Server } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "vite";

export class PageServer {
  private constructor(
    readonly server: Server,
    readonly url: string,
  ) {}

  static async start(): Promise<PageServer> {
    const script = await bundle();
    const server = createServer((request, response) => {
      const isScript = request.url === "/client.js";
      response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
      response.end(isScript ? script : '<!doctype html><script type="module" src="/client.js"></script>');
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    return new PageServer(server, `http://127.0.0.1:${port}/`);
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** The core as one module that puts BelfryClient where a test finds it. */
async function bundle(): Promise<string> {
  const result = await build({
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      target: "es2022",
      lib: {
        entry: fileURLToPath(new URL("./page-entry.ts", import.meta.url)),
        formats: ["es"],
        fileName: "client",
      },
    },
  });
  const [output] = Array.isArray(result) ? result : [];
  const chunk = output?.output[0];
  if (!chunk) throw new Error("nothing was built");
  return chunk.code;
}
