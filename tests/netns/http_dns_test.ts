// SPDX-License-Identifier: GPL-2.0-or-later
/** Everyday programs as the guest's command: curl, and resolvers behind --dns-forward. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { PYTHON } from "../helpers/edge.ts";
import { requirements } from "../helpers/require.ts";
import { describe, must } from "../helpers/run.ts";
import { type GuestOptions, Net, Testbed } from "../helpers/testbed.ts";

const HTTP_PORT = 25451;
const DNS_PORT = 53;
const FORWARD4 = "203.0.113.53";
const FORWARD6 = "2001:db8:3::53";
const NAME = "printer.example.com";
const ANSWER4 = "192.0.2.77";
const ANSWER6 = "2001:db8::77";

async function output(bed: Testbed, line: string, options: GuestOptions = {}): Promise<string> {
  const command = ["/bin/sh", "-c", line];
  const result = await bed.guest(command, options);
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout;
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `http: curl fetches a file${as}`,
    ...requirements({ packages: ["curl", "python3"] }),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-http-` });
      try {
        await must(["/bin/sh", "-c", `head -c 5000000 /dev/urandom >${folder}/file`]);
        const expected = (await must(["sha256sum", `${folder}/file`])).split(" ")[0]!;
        const server = ["-m", "http.server", `${HTTP_PORT}`, "--bind", "::", "--directory", folder];
        await bed.serveRemote([PYTHON, ...server], { tcp: HTTP_PORT });
        for (const address of [Net.REMOTE4, `[${Net.REMOTE6}]`]) {
          await t.step(address, async () => {
            const url = `http://${address}:${HTTP_PORT}/file`;
            const line = `curl -gsS --fail -m 40 ${url} | sha256sum`;
            assertStringIncludes(await output(bed, line), expected);
          });
        }
        await t.step("ten at the same time", async () => {
          const url = `http://${Net.REMOTE4}:${HTTP_PORT}/file`;
          const fetch = `(curl -sS --fail -m 40 ${url} | sha256sum) &`;
          const text = await output(bed, `for i in 1 2 3 4 5 6 7 8 9 10; do ${fetch} done; wait`);
          assertEquals(text.split("\n").filter((line) => line.startsWith(expected)).length, 10);
        });
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });

  Deno.test({
    name: `dns: dig and the C library resolve names${as}`,
    ...requirements({ packages: ["dnsutils", "dnsmasq-base"] }),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const records = [`--host-record=${NAME},${ANSWER4},${ANSWER6}`];
      const quiet = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
      const command = ["dnsmasq", "--keep-in-foreground", ...quiet, ...records];
      await bed.serveRemote(command, { udp: DNS_PORT, tcp: DNS_PORT });
      const dig = "dig +short +time=5 +tries=3";
      await t.step("over IPv4 and IPv6", async () => {
        assertEquals(await output(bed, `${dig} @${Net.REMOTE4} ${NAME}`), `${ANSWER4}\n`);
        assertEquals(await output(bed, `${dig} @${Net.REMOTE6} ${NAME} AAAA`), `${ANSWER6}\n`);
      });
      await t.step("over TCP", async () => {
        assertEquals(await output(bed, `${dig} +tcp @${Net.REMOTE4} ${NAME}`), `${ANSWER4}\n`);
      });
      await t.step("by the C library", async () => {
        assertMatch(await output(bed, `getent ahostsv4 ${NAME}`), new RegExp(`^${ANSWER4} `));
      });
      const forward = ["--dns-forward", FORWARD4, "--dns-forward", FORWARD6];
      await t.step("behind --dns-forward", async () => {
        const options = { options: forward };
        const ask = `${dig} @${FORWARD4} ${NAME} && ${dig} @${FORWARD6} ${NAME} AAAA`;
        assertEquals(await output(bed, ask, options), `${ANSWER4}\n${ANSWER6}\n`);
        const tcp = `${dig} +tcp @${FORWARD4} ${NAME} && ${dig} +tcp @${FORWARD6} ${NAME}`;
        assertEquals(await output(bed, tcp, options), `${ANSWER4}\n${ANSWER4}\n`);
      });
    },
  });
}

Deno.test({
  name: "dns: --dns-host names the resolver behind --dns-forward",
  ...requirements({ packages: ["dnsutils", "dnsmasq-base"], tubetti: true }),
  async fn() {
    await using bed = await Testbed.create({ resolvConf: "nameserver 192.0.2.250\n" });
    const quiet = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
    const command = [
      "dnsmasq",
      "--keep-in-foreground",
      ...quiet,
      `--host-record=${NAME},${ANSWER4}`,
    ];
    await bed.serveRemote(command, { udp: DNS_PORT, tcp: DNS_PORT });
    const options = ["--dns-forward", FORWARD4, "--dns-host", Net.REMOTE4];
    const ask = `dig +short +time=5 +tries=3 @${FORWARD4} ${NAME}`;
    assertEquals(await output(bed, ask, { options }), `${ANSWER4}\n`);
  },
});
