// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  BaseHandler,
  getLogger,
  Logger,
  LogLevels,
  logLine,
  LogRecord,
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
  assertEquals(logLine("evil\u202etxt\u2028next\u2066é漢🍝"), "evil?txt?next?é漢🍝");
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

Deno.test("setup() sets handlers up, and changes no logger when one cannot be", () => {
  const log = getLogger("refused setup"), before = new Memory("NOTSET");
  log.handlers = [before];
  const order: string[] = [];
  class Failing extends Memory {
    override setup(): void {
      order.push("failing");
      throw new Error("cannot");
    }
  }
  class Working extends Memory {
    override setup(): void {
      order.push("working");
    }
  }
  const handlers = { working: new Working("NOTSET"), failing: new Failing("NOTSET") };
  assertThrows(
    () =>
      setup({ handlers, loggers: { "refused setup": { level: "TRACE", handlers: ["working"] } } }),
    Error,
    "cannot",
  );
  assertEquals([order, log.handlers], [["working", "failing"], [before]]);
});

Deno.test("LogRecord carries what formatters of @std/log read", () => {
  const seen: LogRecord[] = [];
  const formatter = (record: LogRecord) => (seen.push(record), `${record.levelName} ${record.msg}`);
  const handler = new Memory("NOTSET");
  handler.formatter = formatter;
  new Logger("of a name", "INFO", { handlers: [handler] }).warn("beware");
  assertEquals(handler.lines, ["WARN beware"]);
  const [{ loggerName, level, args, datetime }] = seen;
  assertEquals([loggerName, level, args], ["of a name", LogLevels.WARN, []]);
  assert(Math.abs(datetime.getTime() - Date.now()) < 60_000);
});
