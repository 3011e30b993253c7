// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  addPortSpec,
  DEFAULT_EPHEMERAL,
  formatPortRule,
  formatPortRules,
  parsePortSpec,
  type PortRule,
  PortSpecError,
  type PortSpecOptions,
  readEphemeralPorts,
} from "../../lib/forward/ports.ts";
import { random } from "../helpers/random_specs.ts";
import { BAD } from "./bad_port_specs.ts";
import { A, B, GOOD, REPEATED, rule, V4 } from "./port_specs.ts";

for (const [text, rows, flags] of GOOD) {
  Deno.test(`parsePortSpec() gives ${rows.length} exact rules for "${text}"`, () => {
    assertEquals(parsePortSpec(text), rows.map((row) => rule(row, flags)));
  });
}

for (const [text, message, options] of BAD) {
  Deno.test(`parsePortSpec() refuses "${text}" with a message of its own`, () => {
    const error = assertThrows(() => parsePortSpec(text, options), PortSpecError);
    assertEquals(error.message, message);
  });
}

/** Rules from texts given as repeated options. */
function combine(texts: readonly string[], options: PortSpecOptions = {}): PortRule[] {
  let rules: PortRule[] | null = null;
  for (const text of texts) rules = addPortSpec(rules, text, options);
  return rules ?? [];
}

Deno.test("the tables hold at least 150 specifications, none of them twice", () => {
  const texts = [...GOOD, ...BAD].map(([text]) => text);
  assert(texts.length >= 250, `${texts.length}`);
  assertEquals(new Set(GOOD.map(([text]) => text)).size, GOOD.length);
  assertEquals(new Set(BAD.map(([text]) => text)).size, BAD.length);
});

Deno.test("formatPortRules() prints what gives the same rules again, for every good text", () => {
  for (const [text] of GOOD) {
    const rules = parsePortSpec(text);
    const printed = formatPortRules(rules);
    assertEquals(combine(printed), rules, `${text} printed as ${printed}`);
    assertEquals(formatPortRules(combine(printed)), printed);
  }
});

Deno.test("formatPortRules() prints what gives the same rules again, for 2,000 random texts", () => {
  const next = random(1);
  let printable = 0;
  for (let i = 0; i < 2000; i++) {
    const text = next.spec();
    const ephemeral = next.range();
    let rules: PortRule[];
    try {
      rules = parsePortSpec(text, { ephemeral });
    } catch (error) {
      assert(error instanceof PortSpecError && !error.message.includes("\n"), `${text}: ${error}`);
      continue;
    }
    printable++;
    const printed = formatPortRules(rules, ephemeral);
    assertEquals(combine(printed, { ephemeral }), rules, `${text} printed as ${printed}`);
  }
  assert(printable > 1000, `${printable} of 2000 were good`);
});

Deno.test("formatPortRules() prints rules of repeated options so that they come back the same", () => {
  const next = random(2);
  let combined = 0;
  for (let i = 0; i < 500; i++) {
    let rules: PortRule[] | null = null;
    for (let n = 0; n < 4; n++) {
      try {
        rules = addPortSpec(rules, next.spec());
        combined += n;
      } catch (error) {
        assert(error instanceof PortSpecError, `${error}`);
      }
    }
    if (rules) assertEquals(combine(formatPortRules(rules)), rules);
  }
  assert(combined > 300, `${combined}`);
});

Deno.test("parsePortSpec() agrees with a plain model for random ranges and exclusions", () => {
  const next = random(3);
  for (let i = 0; i < 300; i++) {
    const [first, last] = next.range();
    const delta = next.below(65535 - last + first) + 1 - first;
    const out = Array.from({ length: next.below(6) }, () => next.range());
    const text = [
      `${first}-${last}:${first + delta}-${last + delta}`,
      ...out.map(([from, to]) => `~${from}-${to}`),
    ].join(",");
    const want = new Map<number, number>();
    for (let port = first; port <= last; port++) {
      if (!out.some(([from, to]) => port >= from && port <= to)) want.set(port, port + delta);
    }
    if (want.size === 0) continue;
    const rules = parsePortSpec(text);
    for (const { first, last, to } of rules) {
      for (let port = first; port <= last; port++) {
        assertEquals(want.get(port), to + port - first, text);
        want.delete(port);
      }
    }
    assertEquals(want.size, 0, text);
  }
});

Deno.test("formatPortRules() has one short form for every kind of rule", () => {
  const forms: [string[], string[]][] = [
    [["none"], ["none"]],
    [["24,22,23"], ["22-24"]],
    [["~22"], ["all,~22"]],
    [["all,~40000"], ["all"]],
    [["auto,all"], ["auto"]],
    [["auto,~1-1023"], ["auto,~1-1023"]],
    [["auto,22", "23"], ["auto,22", "23"]],
    [["auto,22", "auto,23"], ["auto,22-23"]],
    [["2001:DB8::1%eth0/22:22"], ["[2001:db8::1]%eth0/22"]],
    [["*%eth0/22"], ["%eth0/22"]],
    [["0.0.0.0/80:192.0.2.7/80"], ["80:192.0.2.7"]],
    [["22", "192.0.2.1/80,81", "23:24"], ["22,23:24", "192.0.2.1/80-81"]],
    [["all:[2001:db8::7],~22"], ["all:[2001:db8::7],~22"]],
    [["auto,all:192.0.2.7"], ["auto,all:192.0.2.7"]],
  ];
  for (const [texts, printed] of forms) assertEquals(formatPortRules(combine(texts)), printed);
});

Deno.test("formatPortRule() shows addresses, interface and ports of one rule", () => {
  assertEquals(formatPortRule(rule([1, 32767, 1], "weak auto")), "1-32767");
  assertEquals(formatPortRule(rule([22, 22, 23, A])), "192.0.2.1/22:23");
  assertEquals(
    formatPortRule(rule([22, 23, 32, { ...B, device: "eth0", target: "fd00::7" }])),
    "[2001:db8::1]%eth0/22-23:[fd00::7]/32-33",
  );
});

Deno.test("parsePortSpec() leaves out the ephemeral ports it is told", () => {
  const ports = (ephemeral: [number, number]) =>
    parsePortSpec("all", { ephemeral }).map(({ first, last }) => [first, last]);
  assertEquals(ports([1, 1024]), [[1025, 65535]]);
  assertEquals(ports([60000, 65535]), [[1, 59999]]);
  assertThrows(() => ports([1, 65535]), PortSpecError, "every port is excluded");
});

Deno.test("parsePortSpec() accepts targets for ports of the namespace, which have no address", () => {
  assertEquals(parsePortSpec("80:192.0.2.7/81", { bind: false }), [
    rule([80, 80, 81, { ...V4, target: "192.0.2.7" }]),
  ]);
  assertEquals(parsePortSpec("all,~1-32767", { bind: false, auto: false }), [
    rule([61000, 65535, 61000], "weak"),
  ]);
});

for (const [texts, message] of REPEATED) {
  Deno.test(`addPortSpec() ${message ? "refuses" : "combines"} "${texts.join('" and "')}"`, () => {
    if (message === null) return void assertEquals(combine(texts), combine(texts.toReversed()));
    assertEquals(assertThrows(() => combine(texts), PortSpecError).message, message);
  });
}

Deno.test("addPortSpec() merges neighbours of several options and keeps the rest apart", () => {
  assertEquals(combine(["22", "24", "23"]), [rule([22, 24, 22])]);
  assertEquals(combine(["22", "192.0.2.1/23"]), [rule([22, 22, 22]), rule([23, 23, 23, A])]);
  assertEquals(combine(["none", "none"]), []);
});

Deno.test("addPortSpec() leaves the rules that it is given as they are", () => {
  const before = parsePortSpec("22");
  addPortSpec(before, "23");
  assertEquals(before, [rule([22, 22, 22])]);
});

Deno.test("messages never repeat a long or hostile text as a whole", () => {
  for (const text of ["x".repeat(100_000), "1".repeat(100_000), `\x1b[2J\n${"9".repeat(99)}`]) {
    for (
      const spec of [text, `%${text}/22`, `22:${text}`, `~${text}`, `${text}/22`, `22,${text}`]
    ) {
      const { message } = assertThrows(() => parsePortSpec(spec), PortSpecError);
      // deno-lint-ignore no-control-regex
      assert(message.length < 250 && !/[\x00-\x1f]/.test(message), message);
    }
  }
  const long = "1,".repeat(100_000);
  assertThrows(() => parsePortSpec(long), PortSpecError, "longer than 131072 characters");
});

Deno.test("specifications of any size are read in bounded time", () => {
  const odd = Array.from({ length: 10_000 }, (_, i) => `~${2 * i + 1}`).join();
  const wide = Array.from({ length: 8_000 }, () => "1-65535").join();
  const texts = [
    "1-65535",
    `1-65535,${odd}`,
    odd,
    Array.from({ length: 20_000 }, (_, i) => i + 1).join(),
    `${wide},~1-65535`,
    `${wide},~1-65534`,
    `1-65535,${wide.replaceAll("1-", "~1-").slice(0, -8)}~2-65535`,
  ];
  const start = performance.now();
  for (const text of texts) {
    try {
      formatPortRules(parsePortSpec(text));
    } catch (error) {
      assert(error instanceof PortSpecError, `${error}`);
    }
  }
  const took = performance.now() - start;
  assert(took < 2000, `${took} ms`); // about 100 on an idle machine
});

Deno.test("readEphemeralPorts() reads the system's range, and has one for a system without", () => {
  const path = Deno.makeTempFileSync({ prefix: "tubetti-ports-" });
  const read = (text: string) => {
    Deno.writeTextFileSync(path, text);
    return readEphemeralPorts(path);
  };
  try {
    assertEquals(read("32768\t60999\n"), DEFAULT_EPHEMERAL);
    assertEquals(read("1024 65535"), [1024, 65535]);
    for (const text of ["", "0 60999\n", "60999 32768\n", "32768 65536\n", "32768\n", "a b\n"]) {
      assertEquals(read(text), [49152, 65535]);
    }
    assertEquals(readEphemeralPorts(`${path}.missing`), [49152, 65535]);
  } finally {
    Deno.removeSync(path);
  }
  const [first, last] = readEphemeralPorts();
  assert(first >= 1 && last >= first && last <= 65535);
});
