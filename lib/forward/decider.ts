// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Who decides on flows that no rule is about: what is asked, and what an answer may be.
 *
 * @module
 */
import { excerpt } from "../sys/text.ts";
import { type Address, formatAddress, isV4 } from "../wire/address.ts";
import { parseTargetOrPort, Verdict } from "./policy_rules.ts";
import type { FlowAnswer, FlowQuestion, FlowVerdict } from "./question.ts";

/** A program that decides. */
export interface Decider {
  /**
   * Decides on a flow that is about to begin. What it throws is logged, and the flow rejected.
   *
   * @param id names the question, for `Policy.answered`; no other question of the instance has it
   * @returns null: the answer comes later, by `Policy.answered`
   */
  decide(question: FlowQuestion, id: number): FlowAnswer | null;
}

/** An answer that was checked. */
export interface Decision {
  /** One of {@linkcode Verdict}, not HOLD. */
  readonly verdict: number;
  /** Where the flow goes instead; null: where it was going. */
  readonly target: Address | null;
  /** Port it goes to instead; 0: the port it was going to. */
  readonly targetPort: number;
  /** What the flow is called; "": nothing. */
  readonly label: string;
}

/** What becomes of a flow when nobody can say. */
export const REJECTED: Decision = {
  verdict: Verdict.REJECT,
  target: null,
  targetPort: 0,
  label: "",
};

const VERDICTS: ReadonlyMap<unknown, number> = new Map<FlowVerdict, number>([
  ["allow", Verdict.ALLOW],
  ["reject", Verdict.REJECT],
  ["prohibit", Verdict.PROHIBIT],
  ["drop", Verdict.DROP],
]);
const PROPERTIES: readonly string[] = ["verdict", "target", "label"];
/** Longest wrong value that a message shows. */
const MAX_SHOWN = 60;

function wrong(message: string): never {
  throw new TypeError(message);
}

/** A value as text, for messages. */
function shown(value: unknown): string {
  return excerpt(typeof value === "string" ? JSON.stringify(value) : String(value), MAX_SHOWN);
}

function parseVerdict(verdict: unknown): number {
  return VERDICTS.get(verdict) ??
    wrong(`${shown(verdict)} is not a verdict ("allow", "reject", "prohibit" or "drop")`);
}

/**
 * Checks an answer, which may be anything. What is not known is refused rather than passed over: of a
 * misspelt `target` nothing else would be left than "allow".
 *
 * @throws TypeError or PolicyRuleError that says what is wrong
 * @example
 * ```ts
 * import { checkAnswer } from "./decider.ts";
 * import { Verdict } from "./policy_rules.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(checkAnswer("drop").verdict, Verdict.DROP);
 * assertEquals(checkAnswer({ verdict: "allow", target: "127.0.0.1:80" }).targetPort, 80);
 * assertThrows(() => checkAnswer("yes"), TypeError, '"yes" is not a verdict');
 * ```
 */
export function checkAnswer(answer: unknown): Decision {
  if (typeof answer === "string") return { ...REJECTED, verdict: parseVerdict(answer) };
  if (typeof answer !== "object" || answer === null) wrong(`${shown(answer)} is not an answer`);
  if ("then" in answer) wrong("a promise is not an answer: the function must not be async");
  const unknown = Object.keys(answer).find((name) => !PROPERTIES.includes(name));
  if (unknown !== undefined) wrong(`an answer has no ${shown(unknown)}`);
  const { verdict: word, target, label = "" } = answer as Record<string, unknown>;
  const verdict = parseVerdict(word);
  if (typeof label !== "string") wrong(`label ${shown(label)} is not text`);
  if (target === undefined) return { ...REJECTED, verdict, label };
  if (verdict !== Verdict.ALLOW) wrong("what is denied goes nowhere: no target");
  if (typeof target !== "string") wrong(`target ${shown(target)} is not text`);
  return { verdict, label, ...parseTargetOrPort(target) };
}

/**
 * Refuses a target that a flow cannot go to, as its packets are of the other family.
 *
 * @throws TypeError
 */
export function checkFamily({ target }: Decision, isIpv4: boolean): void {
  if (target === null || isV4(target) === isIpv4) return;
  wrong(`target ${formatAddress(target)} is of the other family than the flow`);
}
