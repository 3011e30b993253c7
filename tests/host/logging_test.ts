// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { BaseHandler, Logger, type LogRecord } from "@std/log";
import { ConfigError, parseOptions } from "../../lib/config/options.ts";
import { LOG_BURST, LOG_REFILL_MS, LOG_REOPEN, LogLimit } from "../../lib/host/log_limit.ts";
import { LimitedHandler } from "../../lib/host/logging.ts";
import { describe, run } from "../helpers/run.ts";
import type { Wanted } from "./logging_probe.ts";

const PROBE = new URL("logging_probe.ts", import.meta.url).pathname;

function probe(wanted: Wanted): string[] {
  return [Deno.execPath(), "run", "--quiet", "--no-check", "-A", PROBE, JSON.stringify(wanted)];
}

class Memory extends BaseHandler {
  readonly lines: string[] = [];
  override handle(record: LogRecord): void {
    this.log(`${record.levelName} ${record.msg}`);
  }
  override log(line: string): void {
    this.lines.push(line);
  }
}

Deno.test("--log-size takes bytes, at least as many as passt(1) asks for", () => {
  const sizeOf = (...args: string[]) => parseOptions(["pasta", ...args]).logSize;
  assertEquals([sizeOf(), sizeOf("--log-size", "40960")], [1 << 20, 40960]);
  assertEquals(sizeOf("--log-size=50000", "--log-size=5000000000"), 5_000_000_000);
  for (const text of ["40959", "0", "-5", "1e6", "1M", "", "99999999999999999"]) {
    const message = `--log-size ${text || '""'}: not a size in bytes (at least 40960`;
    assertThrows(() => sizeOf("--log-size", text), ConfigError, message);
  }
});

Deno.test("LogLimit lets a burst through, then a few at a time", () => {
  const limit = new LogLimit();
  let passed = 0;
  const hour = 3600 * 1000;
  for (let ms = 0; ms < hour; ms += 10) if (limit.allow(ms)) passed++;
  assert(passed >= LOG_BURST + hour / LOG_REFILL_MS - LOG_REOPEN, `${passed}`);
  assert(passed <= LOG_BURST + hour / LOG_REFILL_MS, `${passed}`);
  assertEquals(passed + limit.takeSuppressed(), hour / 10);
  assertEquals(limit.takeSuppressed(), 0);
  for (let i = 0; i < LOG_BURST; i++) assert(limit.allow(2 * hour));
  assertEquals(limit.allow(2 * hour), false);
});

Deno.test("messages are limited as a whole, but for debugging ones and the last", () => {
  const memory = new Memory("NOTSET"), limited = new LimitedHandler([memory]);
  const log = new Logger("limited", "TRACE", { handlers: [limited] });
  for (let i = 0; i < 1000; i++) log.info(`${i}`), log.debug("debug"), log.trace("trace");
  log.warn("not shown");
  log.error("not shown either");
  log.critical("the end");
  const count = (start: string) => memory.lines.filter((line) => line.startsWith(start)).length;
  assertEquals([count("DEBUG"), count("TRACE"), count("CRITICAL")], [1000, 1000, 1]);
  const passed = count("INFO");
  assert(passed >= LOG_BURST && passed < LOG_BURST + 10, `${passed}`);
  limited.tellSuppressed();
  assertEquals(memory.lines.at(-1), `WARN ${1000 - passed + 2} messages suppressed`);
});

Deno.test("messages reach outlets as one bounded line each", () => {
  const memory = new Memory("NOTSET");
  const log = new Logger("lines", "INFO", { handlers: [new LimitedHandler([memory])] });
  log.info(`a\nb\x1b[2J\x9b\u202e${"x".repeat(5000)}`);
  assertMatch(memory.lines[0], /^INFO a\?b\?\[2J\?\?x{900,}…$/);
  assertEquals(memory.lines.length, 1);
});

Deno.test("standard error gets what the level says, and only that", async () => {
  for (const [level, levels] of [["WARN", "warn error"], ["INFO", "info warn error"]] as const) {
    const { code, stdout, stderr } = await run(probe({ level, count: 1 }));
    const lines = [...levels.split(" ").map((name) => `${name} 0 `), "the end??[31m", ""];
    assertEquals([code, stdout, stderr], [0, "done\n", lines.join("\n")]);
  }
});

Deno.test("with a log file standard error gets only what ends the program", async () => {
  const logFile = await Deno.makeTempFile();
  try {
    const { stderr } = await run(probe({ level: "TRACE", logFile, count: 10_000, length: 50 }));
    assertEquals(stderr, "the end??[31m\n");
    const text = Deno.readTextFileSync(logFile);
    assert(text.length <= 40960 && text.length > 40960 / 3, `${text.length}`);
    assertMatch(text, /^tubetti [\d.]+: \/\S+ \(\d+\), \d{4}-\S+Z, continued\n/);
    assertMatch(text, /: {10}debug 9999 x{50}\n[^]*ERROR: {3}the end[^\n]*\n[^\n]*suppressed\n$/);
  } finally {
    await Deno.remove(logFile);
  }
});

Deno.test("in the background nothing goes to standard error", async () => {
  for (const level of ["TRACE", "INFO"] as const) {
    const result = await run(probe({ level, count: 100, background: true }));
    assertEquals([result.code, result.stdout, result.stderr], [0, "done\n", ""]);
  }
});

Deno.test("a standard error that is closed or full ends nothing", async () => {
  const command = probe({ level: "TRACE", count: 5000, length: 500 });
  for (const redirection of ["2>&-", "2>/dev/full", "2> >(exec true)"]) {
    const shell = ["/bin/bash", "-c", `exec "$@" ${redirection}`, "sh", ...command];
    const result = await run(shell);
    assertEquals([result.code, result.stdout], [0, "done\n"], describe(shell, result));
  }
});

Deno.test("a standard error that nobody reads stops nothing, and tells what was lost later", async () => {
  const [program, ...args] = probe({ level: "TRACE", count: 5000, length: 500, wait: true });
  const piped = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  const child = new Deno.Command(program, { args, ...piped }).spawn();
  const out = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await out.read()).value, "waiting\n"); // all was logged, and not read
  const err = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await err.read()).value!;
  while (!text.endsWith("\n") || text.length < 32 << 10) text += (await err.read()).value;
  const input = child.stdin.getWriter();
  await input.write(new Uint8Array(1));
  for (let end = await err.read(); !end.done; end = await err.read()) text += end.value;
  await input.close().catch(() => {});
  const lines = text.trimEnd().split("\n");
  const suppressed = Number(/^(\d+) messages suppressed$/.exec(lines.pop()!)![1]);
  assertEquals(lines.pop(), "the end??[31m");
  const lost = Number(/^(\d+) messages lost: /.exec(lines.pop()!)![1]);
  for (const line of lines) assertMatch(line, /^(trace|debug|info|warn|error) \d+ x{500}$/);
  assertEquals(lines.length + lost + suppressed, 5 * 5000);
  await out.cancel();
  assertEquals((await child.status).code, 0);
});
