// SPDX-License-Identifier: GPL-2.0-or-later
/** Large transfers arrive complete and unchanged; the guest's command does the transfer itself. */
import { assertEquals } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { describe, must } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 25401;
const TRANSFER_TIMEOUT_MS = 180_000;
const BLOCK = "262144";
const MODE_ALL = 0o777;

function socat(family: 4 | 6, address: string): string {
  return family === 4 ? `TCP4:${address}:${PORT}` : `TCP6:[${address}]:${PORT}`;
}

function sum(file: string): Promise<string> {
  return must(["sha256sum", "--", file], { timeoutMs: TRANSFER_TIMEOUT_MS })
    .then((line) => line.split(" ")[0]!);
}

/** Sends `source` one way through a new program under test, and compares what has arrived. */
async function transfer(
  bed: Testbed,
  family: 4 | 6,
  toGuest: boolean,
  folder: string,
  expected: string,
): Promise<void> {
  const target = `${folder}/received`;
  const listen = `TCP${family}-LISTEN:${PORT},reuseaddr`;
  const source = `OPEN:${folder}/source,rdonly`;
  const sink = `OPEN:${target},creat,trunc,wronly`;
  const remote = socat(family, Testbed.addresses(family).remote);
  const [server, client] = toGuest
    ? [["-u", source, listen], ["-u", remote, sink]]
    // not one-way: waits until the server has closed, as the command's end is the guest's end
    : [["-u", listen, sink], ["-t", "60", source, remote]];
  await Deno.remove(target).catch(() => {});
  const serving = await bed.serveRemote(["socat", "-b", BLOCK, ...server], { tcp: PORT });
  const command = ["socat", "-b", BLOCK, ...client];
  const options = { options: ["-m", "1500"], timeoutMs: TRANSFER_TIMEOUT_MS };
  try {
    const result = await bed.guest(command, options);
    assertEquals(result.code, 0, describe(command, result));
    assertEquals(await serving.wait(), 0, "the server did not end well");
  } finally {
    await serving.stop();
  }
  assertEquals(await sum(target), expected);
}

async function bothWays(t: Deno.TestContext, user: boolean, size: string): Promise<void> {
  await using bed = await Testbed.create({ user });
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-bulk-` });
  try {
    await Deno.chmod(folder, MODE_ALL);
    await must(["/bin/sh", "-c", `head -c ${size} /dev/urandom >${folder}/source`]);
    const expected = await sum(`${folder}/source`);
    for (const family of [4, 6] as const) {
      for (const toGuest of [false, true]) {
        const name = `IPv${family}, ${toGuest ? "host to guest" : "guest to host"}`;
        await t.step(name, () => transfer(bed, family, toGuest, folder, expected));
      }
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "tcp_bulk: 1 GiB arrives unchanged, as root",
  ...requirements({ packages: ["socat"] }),
  fn: (t) => bothWays(t, false, "1G"),
});

Deno.test({
  name: "tcp_bulk: 100 MiB arrive unchanged, as an ordinary user",
  ...requirements({ packages: ["socat"] }),
  fn: (t) => bothWays(t, true, "100M"),
});
