// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A policy written as a program: a module whose default export decides (`--policy FILE`).
 *
 * Theory of operation: the module is loaded once, before there is a guest and before rights are given up, into the
 * process of the data path, and its function called from there, once for each flow. Packets wait
 * meanwhile; and as the loop never gives way to the runtime, nothing asynchronous of the module ever goes
 * on. What it begins (a promise, a request that it does not wait for, a timer) is kept in memory, for each flow
 * and for ever, so that the guest would decide how much of that we take. Hence a function that returns a
 * promise is not called a second time, and rejects everything; what it leaves behind unseen is its
 * author's care. Who needs asynchronous work decides from another process (`--control`).
 *
 * @module
 */
import { ConfigError, shown } from "../config/error.ts";
import type { Decider } from "../forward/decider.ts";
import type { FlowAnswer, FlowQuestion } from "../forward/question.ts";
import { getLogger } from "../std/log.ts";

/** Names of files that are TypeScript. */
const TYPESCRIPT = /\.[cm]?tsx?$/;

type Decide = (flow: FlowQuestion) => FlowAnswer;

/** What somebody else's error says, in one line. */
function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  // deno-lint-ignore no-control-regex
  return text.split("\n", 1)[0].replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}

/** What may help, where a module cannot be read. */
function hint(path: string): string {
  const untranslated = Deno.build.standalone && TYPESCRIPT.test(path);
  return untranslated ? " (this executable takes JavaScript only: strip the types)" : "";
}

/** The default export of a module, whatever that is. */
async function defaultExport(path: string): Promise<unknown> {
  const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const url = `file://${encodeURI(absolute).replace(/[?#]/g, encodeURIComponent)}`;
  try {
    return (await import(`${url}`)).default; // by a variable's name it would be a part of the program
  } catch (error) {
    throw new ConfigError(`--policy ${shown(path)}: ${firstLine(error)}${hint(path)}`);
  }
}

/**
 * Loads a policy, which runs with all our rights.
 *
 * @param path of a module of TypeScript or JavaScript; other files than modules are run as such
 * @throws ConfigError when it cannot be read or run, or exports no function that answers at once
 */
export async function loadPolicy(path: string): Promise<Decider> {
  const decide = await defaultExport(path);
  if (typeof decide !== "function") {
    throw new ConfigError(`--policy ${shown(path)}: its default export is not a function`);
  }
  if (decide.constructor.name === "AsyncFunction") {
    throw new ConfigError(`--policy ${shown(path)}: its function must not be async`);
  }
  return new Caller(path, decide as Decide);
}

/** Calls a policy's function, as long as that answers at once. */
class Caller implements Decider {
  readonly #path: string;
  #function: Decide | null;

  constructor(path: string, decide: Decide) {
    this.#path = path;
    this.#function = decide;
  }

  decide(question: FlowQuestion): FlowAnswer {
    if (this.#function === null) return "reject";
    const answer = this.#function(question);
    if (answer === null) throw new TypeError("null is not an answer");
    if (typeof answer !== "object" || !("then" in answer)) return answer;
    this.#function = null;
    getLogger().error(
      `--policy ${shown(this.#path)}: its function must not be async: it has returned a promise, ` +
        "is not called again, and every connection that it would decide on is rejected",
    );
    return "reject";
  }
}
