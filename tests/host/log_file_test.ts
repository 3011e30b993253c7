// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Logger, LogRecord } from "@std/log";
import { LogFileHandler } from "../../lib/host/log_file.ts";
import { SysError } from "../../lib/sys/errno.ts";

const HEADER = "me 1 (42)";
const SIZE = 40960;
const MODE_BITS = 0o777;

/** Runs `body` with the name of a file that does not exist yet. */
function withFile(body: (filename: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "tubetti-log-" });
  try {
    body(`${folder}/log`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function opened(filename: string, maxBytes = SIZE): LogFileHandler {
  const handler = new LogFileHandler("NOTSET", { filename, maxBytes, header: HEADER });
  handler.setup();
  return handler;
}

const sizeOf = (filename: string) => Deno.statSync(filename).size;
const linesOf = (filename: string) => Deno.readTextFileSync(filename).trimEnd().split("\n");

Deno.test("a log file begins with its header, is the owner's only, and shows time and level", () => {
  withFile((filename) => {
    const handler = opened(filename);
    const log = new Logger("test", "TRACE", { handlers: [handler] });
    for (const level of ["trace", "debug", "info", "warn", "error", "critical"] as const) {
      log[level](`this is ${level}`);
    }
    handler.destroy();
    log.info("lost");
    assertEquals(Deno.statSync(filename).mode! & MODE_BITS, 0o600);
    const [first, ...lines] = linesOf(filename);
    assertEquals(first, HEADER);
    for (const line of lines) assertMatch(line, /^\d+\.\d{4}: /);
    assertEquals(lines.map((line) => line.slice(line.indexOf(" ") + 1)), [
      "         this is trace",
      "         this is debug",
      "info:    this is info",
      "WARNING: this is warn",
      "ERROR:   this is error",
      "ERROR:   this is critical",
    ]);
  });
});

Deno.test("a log file never grows beyond its size, and keeps the newest whole lines", () => {
  withFile((filename) => {
    const handler = opened(filename);
    for (let i = 0; i < 20_000; i++) {
      handler.log(`line ${i} ${"x".repeat(i * 7919 % 1500)}`);
      const size = sizeOf(filename);
      assert(size <= SIZE, `${size} bytes after line ${i}`);
    }
    const [first, ...lines] = linesOf(filename);
    assertEquals(first, `${HEADER}, continued`);
    assert(sizeOf(filename) > SIZE / 3);
    const numbers = lines.map((line) => Number(/^line (\d+) x*$/.exec(line)![1]));
    assertEquals(numbers.at(-1), 19_999);
    numbers.forEach((number, i) => assertEquals(number, numbers[0] + i));
    handler.destroy();
  });
});

Deno.test("a log file is appended to, and cut when it is already too large", () => {
  withFile((filename) => {
    opened(filename).destroy();
    opened(filename).destroy();
    assertEquals(linesOf(filename), [HEADER, HEADER]);
    Deno.writeTextFileSync(filename, "an old line\n".repeat(100_000));
    const handler = opened(filename);
    handler.log("new");
    const lines = linesOf(filename);
    assertEquals([lines[0], lines[1], ...lines.slice(-2)], [
      `${HEADER}, continued`,
      "an old line",
      HEADER,
      "new",
    ]);
    assert(sizeOf(filename) <= SIZE);
    handler.destroy();
    Deno.writeTextFileSync(filename, "x".repeat(3 * SIZE)); // no line in it
    opened(filename).destroy();
    assertEquals(linesOf(filename), [`${HEADER}, continued`, HEADER]);
  });
});

Deno.test("a log file that someone else empties or removes goes on", () => {
  withFile((filename) => {
    const handler = opened(filename);
    for (let i = 0; i < 100; i++) handler.log("x".repeat(300));
    Deno.truncateSync(filename);
    handler.log("after");
    assertEquals(Deno.readTextFileSync(filename), "after\n");
    Deno.removeSync(filename);
    for (let i = 0; i < 1000; i++) handler.log("x".repeat(300));
    handler.destroy();
  });
});

Deno.test("a log file can be shared, its size counts for all", () => {
  withFile((filename) => {
    const handlers = [1, 2, 3].map(() => opened(filename));
    for (let i = 0; i < 3000; i++) {
      for (const [n, handler] of handlers.entries()) handler.log(`${n} line ${i}`);
      assert(sizeOf(filename) <= SIZE);
    }
    const [first, ...lines] = linesOf(filename);
    assertEquals(first, `${HEADER}, continued`);
    for (const line of lines) assertMatch(line, /^[012] line \d+$/);
    assertEquals(lines.slice(-3), ["0 line 2999", "1 line 2999", "2 line 2999"]);
    for (const handler of handlers) handler.destroy();
  });
});

Deno.test("a log file says why it cannot be opened", () => {
  withFile((filename) => {
    assertThrows(() => opened(`${filename}/below`), SysError, "ENOENT");
    assertThrows(() => opened("/"), SysError, "EISDIR");
    Deno.writeTextFileSync(filename, "");
    assertThrows(() => opened(`${filename}/below`), SysError, "ENOTDIR");
    assertThrows(() => new LogFileHandler("INFO", { filename, maxBytes: 100, header: "" }));
  });
});

Deno.test("a log on a full device, or a FIFO that nobody reads, costs lines and no time", () => {
  withFile((filename) => {
    const full = opened("/dev/full");
    full.log("lost");
    full.destroy();
    assertEquals(new Deno.Command("mkfifo", { args: [filename] }).outputSync().success, true);
    const handler = opened(filename);
    const record = new LogRecord({ msg: "x", args: [], level: 30, loggerName: "" });
    for (let i = 0; i < 20_000; i++) handler.handle(record);
    handler.destroy();
  });
});
