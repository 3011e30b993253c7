// SPDX-License-Identifier: GPL-2.0-or-later
/** The scripts that README shows, found by what stands before them, do what it says. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ip } from "../helpers/netns.ts";
import { example } from "../helpers/readme.ts";
import { requirements } from "../helpers/require.ts";
import { describe } from "../helpers/run.ts";
import { Scripts } from "../helpers/scripts.ts";
import { Net, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["python3", "dnsmasq-base", "curl"], tubetti: true });

/** Bytes of the large file that the remote serves, and what the small one holds. */
const BIG = 20_000_000, SMALL = "hello from the outside\n";
/** Most that the headers of a request and its response take. */
const HEADERS = 2000;
/** Address of a second name, and one that has no name. */
const API = "198.51.100.7", NAMELESS = "198.51.100.66";

/** A testbed with web servers and a resolver. */
async function world(): Promise<[Testbed, Scripts]> {
  const bed = await Testbed.create();
  const scripts = new Scripts(bed);
  scripts.write("index.html", SMALL);
  Deno.truncateSync(scripts.write("big", ""), BIG);
  await ip(bed.remote, [API, NAMELESS].map((address) => `addr add ${address}/32 dev lo`));
  const web = ["python3", "-m", "http.server", "-d", scripts.folder, "--bind", "::", "80"];
  await bed.serveRemote(web, { tcp: 80 });
  const quiet = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
  const where = [`--listen-address=${Net.REMOTE4}`, "--bind-interfaces"];
  const names = { "www.example.com": Net.REMOTE4, "api.example.com": API };
  const records = Object.entries(names).map((pair) => `--host-record=${pair}`);
  const dns = ["dnsmasq", "--keep-in-foreground", ...quiet, ...where, ...records];
  await bed.serveRemote(dns, { udp: 53 });
  return [bed, scripts];
}

/** Runs README's script with a command. @returns what it prints */
async function output(heading: string, ...args: string[]): Promise<string> {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
  const result = await scripts.run(example(heading), { args });
  assertEquals(result.code, 0, describe([heading, ...args], result));
  return result.stdout;
}

Deno.test("README lists the flows of a guest", NEEDS, async () => {
  const slowly = ["curl", "-s", "--limit-rate", "8M", "-o", "/dev/null"];
  const text = await output("List the flows of a guest.", ...slowly, "http://www.example.com/big");
  const row = text.split("\n").find((line) => line.includes(`${Net.REMOTE4} port 80`));
  assert(row, text);
  const [, type, state, , sent, received] = row.split("│").map((cell) => cell.trim()).slice(1);
  assertEquals(type, '"TCP connection"');
  assert(['"open"', '"closing"'].includes(state!), row); // the server may have sent everything
  assert(Number(sent) > 0 && Number(received) > 0 && Number(received) <= BIG + HEADERS, row);
});

Deno.test("README counts bytes per destination", NEEDS, async () => {
  const urls = ["", "big"].map((path) => `http://www.example.com/${path}`);
  const curl = ["curl", "-s", "-o", "/dev/null", "-o", "/dev/null", ...urls];
  const text = await output("Count bytes per destination.", ...curl);
  const counts = new Map(
    [...text.matchAll(/(\S+ port \d+) +│ +(\d+) /g)].map((
      [, place, bytes],
    ) => [place, Number(bytes)]),
  );
  const web = counts.get(`${Net.REMOTE4} port 80`)!, least = BIG + SMALL.length;
  assert(web > least && web < least + 2 * HEADERS, text);
  assert(counts.get(`${Net.REMOTE4} port 53`)! > 0, text);
});

Deno.test("README denies everything but a list of names", NEEDS, async () => {
  const words = `curl -s http://www.example.com/; curl -s http://${NAMELESS}/ || echo refused: $?`;
  const text = await output("Deny everything but a list of names.", "sh", "-c", words);
  assertEquals(text, `${SMALL}denied: tcp to ${NAMELESS} port 80\nrefused: 7\n`);
});

Deno.test("README sends one host to a local mock", NEEDS, async () => {
  const urls = ["http://api.example.com/users/1", "http://www.example.com/"];
  const text = await output("Send one host to a local mock.", "curl", "-s", ...urls);
  assertEquals(text, `mock: GET ${urls[0]}\n${SMALL}`);
});

Deno.test("README opens a port while the guest runs", NEEDS, async () => {
  const text = await output("Open a port while the guest runs.");
  assertStringIncludes(text, `200 ${SMALL}`);
  assertStringIncludes(text, '{ from: "host", protocol: "tcp", ports: "8080:80" }');
  assertStringIncludes(text, "closed again");
});
