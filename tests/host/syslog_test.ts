// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Logger } from "@std/log";
import { SyslogHandler } from "../../lib/host/syslog.ts";
import { check } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK } from "../../lib/sys/socket.ts";

/** RFC 3164 §4.1: no message is longer. */
const MAX_DATAGRAM = 1024;

/** A system logger: what listens at /dev/log. */
class FakeLogger {
  readonly #fd: number;
  readonly #buffer = new Uint8Array(65536);

  constructor(path: string) {
    const name = new TextEncoder().encode(`xx${path}\0`);
    new DataView(name.buffer).setUint16(0, AF_UNIX, true);
    this.#fd = check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), "socket");
    check(libc.bind(this.#fd, name, name.length), "bind");
  }

  /** The next message, null when there is none. */
  read(): string | null {
    const length = libc.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
    if (length < 0) return null;
    assert(length <= MAX_DATAGRAM, `${length} bytes`);
    return new TextDecoder("utf-8", { fatal: true }).decode(this.#buffer.slice(0, length));
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
  }
}

function withPath(body: (path: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "tubetti-syslog-" });
  try {
    body(`${folder}/log`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function logTo(path: string): Logger {
  const handler = new SyslogHandler("DEBUG", { ident: "pasta", path });
  handler.setup();
  return new Logger("syslog", "TRACE", { handlers: [handler] });
}

Deno.test("SyslogHandler sends datagrams as RFC 3164 has them, facility daemon", () => {
  withPath((path) => {
    using logger = new FakeLogger(path);
    const log = logTo(path);
    const severities = { debug: 7, info: 6, warn: 4, error: 3, critical: 3 } as const;
    for (const [level, severity] of Object.entries(severities)) {
      log[level as keyof typeof severities](`this is ${level}`);
      const form = new RegExp(
        `^<${24 + severity}>[A-Z][a-z]{2} [ 123]\\d \\d\\d:\\d\\d:\\d\\d pasta\\[${Deno.pid}\\]: ` +
          `this is ${level}$`,
      );
      assertMatch(logger.read()!, form);
    }
    log.trace("below the handler's level");
    assertEquals(logger.read(), null);
    log.info("é".repeat(5000));
    assert(logger.read()!.endsWith("éé"));
    log.handlers[0].destroy();
  });
});

Deno.test("SyslogHandler drops messages where there is no logger, and finds one that came back", () => {
  withPath((path) => {
    const log = logTo(path);
    log.info("nobody hears it");
    log.handlers[0].destroy();
    const first = new FakeLogger(path), again = logTo(path);
    again.info("one");
    assertMatch(first.read()!, /: one$/);
    first[Symbol.dispose]();
    again.info("lost");
    Deno.removeSync(path);
    using second = new FakeLogger(path);
    for (const end = performance.now() + 20_000; performance.now() < end;) {
      again.info("two");
      const message = second.read();
      if (message === null) continue;
      assertMatch(message, /: two$/);
      again.handlers[0].destroy();
      return;
    }
    throw new Error("the logger was not found again");
  });
});

Deno.test("SyslogHandler does not wait for a logger that does not read", () => {
  withPath((path) => {
    using logger = new FakeLogger(path);
    const log = logTo(path);
    for (let i = 0; i < 20_000; i++) log.info(`message ${i}`);
    assertMatch(logger.read()!, /: message 0$/);
    while (logger.read() !== null);
    log.info("heard again");
    assertMatch(logger.read()!, /: heard again$/);
    log.handlers[0].destroy();
  });
});
