// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Lines of a controller as messages, checked: whoever writes them may be any program.
 *
 * @module
 */
import { shown } from "../sys/text.ts";
import type { FlowAnswer } from "../forward/question.ts";
import type { Answer, ForwardRule, Request } from "./protocol.ts";

/** Number in the reply to a line that has none that could be read. */
export const NO_ID = 0;

/** A line that is no message. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  /** @param id number of the request, or {@linkcode NO_ID} */
  constructor(readonly id: number, message: string) {
    super(message);
  }
}

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && value as number > NO_ID;
}

function parseJson(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RequestError(NO_ID, "Not a line of JSON");
  }
  if (!isObject(value)) throw new RequestError(NO_ID, "Not an object");
  return value;
}

function readRule(id: number, rule: unknown): ForwardRule {
  if (!isObject(rule)) throw new RequestError(id, '"rule" must be an object');
  const { from = "host", protocol, ports } = rule;
  if (from !== "host" && from !== "guest") {
    throw new RequestError(id, '"from" must be "host" or "guest"');
  }
  if (protocol !== "tcp" && protocol !== "udp") {
    throw new RequestError(id, '"protocol" must be "tcp" or "udp"');
  }
  if (typeof ports !== "string") throw new RequestError(id, '"ports" must be a string');
  return { from, protocol, ports };
}

/** What a controller may say. */
export type Message = Request | Answer;

/**
 * Reads a line.
 *
 * @returns a request; or an answer, whose decision is not checked
 * @throws RequestError
 * @example
 * ```ts
 * import { readMessage, RequestError } from "./requests.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(readMessage('{"id":1,"do":"close"}'), { id: 1, do: "close" });
 * assertEquals(readMessage('{"answer":7,"decision":"drop"}'), { answer: 7, decision: "drop" });
 * const error = assertThrows(() => readMessage('{"id":2,"do":"dance"}'), RequestError);
 * assertEquals([error.id, error.message], [2, 'Nothing is known of "do": "dance"']);
 * ```
 */
export function readMessage(text: string): Message {
  const fields = parseJson(text);
  const { id, answer } = fields;
  if (typeof answer === "number" && Number.isSafeInteger(answer) && id === undefined) {
    return { answer, decision: fields.decision as FlowAnswer };
  }
  if (!isId(id)) throw new RequestError(NO_ID, '"id" must be a whole number from 1 on');
  switch (fields.do) {
    case "forward.list":
    case "close":
      return { id, do: fields.do };
    case "forward.add":
    case "forward.remove":
      return { id, do: fields.do, rule: readRule(id, fields.rule) };
    case "events":
      if (typeof fields.on === "boolean") return { id, do: "events", on: fields.on };
      throw new RequestError(id, '"on" must be true or false');
  }
  if (typeof fields.do !== "string") throw new RequestError(id, '"do" must be a string');
  throw new RequestError(id, `Nothing is known of "do": ${shown(JSON.stringify(fields.do))}`);
}
