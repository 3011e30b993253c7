// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import {
  BaseHandler,
  FileHandler,
  getLogger,
  Logger,
  LogLevels,
  logLine,
  MAX_MESSAGE,
  setup,
} from "../../lib/std/log.ts";

class Memory extends BaseHandler {
  readonly lines: string[] = [];
  override log(line: string): void {
    this.lines.push(line);
  }
}

Deno.test("logLine() makes one bounded line without control characters", () => {
  assertEquals(logLine("a\nb\x1b[31m\x9bc\u007f"), "a?b?[31m?c?");
  assertEquals(logLine("x".repeat(MAX_MESSAGE)).length, MAX_MESSAGE);
  assertEquals(logLine("x".repeat(100_000)).length, MAX_MESSAGE + 1);
});

Deno.test("Logger passes on what is at or above its level, and returns the message", () => {
  const handler = new Memory("NOTSET");
  const log = new Logger("test", "WARN", { handlers: [handler] });
  for (const level of ["trace", "debug", "info", "warn", "error", "critical"] as const) {
    log[level](level);
  }
  assertEquals(handler.lines, ["warn", "error", "critical"]);
  log.levelName = "TRACE";
  assertEquals([log.level, log.levelName, log.trace("t")], [LogLevels.TRACE, "TRACE", "t"]);
  assertEquals(handler.lines.at(-1), "t");
});

Deno.test("setup() changes loggers that were handed out before", () => {
  const log = getLogger("setup test"), handler = new Memory("ERROR");
  setup({
    handlers: { memory: handler },
    loggers: { "setup test": { level: "DEBUG", handlers: ["memory", "absent"] } },
  });
  log.warn("below the handler's level");
  log.error("shown");
  assertEquals([handler.lines, log.levelName, getLogger("setup test") === log], [
    ["shown"],
    "DEBUG",
    true,
  ]);
});

Deno.test("FileHandler appends lines and survives being used before setup and after destroy", () => {
  const filename = Deno.makeTempFileSync();
  try {
    const handler = new FileHandler("NOTSET", { filename });
    const log = new Logger("file", "INFO", { handlers: [handler] });
    log.info("lost");
    handler.setup();
    log.info("one");
    log.info("two");
    handler.destroy();
    log.info("lost too");
    assertEquals(Deno.readTextFileSync(filename), "one\ntwo\n");
  } finally {
    Deno.removeSync(filename);
  }
});
