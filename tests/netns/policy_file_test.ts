// SPDX-License-Identifier: GPL-2.0-or-later
/** `--policy`: a program that decides on the guest's connections, at once or later. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { FlowAnswer, FlowQuestion } from "../../lib/forward/question.ts";
import { Controller } from "../helpers/controller.ts";
import { effectsCommand } from "../helpers/effects.ts";
import {
  assertReaches,
  At,
  dig,
  forged,
  HOST_PORT,
  NEEDS,
  OTHER_PORT,
  policyFile,
  PORT,
  reached,
  SPLICED,
  SPLICED_ALLOWED,
  v4,
  v6,
  world,
} from "../helpers/policy_world.ts";
import { type IdleGuest, Net, type Testbed } from "../helpers/testbed.ts";
import { WatchedGuest } from "../helpers/watched.ts";

/** A program by address: each verdict, and what is no answer. Writes down what it is asked. */
const PROGRAM = `
const VERDICTS = ${
  JSON.stringify({
    [At.ALLOWED]: { verdict: "allow", label: "allowed" },
    [At.BELOW]: "reject",
    [At.PARENT]: "prohibit",
    [At.BY_TCP]: "drop",
    [At.MOCKED]: { verdict: "allow", target: `127.0.0.1:${HOST_PORT}`, label: "mock" },
    [At.EVIL]: { verdict: "allow", taget: "127.0.0.1" },
  })
};
interface Flow { readonly address: string, namedPort: number, via: string, resolver: boolean }
export default (flow: Flow): unknown => {
  Deno.writeTextFileSync(LOG, JSON.stringify(flow) + "\\n", { append: true });
  const last = flow.address.split(/[.:]/).at(-1)!;
  if (flow.resolver) return "allow";
  if (flow.via === "namespace") return flow.namedPort === ${SPLICED_ALLOWED} ? "allow" : "reject";
  if (flow.address === "127.0.0.1") return "allow";
  if (last === "${At.LITERAL}") throw new Error("I do not like " + flow.address);
  return VERDICTS[last];
};
`;

const splices = [SPLICED, SPLICED_ALLOWED].flatMap((port) =>
  ["-T", "-U"].flatMap((option) => [option, `${port}:${HOST_PORT}`])
);

/** What the program was asked so far. */
function asked(log: string): FlowQuestion[] {
  return Deno.readTextFileSync(log).trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** Each of both families, by TCP, UDP and ping. */
const all = (last: number) =>
  [v4(last), v6(last)].flatMap((a) => [`tcp ${a} ${PORT}`, `udp ${a} ${PORT}`, `ping ${a}`]);

async function testVerdicts(guest: IdleGuest, t: Deno.TestContext): Promise<void> {
  await t.step("what it allows is reached, and nothing else", async () => {
    const denied = [At.BELOW, At.LITERAL, At.EVIL].flatMap(all);
    await assertReaches(guest, all(At.ALLOWED), denied);
  });
  await t.step("each denial is told as it says, also to a forged source", async () => {
    const cases: [last: number, tcp: string, udp: string][] = [
      [At.BELOW, "tcp RST ACK", "icmp"],
      [At.PARENT, "icmp", "icmp"],
      [At.BY_TCP, "nothing", "nothing"],
      [At.LITERAL, "tcp RST ACK", "icmp"],
      [At.EVIL, "tcp RST ACK", "icmp"],
    ];
    const tries = [[v4, "10.9.9.", "icmp 3 13"], [v6, "2001:db8:99::", "icmp 1 1"]] as const;
    for (const [of, sources, icmp] of tries) {
      const told = await Promise.all(
        cases.flatMap(([last]) =>
          ["tcp", "udp"].map((protocol, k) =>
            forged(guest, protocol, `${sources}${2 * last + k}`, of(last), `${PORT}`)
          )
        ),
      );
      const expected = cases.flatMap(([, ...says]) => says);
      assertEquals(told, expected.map((text) => text === "icmp" ? icmp : text));
    }
  });
  await t.step("the host and its splice path are what they really are", async () => {
    const [open, shut] = [SPLICED_ALLOWED, SPLICED].map((port) =>
      ["127.0.0.1", "::1"].flatMap((a) => [`tcp ${a} ${port}`, `udp ${a} ${port}`])
    );
    const v6Gateway = [`tcp ${Net.GATEWAY6} ${HOST_PORT}`, `udp ${Net.GATEWAY6} ${HOST_PORT}`];
    const v4Gateway = [`tcp ${Net.GATEWAY4} ${HOST_PORT}`, `udp ${Net.GATEWAY4} ${HOST_PORT}`];
    await assertReaches(guest, [...open!, ...v4Gateway], [...shut!, ...v6Gateway]);
  });
  await t.step("it redirects IPv4 to a port of the host, and rejects what is of IPv6", async () => {
    const questions = [`tcp ${v4(At.MOCKED)} 80`, `udp ${v4(At.MOCKED)} 81`];
    const { stdout } = await guest.run(effectsCommand("ask", ...questions));
    const answers = questions.map((question) => `${question}: 127.0.0.1 ${HOST_PORT} asked by `);
    assertEquals(stdout.replaceAll("127.0.0.1\n", "\n"), `${answers.join("\n")}\n`);
    await assertReaches(guest, [], [`tcp ${v6(At.MOCKED)} 80`, `udp ${v6(At.MOCKED)} 80`]);
  });
}

/** Connects by one port again and again; `sends` is done with each socket twice. */
const TWICE = `
import socket, sys
for kind, tries in ((socket.SOCK_STREAM, 2), (socket.SOCK_DGRAM, 3)):
    for _ in range(tries):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 4321))
            try:
                sock.connect((sys.argv[1], int(sys.argv[2])))
                sock.send(b"?")
            except OSError:
                pass
`;

async function testOnce(guest: IdleGuest, log: string, t: Deno.TestContext): Promise<void> {
  await t.step("it is asked once for each flow, however often the guest tries", async () => {
    for (const last of [At.ALLOWED, At.BELOW]) {
      const before = asked(log).length;
      await guest.run(["python3", "-c", TWICE, v4(last), `${OTHER_PORT}`]);
      const questions = asked(log).slice(before);
      const udp = questions.filter(({ protocol }) => protocol === "udp");
      assertEquals(udp.length, 1, JSON.stringify(questions));
      const { address, port, sourcePort, source, via } = udp[0]!;
      assertEquals([address, port], [v4(last), OTHER_PORT]);
      assertEquals([source, sourcePort, via], [Net.HOST4, 4321, "tap"]);
      const tcp = questions.length - 1;
      assert(last === At.BELOW ? tcp === 1 : tcp >= 1 && tcp <= 2, `${tcp} questions`);
    }
  });
  await t.step("it is told the names that the resolver gave, and no other", async () => {
    await dig(guest, `@${Net.REMOTE4}`, "a.b.wild.test");
    await dig(guest, `@${Net.REMOTE4}`, "gateway.wild.test");
    await reached(guest, `tcp ${v4(At.BELOW)} ${PORT}`, `tcp ${Net.GATEWAY4} ${HOST_PORT}`);
    const [query, , name, gateway] = asked(log).slice(-4);
    assertEquals([query!.resolver, query!.protocol, query!.port], [true, "udp", 53]);
    assertEquals([name!.names, name!.resolver], [["a.b.wild.test"], false]);
    const { names, address, namedAddress } = gateway!;
    assertEquals([names, address, namedAddress], [[], "127.0.0.1", Net.GATEWAY4]);
  });
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `--policy FILE decides on every new flow${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await world(user);
      await using file = await policyFile(PROGRAM);
      const watched = await WatchedGuest.start(bed, user, [...splices, "--policy", file.path]);
      await using _ = watched;
      await testVerdicts(watched.guest, t);
      await testOnce(watched.guest, file.log, t);
      await t.step("its labels are in the table, and no other flow has one", async () => {
        const { guest } = watched;
        await guest.run(effectsCommand("ask", `udp ${v4(At.MOCKED)} 7`, ...all(At.ALLOWED)));
        const labels = watched.flows().map(({ label, target: { address, port }, initiator }) =>
          [label, address, port, initiator.pif] as const
        );
        assert(labels.some(([label]) => label === "allowed"));
        assert(labels.some(([label, address]) => label === "mock" && address === "127.0.0.1"));
        for (const [label, address] of labels) {
          assertEquals(label === "allowed", [v4(At.ALLOWED), v6(At.ALLOWED)].includes(address));
        }
      });
      const { stderr } = watched.guest.background;
      assertMatch(stderr, /^Policy: flow to .* rejected: (Error: I do not like|.*"taget")/m);
    },
  });
}

Deno.test({
  name: "--policy: rules come first, and the program decides on the rest",
  ...NEEDS,
  async fn() {
    await using bed = await world(false);
    await using file = await policyFile(PROGRAM);
    const rules = ["--deny-out", v4(At.ALLOWED), "--allow-out", v4(At.BELOW)];
    const guest = await bed.idleGuest({ options: [...rules, "--policy", file.path] });
    const [allowed4, allowed6] = [v4, v6].map((of) => `tcp ${of(At.ALLOWED)} ${PORT}`);
    const [below4, below6] = [v4, v6].map((of) => `tcp ${of(At.BELOW)} ${PORT}`);
    await assertReaches(guest, [allowed6!, below4!], [allowed4!, below6!]);
    assertEquals(asked(file.log).map(({ address }) => address), [
      v6(At.ALLOWED),
      ...Array(asked(file.log).length - 1).fill(v6(At.BELOW)),
    ]);
    await guest.stop();
  },
});

Deno.test({
  name: "--policy: what cannot be used is said in one line before the command runs",
  ...NEEDS,
  async fn() {
    await using bed = await world(false);
    const cases: [text: string, says: RegExp][] = [
      ["export default 7;", /its default export is not a function/],
      ["export const policy = () => 'allow';", /its default export is not a function/],
      ["export default async () => 'allow';", /its function must not be async/],
      ["export default (", /./],
      ["throw new Error('not today\\nor ever');", /not today$/],
      ["import './not-there.ts'; export default () => 'allow';", /not-there/],
    ];
    const start = async (path: string) => {
      const options = ["-q", "--policy", path];
      const { code, stdout, stderr } = await bed.guest(["echo", "ran"], { options });
      assertEquals([code, stdout], [1, ""], stderr);
      assertMatch(stderr, /^tubetti: --policy [^\n]*\n$/);
      return stderr.trimEnd();
    };
    for (const [text, says] of cases) {
      await using file = await policyFile(text);
      assertMatch(await start(file.path), says);
    }
    assertMatch(await start("/nowhere/policy.ts"), /policy\.ts/);
    assertMatch(await start("-"), /--policy -: needs --control$/);
  },
});

/** Answers what a program under test asks, until that ends. @returns what was asked */
async function answerAll(
  controller: Controller,
  answer: (flow: FlowQuestion, count: number) => Promise<FlowAnswer | null>,
): Promise<FlowQuestion[]> {
  const flows: FlowQuestion[] = [];
  for (let seen = 0; controller.code === null;) {
    for (; seen < controller.heard.length; seen++) {
      const { ask, flow } = controller.heard[seen]!;
      if (ask === undefined) continue;
      const decision = await answer(flow!, flows.push(flow!));
      if (decision !== null) controller.send({ answer: ask, decision });
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return flows;
}

/** Has a guest ask servers while somebody else decides. @returns its answers and how long that took */
async function askWithController(
  bed: Testbed,
  questions: string[],
  answer: (flow: FlowQuestion, count: number) => FlowAnswer | null,
  delayMs: number,
): Promise<{ answered: string[]; flows: FlowQuestion[]; ms: number }> {
  const command = effectsCommand("ask", ...questions), started = performance.now();
  const options = ["-q", "--config-net", ...splices, "--policy", "-", "--", ...command];
  await using controller = new Controller(bed, options);
  const flows = await answerAll(controller, async (flow, count) => {
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    return answer(flow, count);
  });
  assertEquals(controller.code, 0, controller.stderr);
  const lines = controller.stdout.trimEnd().split("\n");
  const answered = questions.filter((question, k) => lines[k]!.length > question.length + 2);
  return { answered, flows, ms: performance.now() - started };
}

Deno.test({
  name: "--policy -: flows are held until who steers us has answered, and go on at once then",
  ...NEEDS,
  async fn(t) {
    await using bed = await world(false);
    const yes = [...all(At.ALLOWED), `tcp 127.0.0.1 ${SPLICED}`, `tcp ::1 ${SPLICED}`];
    const no = [...all(At.BELOW), `tcp 127.0.0.1 ${SPLICED_ALLOWED}`];
    const open = [v4(At.ALLOWED), v6(At.ALLOWED), "127.0.0.1", "::1"];
    const verdict = ({ address, namedPort }: FlowQuestion): FlowAnswer =>
      open.includes(address) && namedPort !== SPLICED_ALLOWED ? "allow" : "reject";
    await t.step("each flow is asked about once, and takes its own answer", async () => {
      const questions = [...yes, ...no];
      const { answered, flows, ms } = await askWithController(bed, questions, verdict, 30);
      assertEquals(answered, yes);
      assert(ms < 20_000, `${ms} ms`); // a SYN that is lost comes again after a second
      const keys = flows.map((flow) => JSON.stringify(flow));
      assertEquals(new Set(keys).size, keys.length);
    });
    await t.step("what is answered wrong is rejected", async () => {
      const wrong = () => ({ verdict: "allow", taget: "127.0.0.1" }) as FlowAnswer;
      assertEquals((await askWithController(bed, yes, wrong, 0)).answered, []);
    });
    await t.step("what is not answered is not reached, nor by the answer to another", async () => {
      const questions = [`udp ${v4(At.ALLOWED)} ${PORT}`, `tcp ${v4(At.ALLOWED)} ${PORT}`];
      const some = ({ protocol }: FlowQuestion) => protocol === "tcp" ? "allow" : null;
      const { answered } = await askWithController(bed, questions, some, 0);
      assertEquals(answered, questions.slice(1));
    });
  },
});
