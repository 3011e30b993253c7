// SPDX-License-Identifier: GPL-2.0-or-later
/** The executable with a policy that is a program, and steered by a script. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { must } from "../helpers/run.ts";
import { Net } from "../helpers/testbed.ts";
import { shipRequirements } from "./made.ts";
import { Shipped, writableFolder } from "./shipped.ts";

const NEEDS = shipRequirements({ packages: ["socat"] });
const PORT = 25871, HOST_PORT = 25872;
const READ_ONLY = 0o555;
const STEER = new URL("steer.ts", import.meta.url).pathname;

/** TypeScript that is more than JavaScript with types: it has to be translated. */
const POLICY = `import { Port } from "./sub dir/ports.ts";
import type { Nothing } from "./nowhere.ts";
type Question = { readonly port: number; readonly names: readonly string[] };
export default (flow: Question): "allow" | "reject" => flow.port === Port.OPEN ? "allow" : "reject";
`;
const PORTS = `export enum Port { OPEN = ${PORT} }\n`;

/** A folder with a policy that cannot be written. */
function policyFolder(): string {
  const folder = writableFolder();
  Deno.mkdirSync(`${folder}/sub dir`);
  Deno.writeTextFileSync(`${folder}/poli%23cy?.ts`, POLICY);
  Deno.writeTextFileSync(`${folder}/sub dir/ports.ts`, PORTS);
  Deno.chmodSync(folder, READ_ONLY);
  return folder;
}

function serve(shipped: Shipped): Promise<unknown> {
  const listen = `TCP4-LISTEN:${PORT},fork,reuseaddr`;
  return shipped.bed.serveRemote(["socat", listen, "SYSTEM:echo hello"], { tcp: PORT });
}

const question = (
  port: number,
) => ["bash", "-c", `exec 3<>/dev/tcp/${Net.REMOTE4}/${port} && cat <&3`];

Deno.test({
  name: "the executable loads a policy of TypeScript, and writes nothing",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    await serve(shipped);
    const folder = policyFolder(), home = writableFolder();
    const names = ["HOME", "TMPDIR", "XDG_CACHE_HOME", "DENO_DIR"];
    const set = names.map((name) => `${name}=${home}`);
    const options = { options: ["-q", "--policy", "poli%23cy?.ts"] };
    const program = ["env", "-C", folder, ...set, `${shipped.folder}/pasta`];
    const open = await shipped.guest(question(PORT), { ...options, program });
    assertEquals([open.code, open.stdout, open.stderr], [0, "hello\n", ""]);
    const shut = await shipped.guest(question(PORT + 1), { ...options, program });
    assert(shut.code !== 0);
    assertStringIncludes(shut.stderr, "Connection refused");
    assertEquals([...Deno.readDirSync(home)], []);
    assertEquals((await must(["find", folder, "-type", "f"])).trimEnd().split("\n").length, 2);
    const unset = ["env", "-C", folder, ...shipped.program()];
    assertEquals((await shipped.guest(question(PORT), { ...options, program: unset })).code, 0);
    for (const path of [folder, home]) await Deno.remove(path, { recursive: true });
  },
});

Deno.test({
  name: "the executable says in one line why it does not take a policy",
  ...NEEDS,
  async fn(t) {
    await using shipped = await Shipped.create();
    const folder = writableFolder();
    const wrong = {
      "broken.ts": ["export default (flow: => 1;\n", /Expression expected|Expected|Unexpected/],
      "number.ts": ["export default 7;\n", /default export is not a function/],
      "remote.ts": ['import "https://example.com/x.ts";\n', /--no-remote/],
      "throws.ts": ['throw new Error("no luck");\n', /no luck/],
    } as const;
    for (const [name, [text, expected]] of Object.entries(wrong)) {
      await t.step(name, async () => {
        await Deno.writeTextFile(`${folder}/${name}`, text);
        const options = ["-q", "--policy", `${folder}/${name}`];
        const { code, stdout, stderr } = await shipped.guest(["true"], { options });
        assertEquals([code, stdout], [1, ""]);
        assertMatch(stderr, /^tubetti: --policy [^\n]+\n$/);
        assertMatch(stderr, expected);
      });
    }
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "a script steers the executable: policy, events, a port opened at run time",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    await serve(shipped);
    const args = [`${shipped.folder}/tubetti`, Net.REMOTE4, `${PORT}`, `${HOST_PORT}`];
    const script = [Deno.execPath(), "run", "--quiet", "--allow-all", STEER, ...args];
    const result = await shipped.bed.runHost(script);
    assertEquals([result.code, result.stderr], [0, ""]);
    const { ready, listed, asked, answer, output, code, flows } = JSON.parse(result.stdout);
    assertEquals([ready.address4, ready.socket], [Net.HOST4, null]);
    const own = { from: "host", protocol: "tcp", ports: `${HOST_PORT}:80` };
    assert(
      listed.some((entry: typeof own) => entry.from === own.from && entry.ports === own.ports),
    );
    type Question = { via: string; address: string; port: number };
    const first = (asked as Question[]).filter(({ via }) => via === "tap").slice(0, 2);
    assertEquals(first.map(({ address, port }) => [address, port]), [[Net.REMOTE4, PORT], [
      Net.REMOTE4,
      1,
    ]]);
    assertEquals([answer, output, code], ["from inside\n", "hello\nrefused\n", 0]);
    type Flow = { label: string | null; bytesFromTarget: number };
    const known = (flows as Flow[]).find(({ label }) => label === "known");
    assertEquals(known?.bytesFromTarget, "hello\n".length);
  },
});
