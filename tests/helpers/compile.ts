// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * C programs that tests compile and run, to ask the compiler what the headers say.
 *
 * @module
 */
import { must } from "./run.ts";

/**
 * Compiles and runs a C program.
 *
 * @param source of the program
 * @param compiler and its options
 * @param runner in front of the executable, such as an emulator
 * @returns what it prints
 * @throws Error with the output when either fails
 */
export async function runC(
  source: string,
  compiler: readonly string[] = ["gcc"],
  runner: readonly string[] = [],
): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "tubetti-test-" });
  try {
    await Deno.writeTextFile(`${directory}/program.c`, source);
    const program = `${directory}/program`;
    await must([...compiler, "-w", "-o", program, `${program}.c`]);
    return await must([...runner, program]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
