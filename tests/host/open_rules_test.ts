// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { mergeRules, parsePortSpec, type PortRule } from "../../lib/forward/ports.ts";
import { OpenRule, OpenRules } from "../../lib/host/open_rules.ts";

const PLACES = ["", "192.0.2.1/", "192.0.2.1%eth0/", "[2001:db8::1]/"];
const SHIFTS = [0, 0, 100];
const PORTS = 60;

/** A rule whose ports have listeners of their own numbers. */
function open(rule: PortRule): OpenRule {
  const { first, last } = rule;
  return new OpenRule(rule, Int32Array.from({ length: last - first + 1 }, (_, k) => first + k));
}

/** Every port of rules, with all that it says, as texts. */
function ports(rules: readonly PortRule[]): string[] {
  return rules.flatMap((rule) =>
    Array.from(
      { length: rule.last - rule.first + 1 },
      (_, k) =>
        JSON.stringify({ ...rule, first: rule.first + k, last: rule.first + k, to: rule.to + k }),
    )
  ).toSorted();
}

Deno.test("OpenRules has and takes what a list of single ports would", () => {
  let state = 1;
  const random = (n: number) => (state = (state * 48271) % 0x7fffffff) % n;
  const rules = new OpenRules(), model = new Set<string>();
  /** A text's rules; those of several places do not come in one. */
  const some = (): PortRule[] => {
    const place = PLACES[random(PLACES.length)]!;
    const ranges = Array.from({ length: 1 + random(4) }, (_, k) => {
      const first = 1 + k * 15 + random(8), last = first + random(7);
      const shift = SHIFTS[random(SHIFTS.length)]!;
      return `${first}-${last}:${first + shift}-${last + shift}`;
    });
    return parsePortSpec(place + ranges.join(","));
  };
  const key = (text: string) => {
    const { first, address, device } = JSON.parse(text) as PortRule;
    return JSON.stringify([first, address, device]);
  };
  let added = 0, taken = 0;
  for (let k = 0; k < 4000; k++) {
    const text = some(), single = ports(text);
    const busy = new Set([...model].map(key));
    for (const rule of text) {
      assertEquals(rules.has(rule), ports([rule]).every((port) => model.has(port)));
    }
    if (!single.some((port) => busy.has(key(port)))) {
      rules.add(text.map(open));
      for (const port of single) model.add(port);
      added++;
    } else if (text.every((rule) => rules.has(rule))) {
      const gone = rules.take(text);
      assertEquals(ports(gone.map(({ rule }) => rule)), single);
      for (const { rule, listeners } of gone) assertEquals(listeners, open(rule).listeners);
      for (const port of single) model.delete(port);
      taken++;
    } else {
      const [rule] = text;
      const near = rules.between(rule!.first, rule!.last).map(({ rule }) => rule);
      assert(near.every(({ first, last }) => first <= rule!.last && last >= rule!.first));
      const within = (port: string) => {
        const { first } = JSON.parse(port) as PortRule;
        return first >= rule!.first && first <= rule!.last;
      };
      assertEquals(ports(near).filter(within), [...model].filter(within).toSorted());
      const [one] = [...model].filter(() => random(PORTS) === 0);
      if (one === undefined) continue;
      rules.take([JSON.parse(one, revive)]);
      model.delete(one);
    }
    assertEquals(ports(rules.all()), [...model].toSorted());
  }
  assert(added > 50 && taken > 5, `${added} ${taken}`);
  rules.take(mergeRules([...model].map((text) => JSON.parse(text, revive))));
  assertEquals(rules.all(), []);
});

/** Makes addresses out of what JSON made of them. */
function revive(name: string, value: unknown): unknown {
  if (name !== "address" || value === null) return value;
  return Int32Array.from(Object.values(value as object));
}
