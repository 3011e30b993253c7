// SPDX-License-Identifier: GPL-2.0-or-later
/** Large transfers between host and guest, socket to socket, arrive complete and unchanged. */
import { assert, assertEquals } from "@std/assert";
import { hostOf, optionsFor, tapBytes } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { type Background, describe, must } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 8111;
const HOST_PORT = 8112;
const TIMEOUT_MS = 120_000;
const BLOCK = "262144";

/** What other traffic may cross the tap meanwhile. */
const NOISE = 50_000;

function connectTo(family: 4 | 6, port: number): string {
  return family === 4 ? `TCP4:127.0.0.1:${port}` : `TCP6:[::1]:${port}`;
}

/**
 * One transfer between a server that `serve` starts and a client that `place` runs; the receiver
 * compares what comes with the source, byte by byte.
 *
 * @param upload the client sends, not the server
 */
async function transfer(
  serve: (command: readonly string[]) => Promise<Background>,
  place: ReturnType<typeof hostOf>,
  upload: boolean,
  [family, port]: [4 | 6, number],
  source: string,
): Promise<void> {
  const listen = `TCP6-LISTEN:${port},ipv6only=0,reuseaddr`;
  const remote = connectTo(family, port);
  const send = (to: string) => ["socat", "-u", "-b", BLOCK, `OPEN:${source},rdonly`, to];
  const compare = (from: string) => {
    return ["/bin/sh", "-c", `socat -u -b ${BLOCK} ${from} - | cmp - ${source}`];
  };
  const server = await serve(upload ? compare(listen) : send(listen));
  const client = upload ? send(remote) : compare(remote);
  const result = await place.run(client, { timeoutMs: TIMEOUT_MS });
  assertEquals(result.code, 0, describe(client, result));
  assertEquals(await server.wait(TIMEOUT_MS), 0, server.stdout + server.stderr);
}

/** Shell commands that wait until somebody listens on a port. */
function waitForListener(port: number): string {
  return `for i in $(seq 1000); do ss -Hltn "sport = :${port}" | grep -q . && exit 0; done; exit 1`;
}

async function everyWay(t: Deno.TestContext, user: boolean, size: string): Promise<void> {
  await using bed = await Testbed.create({ user });
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-splice-` });
  try {
    const source = `${folder}/source`;
    await must(["/bin/sh", "-c", `head -c ${size} /dev/urandom >${source}`]);
    const guest = await bed.idleGuest({
      options: optionsFor({ t: `${PORT}`, T: `${HOST_PORT}` }),
    });
    const serveGuest = async (command: readonly string[]) => {
      const server = guest.start(command);
      const { code } = await guest.run(["/bin/sh", "-c", waitForListener(PORT)]);
      assertEquals(code, 0, server.stderr);
      return server;
    };
    const serveHost = async (command: readonly string[]) => {
      const server = await bed.serveHost(command, { text: "" });
      const { code } = await bed.runHost(["/bin/sh", "-c", waitForListener(HOST_PORT)]);
      assertEquals(code, 0, server.stderr);
      return server;
    };
    const before = await tapBytes(guest);
    for (const family of [4, 6] as const) {
      for (const upload of [true, false]) {
        const what = `IPv${family}, the client ${upload ? "sends" : "receives"}`;
        await t.step(`-t, ${what}`, async () => {
          await transfer(serveGuest, hostOf(bed), upload, [family, PORT], source);
        });
        await t.step(`-T, ${what}`, async () => {
          await transfer(serveHost, guest, upload, [family, HOST_PORT], source);
        });
      }
    }
    const over = await tapBytes(guest) - before;
    assert(over < NOISE, `${over} bytes went over the tap`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "splice bulk: 1 GiB arrives unchanged, as root",
  ...requirements({ packages: ["socat", "iproute2"], tubetti: true }),
  fn: (t) => everyWay(t, false, "1G"),
});

Deno.test({
  name: "splice bulk: 100 MiB arrive unchanged, as an ordinary user",
  ...requirements({ packages: ["socat", "iproute2"], tubetti: true }),
  fn: (t) => everyWay(t, true, "100M"),
});
