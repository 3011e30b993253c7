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

const NAMES = new Map(Object.entries(LogLevels).map(([name, level]) => [level, name as LevelName]));

/** Longest message that is written whole, in characters. */
export const MAX_MESSAGE = 960;

/** What a record is made from. */
export interface LogRecordOptions {
  msg: string;
  args: unknown[];
  level: LogLevel;
  loggerName: string;
}

/** One message on its way to a handler. */
export class LogRecord {
  readonly msg: string;
  readonly level: LogLevel;
  readonly loggerName: string;
  readonly #args: unknown[];
  #datetime: Date | null = null;

  constructor(options: LogRecordOptions) {
    this.msg = options.msg;
    this.level = options.level;
    this.loggerName = options.loggerName;
    this.#args = options.args;
  }

  /** Name of {@linkcode level}. */
  get levelName(): LevelName {
    return NAMES.get(this.level)!;
  }

  get args(): unknown[] {
    return [...this.#args];
  }

  /** When it was first asked for. */
  get datetime(): Date {
    return this.#datetime ??= new Date();
  }
}

/** Formats a record into one line. */
export type FormatterFunction = (record: LogRecord) => string;

// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;

/** The message as it is shown: one line, bounded, no characters that control a terminal or a text. */
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
    if (record.level >= this.level) this.log(this.format(record));
  }

  /** One record as one line. */
  format(record: LogRecord): string {
    return this.formatter(record);
  }

  /** Gets ready to write. */
  setup(): void {}

  /** Lets go of what {@linkcode setup} took. */
  destroy(): void {}

  /** Writes one formatted line. */
  abstract log(line: string): void;
}

const encoder = new TextEncoder();

/** Writes lines to standard error. */
export class ConsoleHandler extends BaseHandler {
  override log(line: string): void {
    const bytes = encoder.encode(`${line}\n`);
    try {
      for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
    } catch {
      // a closed standard error is no reason to end
    }
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
    return NAMES.get(this.level)!;
  }

  set levelName(name: LevelName) {
    this.level = LogLevels[name];
  }

  #log(level: LogLevel, msg: string): string {
    if (level >= this.level) {
      const record = new LogRecord({ msg, args: [], level, loggerName: this.loggerName });
      for (const handler of this.handlers) handler.handle(record);
    }
    return msg;
  }

  /** Every packet. */
  trace(msg: string): string {
    return this.#log(LogLevels.TRACE, msg);
  }

  /** Every flow and service request. */
  debug(msg: string): string {
    return this.#log(LogLevels.DEBUG, msg);
  }

  /** What a user wants to know once. */
  info(msg: string): string {
    return this.#log(LogLevels.INFO, msg);
  }

  /** Something does not work, the rest does. */
  warn(msg: string): string {
    return this.#log(LogLevels.WARN, msg);
  }

  /** Something failed. */
  error(msg: string): string {
    return this.#log(LogLevels.ERROR, msg);
  }

  /** The program ends because of this. */
  critical(msg: string): string {
    return this.#log(LogLevels.CRITICAL, msg);
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

/**
 * Sets handlers up, and replaces handlers and levels of loggers; those handed out before are changed in
 * place. When a handler throws, the loggers stay as they were.
 */
export function setup(config: LogConfig): void {
  const handlers: Record<string, BaseHandler> = config.handlers ?? {};
  for (const handler of Object.values(handlers)) handler.setup();
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
