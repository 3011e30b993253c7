// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What `@std/log` resolves to: the same names and signatures for the parts that are used. README
 * says how to switch to the JSR package. (`TRACE` and `logLine` are ours; with the package the first
 * is `NOTSET`.)
 *
 * Messages are written at once with a synchronous call: nothing is lost when the process ends, and the
 * event loop, which never runs promises, needs none. Control characters, which a guest may put into a
 * name, are shown as `?`, and long messages are cut.
 *
 * @module
 */

/** Levels; a message is written when its level is at least the logger's. */
export const LogLevels = {
  NOTSET: 0,
  TRACE: 5,
  DEBUG: 10,
  INFO: 20,
  WARN: 30,
  ERROR: 40,
  CRITICAL: 50,
} as const;

/** Name of a level. */
export type LevelName = keyof typeof LogLevels;
/** Number of a level. */
export type LogLevel = (typeof LogLevels)[LevelName];

/** Longest message that is written whole, in characters. */
export const MAX_MESSAGE = 1000;

/** One message on its way to a handler. */
export interface LogRecord {
  readonly msg: string;
  readonly level: LogLevel;
  readonly levelName: LevelName;
}

/** Formats a record into one line. */
export type FormatterFunction = (record: LogRecord) => string;

// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

/** The message as it is shown: one line, bounded, no control characters. */
export function logLine(message: string): string {
  const cut = message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message;
  return cut.replace(CONTROL, "?");
}

/** Where records go. */
export abstract class BaseHandler {
  level: LogLevel;
  formatter: FormatterFunction;

  constructor(levelName: LevelName, options: { formatter?: FormatterFunction } = {}) {
    this.level = LogLevels[levelName];
    this.formatter = options.formatter ?? ((record) => logLine(record.msg));
  }

  handle(record: LogRecord): void {
    if (record.level >= this.level) this.log(this.formatter(record));
  }

  /** Gets ready to write. */
  setup(): void {}

  /** Lets go of what {@linkcode setup} took. */
  destroy(): void {}

  /** Writes one formatted line. */
  abstract log(line: string): void;
}

const encoder = new TextEncoder();

/** Something with a synchronous write, such as `Deno.stderr`. */
interface SyncWriter {
  writeSync(bytes: Uint8Array): number;
}

function writeAll(writer: SyncWriter, bytes: Uint8Array): void {
  try {
    for (let at = 0; at < bytes.length;) at += writer.writeSync(bytes.subarray(at));
  } catch {
    // a closed or full standard error must not stop the traffic
  }
}

/** Writes lines to standard error. */
export class ConsoleHandler extends BaseHandler {
  override log(line: string): void {
    writeAll(Deno.stderr, encoder.encode(`${line}\n`));
  }
}

/** Appends lines to a file. */
export class FileHandler extends BaseHandler {
  readonly #filename: string;
  #file: Deno.FsFile | null = null;

  constructor(
    levelName: LevelName,
    options: { filename: string; formatter?: FormatterFunction },
  ) {
    super(levelName, options);
    this.#filename = options.filename;
  }

  /** Opens the file. @throws when it cannot be created or written */
  override setup(): void {
    this.#file = Deno.openSync(this.#filename, { append: true, create: true, mode: 0o600 });
  }

  override log(line: string): void {
    if (this.#file) writeAll(this.#file, encoder.encode(`${line}\n`));
  }

  /** Closes the file. */
  override destroy(): void {
    this.#file?.close();
    this.#file = null;
  }
}

/** Takes messages, drops what is below its level, and hands the rest to its handlers. */
export class Logger {
  /** Current level; messages below it cost a comparison. */
  level: LogLevel;
  handlers: BaseHandler[];
  readonly loggerName: string;

  constructor(
    loggerName: string,
    levelName: LevelName,
    options: { handlers?: BaseHandler[] } = {},
  ) {
    this.loggerName = loggerName;
    this.level = LogLevels[levelName];
    this.handlers = options.handlers ?? [];
  }

  /** Name of {@linkcode level}. */
  get levelName(): LevelName {
    const found = Object.entries(LogLevels).find(([, level]) => level === this.level);
    return found![0] as LevelName;
  }

  set levelName(name: LevelName) {
    this.level = LogLevels[name];
  }

  #log(level: LogLevel, levelName: LevelName, msg: string): string {
    if (level >= this.level) {
      for (const handler of this.handlers) handler.handle({ msg, level, levelName });
    }
    return msg;
  }

  /** Every packet. */
  trace(msg: string): string {
    return this.#log(LogLevels.TRACE, "TRACE", msg);
  }

  /** Every flow and service request. */
  debug(msg: string): string {
    return this.#log(LogLevels.DEBUG, "DEBUG", msg);
  }

  /** What a user wants to know once. */
  info(msg: string): string {
    return this.#log(LogLevels.INFO, "INFO", msg);
  }

  /** Something does not work, the rest does. */
  warn(msg: string): string {
    return this.#log(LogLevels.WARN, "WARN", msg);
  }

  /** Something failed. */
  error(msg: string): string {
    return this.#log(LogLevels.ERROR, "ERROR", msg);
  }

  /** The program ends because of this. */
  critical(msg: string): string {
    return this.#log(LogLevels.CRITICAL, "CRITICAL", msg);
  }
}

/** Configuration for {@linkcode setup}. */
export interface LogConfig {
  handlers?: Record<string, BaseHandler>;
  loggers?: Record<string, { level?: LevelName; handlers?: string[] }>;
}

const defaultLogger = new Logger("default", "INFO", { handlers: [new ConsoleHandler("NOTSET")] });
const loggers = new Map<string, Logger>([["default", defaultLogger]]);

/**
 * The logger of a name; the same object every time, also across {@linkcode setup}.
 *
 * @example
 * ```ts
 * import { BaseHandler, getLogger, LogLevels, setup } from "./log.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const lines: string[] = [];
 * class Memory extends BaseHandler {
 *   override log(line: string) {
 *     lines.push(line);
 *   }
 * }
 * const log = getLogger();
 * setup({
 *   handlers: { memory: new Memory("NOTSET") },
 *   loggers: { default: { level: "WARN", handlers: ["memory"] } },
 * });
 * log.info("not shown");
 * log.warn("shown\n");
 * assertEquals([lines, log.level], [["shown?"], LogLevels.WARN]);
 * ```
 */
export function getLogger(name = "default"): Logger {
  let logger = loggers.get(name);
  if (!logger) {
    logger = new Logger(name, "NOTSET");
    loggers.set(name, logger);
  }
  return logger;
}

/** Replaces handlers and levels; loggers handed out before are changed in place. */
export function setup(config: LogConfig): void {
  const handlers: Record<string, BaseHandler> = config.handlers ?? {};
  for (
    const [name, { level = "INFO", handlers: names = [] }] of Object.entries(
      config.loggers ?? {},
    )
  ) {
    const logger = getLogger(name);
    logger.levelName = level;
    logger.handlers = names.filter((key) => key in handlers).map((key) => handlers[key]);
  }
}
