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
import { ConfigError } from "../config/error.ts";
import { errorLine, shown } from "../sys/text.ts";
import type { Decider } from "../forward/decider.ts";
import type { FlowAnswer, FlowQuestion } from "../forward/question.ts";
import { getLogger } from "../std/log.ts";

/** Names of files that are TypeScript. */
const TYPESCRIPT = /\.[cm]?tsx?$/;

/** How long a module may take to load: one that waits at its top level for what never comes is given up. */
const LOAD_MS = 30_000;
const MS_PER_SECOND = 1000;

type Decide = (flow: FlowQuestion) => FlowAnswer;

/** What may help, where a module cannot be read. */
function hint(path: string): string {
  const untranslated = Deno.build.standalone && TYPESCRIPT.test(path);
  return untranslated ? " (this executable takes JavaScript only: strip the types)" : "";
}

/** What is loaded, unless that takes too long. @throws a text */
async function inTime<T>(loading: Promise<T>, limitMs: number): Promise<T> {
  const late = Promise.withResolvers<never>();
  const message = `not loaded within ${limitMs / MS_PER_SECOND} seconds`;
  const timer = setTimeout(() => late.reject(message), limitMs);
  return await Promise.race([loading, late.promise]).finally(() => clearTimeout(timer));
}

/** The default export of a module, whatever that is. */
async function defaultExport(path: string, limitMs: number): Promise<unknown> {
  const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const url = `file://${encodeURI(absolute).replace(/[?#]/g, encodeURIComponent)}`;
  try {
    // by a variable's name it would be a part of the program
    return (await inTime(import(`${url}`), limitMs)).default;
  } catch (error) {
    throw new ConfigError(`--policy ${shown(path)}: ${errorLine(error)}${hint(path)}`);
  }
}

/**
 * Loads a policy, which runs with all our rights.
 *
 * @param path of a module of TypeScript or JavaScript; other files than modules are run as such
 * @param limitMs how long that may take
 * @throws ConfigError when it cannot be read or run in that time, or exports no function that answers at once
 */
export async function loadPolicy(path: string, limitMs: number = LOAD_MS): Promise<Decider> {
  const decide = await defaultExport(path, limitMs);
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
