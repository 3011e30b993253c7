// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The program: goes to the background if that seems to be asked for, and does what the command line says.
 *
 * From here: `lib/command_line.ts` has what that may be, `lib/config/options.ts` the options, `lib/start.ts`
 * the start of the process that stays, `lib/pasta.ts` that of an instance, `lib/loop.ts` the event loop and
 * with it the way of every packet.
 *
 * The process that only waits for one in the background does without all of these, which halves its
 * start. So they are named by variables: the runtime reads what a literal `import()` names, and all
 * behind it, before it runs our first line.
 *
 * @module
 */
import { Background, runInBackground, seemsBackground } from "./lib/host/background.ts";

const COMMAND_LINE = "./lib/command_line.ts";
const REPORT = "./lib/report.ts";

/** Runs the program. @returns its exit code */
async function main(args: readonly string[]): Promise<number> {
  const background = Background.take();
  const code = !background && seemsBackground(args) ? runInBackground() : null;
  if (code !== null) return code;
  const { run }: typeof import("./lib/command_line.ts") = await import(COMMAND_LINE);
  return run(args, background);
}

if (import.meta.main) {
  let code: number;
  try {
    code = await main(Deno.args);
  } catch (error) {
    const { report }: typeof import("./lib/report.ts") = await import(REPORT);
    code = report(error);
  }
  Deno.exit(code);
}
