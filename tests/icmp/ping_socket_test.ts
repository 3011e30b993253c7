// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The tests of `ping_test.ts` again, where the host allows ping sockets: in a network namespace of
 * their own, which starts with nothing and ends with the command.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { run } from "../helpers/run.ts";

const FILE = new URL("ping_test.ts", import.meta.url).pathname;
const SETUP = 'ip link set lo up && sysctl -qw net.ipv4.ping_group_range="0 2147483647"';

Deno.test({
  name: "ping works with ping sockets as with raw ones",
  ...requirements(),
  async fn() {
    const test = `${Deno.execPath()} test -A --no-prompt --no-check ${FILE}`;
    const { code, stdout, stderr } = await run([
      "unshare",
      "-n",
      "sh",
      "-c",
      `${SETUP} && ${test}`,
    ]);
    assertEquals(code, 0, stderr + stdout);
    assert(stdout.includes("ok"), stdout);
  },
});
