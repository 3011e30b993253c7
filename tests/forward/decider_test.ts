// SPDX-License-Identifier: GPL-2.0-or-later
/** Which answers of a program are taken, and what is said about others. */
import { assertEquals, assertThrows } from "@std/assert";
import { checkAnswer, checkFamily } from "../../lib/forward/decider.ts";
import { Verdict } from "../../lib/forward/policy.ts";
import { formatAddress } from "../../lib/wire/address.ts";

Deno.test("checkAnswer() takes a verdict as a word, and with a label", () => {
  const words = { allow: Verdict.ALLOW, reject: Verdict.REJECT, prohibit: Verdict.PROHIBIT };
  for (const [word, verdict] of Object.entries({ ...words, drop: Verdict.DROP })) {
    const bare = { verdict, target: null, targetPort: 0, label: "" };
    assertEquals(checkAnswer(word), bare);
    assertEquals(checkAnswer({ verdict: word }), bare);
    assertEquals(checkAnswer({ verdict: word, label: "web" }), { ...bare, label: "web" });
    assertEquals(checkAnswer({ verdict: word, label: undefined, target: undefined }), bare);
  }
});

Deno.test("checkAnswer() takes targets of both families, with and without a port", () => {
  const cases = { "192.0.2.7": 0, "192.0.2.7:80": 80, "2001:db8::7": 0, "[2001:db8::7]:81": 81 };
  for (const [target, port] of Object.entries(cases)) {
    const decision = checkAnswer({ verdict: "allow", target });
    assertEquals(decision.targetPort, port);
    assertEquals(formatAddress(decision.target!), target.replace(/^\[|\]?:8.$/g, ""));
  }
});

Deno.test("checkAnswer() takes another port of the same address", () => {
  const { target, targetPort } = checkAnswer({ verdict: "allow", target: ":81" });
  assertEquals([target, targetPort], [null, 81]);
  const address = checkAnswer({ verdict: "allow", target: "::1" }); // one colon more
  assertEquals([formatAddress(address.target!), address.targetPort], ["::1", 0]);
});

Deno.test("checkFamily() refuses what a flow's packets cannot carry", () => {
  const decision = (target: string) => checkAnswer({ verdict: "allow", target });
  checkFamily(decision("127.0.0.1"), true);
  checkFamily(decision("::1"), false);
  for (const isIpv4 of [true, false]) {
    checkFamily(decision(":81"), isIpv4);
    checkFamily(checkAnswer("drop"), isIpv4);
    const other = decision(isIpv4 ? "[::1]:80" : "127.0.0.1");
    assertThrows(() => checkFamily(other, isIpv4), TypeError, "is of the other family");
  }
});

Deno.test("checkAnswer() refuses what is no answer, and what would be read as another one", () => {
  const cases: [answer: unknown, says: string][] = [
    [undefined, "undefined is not an answer"],
    [null, "null is not an answer"],
    [true, "true is not an answer"],
    [0, "0 is not an answer"],
    ["", '"" is not a verdict'],
    ["ALLOW", '"ALLOW" is not a verdict ("allow", "reject", "prohibit" or "drop")'],
    [{}, "undefined is not a verdict"],
    [[], "undefined is not a verdict"],
    [["allow"], 'an answer has no "0"'],
    [{ verdict: true }, "true is not a verdict"],
    [{ verdict: "hold" }, '"hold" is not a verdict'],
    [Promise.resolve("allow"), "a promise is not an answer"],
    [{ verdict: "allow", taget: "127.0.0.1" }, 'an answer has no "taget"'],
    [{ verdict: "allow", target: null }, "target null is not text"],
    [{ verdict: "allow", target: "" }, "not an IPv4 or IPv6 address"],
    [{ verdict: "allow", target: "name.test" }, "not an IPv4 or IPv6 address"],
    [{ verdict: "allow", target: "0.0.0.0" }, "not the address of one host"],
    [{ verdict: "allow", target: "ff02::1" }, "not the address of one host"],
    [{ verdict: "allow", target: "255.255.255.255" }, "not the address of one host"],
    [{ verdict: "allow", target: "127.0.0.1:0" }, '"0" is not a port'],
    [{ verdict: "allow", target: ":0" }, '"0" is not a port'],
    [{ verdict: "allow", target: ":" }, "is not a port"],
    [{ verdict: "allow", target: ":80-81" }, '"80-81" is not a port'],
    [{ verdict: "drop", target: ":80" }, "what is denied goes nowhere"],
    [{ verdict: "allow", target: "::ffff:127.0.0.1" }, "an IPv4 address in IPv6 form"],
    [{ verdict: "allow", target: "1".repeat(9999) }, "longer than"],
    [{ verdict: "drop", target: "127.0.0.1" }, "what is denied goes nowhere"],
    [{ verdict: "allow", label: 7 }, "label 7 is not text"],
    [{ verdict: "x".repeat(9999) }, "x…"],
  ];
  for (const [answer, says] of cases) {
    const error = assertThrows(() => checkAnswer(answer), Error);
    assertEquals(error.message.includes(says), true, error.message);
    assertEquals(error.message.length < 200, true);
  }
});
