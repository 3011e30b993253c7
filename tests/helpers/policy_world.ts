// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What tests of policies need: servers on addresses of both families, a resolver with their names, one that
 * lies, and ways for a guest to try what it may reach.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { PYTHON } from "./edge.ts";
import { effectsCommand } from "./effects.ts";
import { ip } from "./netns.ts";
import { requirements } from "./require.ts";
import { describe } from "./run.ts";
import { type IdleGuest, Net, Testbed, UPLINK } from "./testbed.ts";

const FORGED = new URL("./forged.py", import.meta.url).pathname;
export const NEEDS = requirements({
  packages: ["python3", "dnsmasq-base", "dnsutils", "iputils-ping"],
  tubetti: true,
});

/** Where servers are, on each address of the remote, and on the host's loopback. */
export const PORT = 25981, OTHER_PORT = 25982, HOST_PORT = 25983;
/** Ports of the namespace for the host's loopback. */
export const SPLICED = 25984, SPLICED_ALLOWED = 25985;
/** The server that a guest might have itself. */
export const EVIL = "198.51.100.66", EVIL_PORT = 5353;
/** Addresses of the remote: the last numbers of both families. */
export const At = {
  ALLOWED: 11,
  BELOW: 12,
  PARENT: 13,
  BY_TCP: 14,
  EVIL: 15,
  LITERAL: 16,
  MOCKED: 17,
};
export const v4 = (last: number) => `198.51.100.${last}`;
export const v6 = (last: number) => `2001:db8:2::${last}`;

/** What the real resolver says. */
const RECORDS = [
  `allowed.test,${v4(At.ALLOWED)},${v6(At.ALLOWED)}`,
  `a.b.wild.test,${v4(At.BELOW)},${v6(At.BELOW)}`,
  `wild.test,${v4(At.PARENT)}`,
  `tcp.wild.test,${v4(At.BY_TCP)}`,
  `gateway.wild.test,${Net.GATEWAY4},${Net.GATEWAY6}`,
  "loopback.wild.test,127.0.0.1,::1",
  `mock.test,${v4(At.MOCKED)}`,
];

export function dnsmasq(address: string, port: number, records: readonly string[]): string[] {
  const quiet = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
  const where = [`--listen-address=${address}`, "--bind-interfaces", `--port=${port}`];
  return ["dnsmasq", "--keep-in-foreground", ...quiet, ...where]
    .concat(records.map((record) => `--host-record=${record}`));
}

/** A testbed with servers, a resolver on both families, and one that lies. */
export async function world(user: boolean): Promise<Testbed> {
  const bed = await Testbed.create({ user });
  const numbers = Object.values(At);
  await ip(bed.remote, [
    `addr add ${EVIL}/32 dev lo`,
    ...numbers.flatMap((
      n,
    ) => [`addr add ${v4(n)}/32 dev lo`, `addr add ${v6(n)}/128 dev lo nodad`]),
  ]);
  const served = numbers.flatMap((n) => [v4(n), v6(n)]).concat(EVIL)
    .flatMap((address) => [`${address} ${PORT}`, `${address} ${OTHER_PORT}`]);
  const text = "ready\n";
  await Promise.all([
    bed.serveRemote(effectsCommand("serve", ...served), { text }),
    bed.serveHost(effectsCommand("serve", `127.0.0.1 ${HOST_PORT}`, `::1 ${HOST_PORT}`), { text }),
    bed.serveRemote(dnsmasq(`${Net.REMOTE4},${Net.REMOTE6}`, 53, RECORDS), { udp: 53, tcp: 53 }),
    ...[53, EVIL_PORT].map((port) =>
      bed.serveRemote(dnsmasq(EVIL, port, [`allowed.test,${v4(At.EVIL)},${v6(At.EVIL)}`]), {
        udp: port,
      })
    ),
  ]);
  return bed;
}

/** Asks `PROTO ADDRESS [PORT]`, and says which of the questions were answered. */
export async function reached(guest: IdleGuest, ...questions: string[]): Promise<string[]> {
  const command = effectsCommand("ask", ...questions);
  const result = await guest.run(command);
  assertEquals(result.code, 0, describe(command, result));
  const answers = result.stdout.trimEnd().split("\n");
  return questions.filter((_, k) => answers[k]!.length > questions[k]!.length + 2);
}

/** Fails unless the guest reaches the first questions' destinations and none of the others. */
export async function assertReaches(guest: IdleGuest, yes: string[], no: string[]): Promise<void> {
  assertEquals(await reached(guest, ...yes, ...no), yes);
}

/** What a resolver answers. */
export async function dig(guest: IdleGuest, ...words: string[]): Promise<string> {
  return (await guest.run(["dig", "+short", "+time=1", "+tries=1", ...words])).stdout.trim();
}

/** What comes back for a source that is not the guest's. */
export async function forged(guest: IdleGuest, ...words: string[]): Promise<string> {
  const command = [PYTHON, FORGED, UPLINK, ...words];
  const result = await guest.run(command);
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout.trim();
}

/** A module with this text, which everybody may read, in a folder where everybody may write. */
export async function policyFile(
  text: string,
): Promise<AsyncDisposable & { readonly path: string; readonly log: string }> {
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-policy-` });
  const path = `${folder}/a policy #1%.ts`, log = `${folder}/log`;
  await Deno.chmod(folder, 0o777);
  await Deno.writeTextFile(path, text.replaceAll("LOG", JSON.stringify(log)));
  await Deno.chmod(path, 0o644);
  return {
    path,
    log,
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}
