// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * steer.ts PROGRAM ADDRESS PORT HOST-PORT: a script that starts the executable, decides on its flows, opens a port
 * of the host and asks there. Prints what it has seen as JSON.
 *
 * @module
 */
import { type FlowQuestion, spawn } from "../../mod.ts";

const [program, address, port, hostPort] = Deno.args as [string, string, string, string];
/** Asks a server, tells what it says, waits for a question and answers it. */
const COMMAND = `exec 3<>/dev/tcp/${address}/${port}; read line <&3; echo "$line"
  (exec 4<>/dev/tcp/${address}/1) 2>/dev/null || echo refused
  socat TCP-LISTEN:80 SYSTEM:"echo from inside"`;

const asked: FlowQuestion[] = [];
await using guest = spawn({
  program: [program],
  command: ["bash", "-c", COMMAND],
  stdout: "piped",
  tcp: [],
  udp: [],
  policy: (flow) => {
    asked.push(flow);
    return flow.port === Number(port) ? { verdict: "allow", label: "known" } : "reject";
  },
});
const events = guest.events();
const closed = Array.fromAsync(events, (event) => event.kind === "closed" ? event.flow : null);
const ready = await guest.ready;
await guest.forward.add({ protocol: "tcp", ports: `${hostPort}:80` });
const listed = await guest.forward.list();

/** Asks the port that was opened until somebody answers. */
async function ask(): Promise<string> {
  for (;;) {
    try {
      const { readable } = await Deno.connect({ hostname: "127.0.0.1", port: Number(hostPort) });
      const text = await new Response(readable).text();
      if (text !== "") return text;
    } catch {
      // nobody listens inside yet
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const answer = await ask();
const output = await new Response(guest.stdout).text();
const { code } = await guest.status;
const flows = (await closed).filter((flow) => flow !== null);
console.log(JSON.stringify({ ready, listed, asked, answer, output, code, flows }));
