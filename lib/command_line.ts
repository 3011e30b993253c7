// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line: parses it, and answers, goes to the background or starts an instance.
 *
 * @module
 */
import { invokedMode } from "./config/name.ts";
import { type Options, parseOptions } from "./config/options.ts";
import { type Background, needsBackground, runInBackground } from "./host/background.ts";

/** Named by variables for the same reason as in `main.ts`. */
const ANSWER = "./config/answer.ts", CAPABILITIES = "./link/vhost/control.ts";
const CONTROL = "./control/open.ts", START = "./start.ts";

/** Whether options ask for something to be printed. */
function asks({ printCapabilities, help, version, completion }: Options): boolean {
  return printCapabilities || help || version || completion !== null;
}

/** What is to be printed. */
async function answerTo(options: Options): Promise<string | null> {
  if (options.printCapabilities) {
    const { capabilities }: typeof import("./link/vhost/control.ts") = await import(CAPABILITIES);
    return capabilities();
  }
  const { answer }: typeof import("./config/answer.ts") = await import(ANSWER);
  return answer(options, invokedMode());
}

/** Reads the command line. @throws ConfigError, of which a controller is told, too */
async function readOptions(args: readonly string[]): Promise<Options> {
  try {
    return parseOptions(args, invokedMode());
  } catch (error) {
    if (args.slice(0, 2).some((arg) => arg.startsWith("--control"))) {
      const { tellFailure }: typeof import("./control/open.ts") = await import(CONTROL);
      tellFailure(args, error);
    }
    throw error;
  }
}

/**
 * Does what a command line says.
 *
 * @param background what the process that waits for us has given us, or null
 * @returns the exit code
 * @throws what {@linkcode report} of `report.ts` prints
 */
export async function run(
  args: readonly string[],
  background: Background | null,
): Promise<number> {
  const options = await readOptions(args);
  const stays = !asks(options) && needsBackground(options);
  if (background && !stays) {
    background.decline();
    return 0;
  }
  if (asks(options)) {
    console.log(await answerTo(options));
    return 0;
  }
  const code = stays && !background ? runInBackground() : null;
  if (code !== null) return code;
  const { start }: typeof import("./start.ts") = await import(START);
  return start(options, background);
}
