// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Where messages go.
 *
 * Theory of operation: one handler takes all records of the logger, makes each one bounded line without
 * control characters, limits how many there are, and passes it to the outlets:
 *
 * | | standard error | log file | system logger |
 * | --- | --- | --- | --- |
 * | with `--log-file` | what ends the program | everything | – |
 * | foreground, and until the start is complete | everything | – | what is not for debugging |
 * | with `--debug` or `--trace` | everything | – | – |
 * | background ({@linkcode switchToBackground}) | – | – | what is not for debugging |
 * | background with `--debug` or `--trace` | – | – | warnings and errors |
 *
 * The limit (`log_limit.ts`) is for all but debug messages, which are the user's own choice; a log file's
 * size bounds those too. Writing never throws and does not wait: a reader of standard error who stops
 * reading loses lines, and the traffic goes on.
 *
 * @module
 */
import { BaseHandler, LogLevels, logLine, LogRecord, setup } from "@std/log";
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import { VERSION } from "../config/version.ts";
import type { Options } from "../config/model.ts";
import { monotonicMs } from "../sys/clock.ts";
import { E, SysError } from "../sys/errno.ts";
import { openReason } from "../sys/file.ts";
import { errno, libc } from "../sys/libc.ts";
import { waitWritable } from "../sys/poll.ts";
import { LogFileHandler } from "./log_file.ts";
import { LogLimit } from "./log_limit.ts";
import { encodeLine, lineBytes } from "./log_line.ts";
import { SyslogHandler } from "./syslog.ts";

const STDERR = 2; // stderr(3)
/** How long a reader of standard error may take for a line; one that took longer gets no time again. */
const PATIENCE_MS = 100;

/** Writes to standard error, as long as somebody reads it. */
class StderrHandler extends BaseHandler {
  #patience = PATIENCE_MS;
  #lost = 0;

  override handle(record: LogRecord): void {
    if (record.level >= this.level) this.log(record.msg);
  }

  override log(line: string): void {
    if (!waitWritable(STDERR, this.#patience)) {
      this.#patience = 0;
      this.#lost++;
      return;
    }
    this.#patience = PATIENCE_MS;
    const lost = this.#lost;
    this.#lost = 0;
    if (lost > 0) this.#write(`${lost} messages lost: standard error was not read`);
    this.#write(line);
  }

  #write(line: string): void {
    const length = encodeLine(line);
    let written = 0;
    do written = libc.write(STDERR, lineBytes, length); while (written < 0 && errno() === E.EINTR);
  }
}

/** Limits records and passes them to outlets. */
export class LimitedHandler extends BaseHandler {
  #outlets: readonly BaseHandler[];
  readonly #background: readonly BaseHandler[];
  readonly #limit = new LogLimit();

  /**
   * @param outlets where records go
   * @param background where they go after {@linkcode switchToBackground}
   */
  constructor(outlets: readonly BaseHandler[], background: readonly BaseHandler[] = outlets) {
    super("NOTSET");
    this.#outlets = outlets;
    this.#background = background;
  }

  /** Opens what is needed now and later. @throws SysError */
  override setup(): void {
    for (const outlet of new Set([...this.#outlets, ...this.#background])) outlet.setup();
  }

  switchToBackground(): void {
    this.#outlets = this.#background;
  }

  override handle(record: LogRecord): void {
    const { level } = record;
    if (level > LogLevels.DEBUG && level < LogLevels.CRITICAL) {
      if (!this.#limit.allow(monotonicMs())) return;
      this.tellSuppressed();
    }
    this.#pass(record.msg, record);
  }

  /** Not used: records are passed on. */
  override log(): void {}

  /** Says how many messages were left out since this was last said. */
  tellSuppressed(): void {
    const count = this.#limit.takeSuppressed();
    if (count > 0) this.#pass(`${count} messages suppressed`, { level: LogLevels.WARN });
  }

  #pass(msg: string, { level }: Pick<LogRecord, "level">): void {
    const record = new LogRecord({ msg: logLine(msg), args: [], level, loggerName: "default" });
    for (const outlet of this.#outlets) outlet.handle(record);
  }
}

/** What logging depends on. */
export type LoggingOptions = Pick<Options, "mode" | "logLevel" | "logFile" | "logSize">;

let current: LimitedHandler | null = null;

/** First line of a log file: who we are, and when the times in it began. */
function header(): string {
  const executable = Deno.readLinkSync("/proc/self/exe");
  return logLine(`${VERSION}: ${executable} (${libc.getpid()}), ${new Date().toISOString()}`);
}

/** The table above. */
function makeHandler(options: LoggingOptions): LimitedHandler {
  const { logFile: filename, logSize: maxBytes, mode: ident } = options;
  if (filename !== null) {
    const file = new LogFileHandler("NOTSET", { filename, maxBytes, header: header() });
    return new LimitedHandler([file, new StderrHandler("CRITICAL")], [file]);
  }
  const stderr = new StderrHandler("NOTSET");
  const debugs = LogLevels[options.logLevel] <= LogLevels.DEBUG;
  const syslog = new SyslogHandler(debugs ? "WARN" : "INFO", { ident });
  return new LimitedHandler(debugs ? [stderr] : [stderr, syslog], [syslog]);
}

/**
 * Sets up logging as the options say.
 *
 * To be called in the process that stays, once, before it changes its user or its directory: what is
 * opened here (descriptors, closed on execve) is all that is needed later.
 *
 * @throws ConfigError when the log file cannot be opened
 * @example
 * ```ts
 * import { finishLogging, setupLogging } from "./logging.ts";
 * import { getLogger } from "@std/log";
 * import { assertStringIncludes } from "@std/assert";
 *
 * const logFile = Deno.makeTempFileSync();
 * setupLogging({ mode: "pasta", logLevel: "INFO", logFile, logSize: 1 << 20 });
 * getLogger().info("ready\nor not");
 * finishLogging();
 * assertStringIncludes(Deno.readTextFileSync(logFile), "info:    ready?or not\n");
 * Deno.removeSync(logFile);
 * ```
 */
export function setupLogging(options: LoggingOptions): void {
  const limited = makeHandler(options);
  try {
    setup({
      handlers: { limited },
      loggers: { default: { level: options.logLevel, handlers: ["limited"] } },
    });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new ConfigError(
      `-l ${shown(options.logFile!)}: cannot open the log file: ${openReason(error.errno)}`,
    );
  }
  current = limited;
}

/** From here on nobody reads our standard error: messages go to the log file or the system logger. */
export function switchToBackground(): void {
  current?.switchToBackground();
}

/** Says what is still to be said about suppressed messages. Logging goes on to work. */
export function finishLogging(): void {
  current?.tellSuppressed();
}
