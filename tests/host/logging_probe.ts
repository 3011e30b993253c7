// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Logs what the test asks for, in a process of its own: standard error and the process's number are its
 * own too. The argument is JSON.
 */
import { getLogger } from "@std/log";
import { finishLogging, setupLogging, switchToBackground } from "../../lib/host/logging.ts";

/** What to log. */
export interface Wanted {
  readonly level: "TRACE" | "DEBUG" | "INFO" | "WARN";
  readonly logFile?: string;
  readonly background?: boolean;
  /** Messages of each level. */
  readonly count: number;
  readonly length?: number;
  /** Before the last message, say so and wait for a byte of standard input. */
  readonly wait?: boolean;
}

if (import.meta.main) {
  const wanted: Wanted = JSON.parse(Deno.args[0]);
  const { level: logLevel, logFile = null } = wanted;
  setupLogging({ mode: "pasta", logLevel, logFile, logSize: 40960 });
  if (wanted.background) switchToBackground();
  const log = getLogger();
  const filling = "x".repeat(wanted.length ?? 0);
  for (let i = 0; i < wanted.count; i++) {
    for (const level of ["trace", "debug", "info", "warn", "error"] as const) {
      log[level](`${level} ${i} ${filling}`);
    }
  }
  if (wanted.wait) {
    console.log("waiting");
    Deno.stdin.readSync(new Uint8Array(1));
  }
  log.critical("the end\n\x1b[31m");
  finishLogging();
  console.log("done");
}
