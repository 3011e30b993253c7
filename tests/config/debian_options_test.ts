// SPDX-License-Identifier: GPL-2.0-or-later
/** Whether all options that the peer's manual pages have are known. */
import { assert, assertEquals } from "@std/assert";
import { OPTIONS } from "../../lib/config/table.ts";
import { requirements } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";

const PAGE = "/usr/share/man/man1/passt.1.gz";

/** Flags that the page shows with a value, or under the letter of another one, by mistake. */
const MISTAKES: Record<string, string> = {
  "--no-dhcp-dns addr": "--no-dhcp-dns",
  "--dhcp-dns addr": "--dhcp-dns",
  "--no-dhcp-search addr": "--no-dhcp-search",
  "--dhcp-search addr": "--dhcp-search",
  "-4, --ipv6-only": "-6, --ipv6-only",
};

/** Options of newer pages, up to 2026: long name, letter, whether it has a value. */
const NEWER: readonly [string, string | undefined, boolean][] = [
  ["chroot-fallback", undefined, false],
  ["conf-path", "c", true],
  ["dns-host", undefined, true],
  ["fqdn", undefined, true],
  ["freebind", undefined, false],
  ["host-lo-to-ns-lo", undefined, false],
  ["hostname", "H", true],
  ["log-size", undefined, true],
  ["map-guest-addr", undefined, true],
  ["map-host-loopback", undefined, true],
  ["migrate-exit", undefined, false],
  ["migrate-no-linger", undefined, false],
  ["netns-only", undefined, false],
  ["no-copy-addrs", undefined, false],
  ["no-copy-routes", undefined, false],
  ["no-netns-quit", undefined, false],
  ["no-splice", undefined, false],
  ["ns-ifname", "I", true],
  ["ns-mac-addr", undefined, true],
  ["outbound-if4", undefined, true],
  ["outbound-if6", undefined, true],
  ["print-capabilities", undefined, false],
  ["repair-path", undefined, true],
  ["socket-path", "s", true],
  ["splice-only", undefined, false],
  ["stats", undefined, true],
  ["vhost-user", undefined, false],
];

/** Finds an option of the table by any long name. */
function known(name: string) {
  return OPTIONS.find((spec) => spec.name === name || spec.aliases?.includes(name));
}

/** `-m, --mtu mtu` as headings of the page, from its source: `.BR \-m ", " \-\-mtu " " \fImtu`. */
function headings(source: string): string[] {
  const lines = source.split("\n").filter((line, i, all) =>
    all[i - 1] === ".TP" && /^\.BR \\-/.test(line)
  );
  const plain = (line: string) =>
    line.slice(".BR ".length).replaceAll("\\-", "-").replace(/\\f[A-Z]/g, "")
      .replace(/ ?"([^"]*)" ?/g, "$1");
  return [...new Set(lines.map(plain).map((heading) => MISTAKES[heading] ?? heading))];
}

Deno.test({
  name: "every option of Debian's manual page of pasta and passt is known, with letter and value",
  ...requirements({ packages: ["passt"], root: false }),
  async fn() {
    const found = headings(await must(["zcat", PAGE]));
    assert(found.length > 50, `${found.length} found: ${found.join("; ")}`);
    for (const heading of found) {
      const [, letter, name, value] = /^(?:-(\w), )?--([a-z0-9-]+)(?: (.+))?$/.exec(heading) ?? [];
      assert(name !== undefined, heading);
      const spec = known(name);
      assert(spec, `${heading}: not in the table`);
      assertEquals([spec.short, spec.value !== undefined], [letter, value !== undefined], heading);
    }
  },
});

Deno.test("every option of newer manual pages is known, with letter and value", () => {
  for (const [name, letter, value] of NEWER) {
    const spec = known(name);
    assert(spec, `--${name}: not in the table`);
    assertEquals([spec.short, spec.value !== undefined], [letter, value], name);
  }
});
