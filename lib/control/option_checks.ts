// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Whether a script's options are what they are declared to be. `deno run` checks no types, and a wrong one
 * must not come to mean something else: a text where a list of words belongs, the number of a process that
 * is none, a misspelt rule.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";

/** What an option accepts. */
interface Kind {
  /** In a message: "must be …". */
  readonly accepts: string;
  holds(value: unknown): boolean;
}

/** A text that can be an argument of a program (execve(2)). */
const isText = (value: unknown): boolean => typeof value === "string" && !value.includes("\0");
const isTextList = (value: unknown): boolean => Array.isArray(value) && value.every(isText);

function text(example: string): Kind {
  const holds = (value: unknown) => isText(value) && value !== "";
  return { accepts: `a text, such as "${example}"`, holds };
}

function texts(example: string): Kind {
  const holds = (value: unknown) => isText(value) || isTextList(value);
  return { accepts: `a text or a list of texts, such as "${example}"`, holds };
}

function words(example: string): Kind {
  return { accepts: `a list of texts, such as ${example}`, holds: isTextList };
}

function oneOf(...values: readonly unknown[]): Kind {
  const accepts = `one of ${values.map((value) => JSON.stringify(value)).join(", ")}`;
  return { accepts, holds: (value) => values.includes(value) };
}

const FLAG: Kind = { accepts: "true or false", holds: (value) => typeof value === "boolean" };
const STDIO = oneOf("inherit", "piped", "null");
const PROCESS: Kind = {
  accepts: "the number of a process, from 1 on",
  holds: (value) => Number.isSafeInteger(value) && (value as number) > 0,
};
const PLACE: Kind = {
  accepts: "a path or the URL of a file",
  holds: (value) => value instanceof URL || isText(value) && value !== "",
};
const POLICY: Kind = {
  accepts: "a function, or a path or the URL of a file",
  holds: (value) => typeof value === "function" || PLACE.holds(value),
};
const FUNCTION: Kind = {
  accepts: "a function",
  holds: (value) => typeof value === "function",
};
const VARIABLES: Kind = {
  accepts: "an object of texts",
  holds: (value) => isObject(value) && Object.entries(value).flat().every(isText),
};
const SIGNAL: Kind = {
  accepts: "an AbortSignal",
  holds: (value) => value instanceof AbortSignal,
};

type Kinds = Readonly<Record<string, Kind>>;

const COMMON: Kinds = {
  tcp: texts("8080:80"),
  udp: texts("8080:80"),
  denyOut: texts("10.0.0.0/8"),
  allowOut: texts("*.example.com:443/tcp"),
  policy: POLICY,
  onPolicyError: FUNCTION,
  args: words('["--mtu", "1500"]'),
  quiet: FLAG,
  program: words('["/usr/bin/tubetti"]'),
  cwd: PLACE,
  env: VARIABLES,
  clearEnv: FLAG,
  signal: SIGNAL,
  stdin: STDIO,
  stdout: STDIO,
  stderr: STDIO,
};
const NAMESPACE: Kinds = {
  ...COMMON,
  configNet: FLAG,
  tcpNs: texts("5432"),
  udpNs: texts("5432"),
};

/** What the options of each kind of instance accept. */
const KINDS = {
  spawn: { ...NAMESPACE, command: words('["ls", "-l"]') },
  pid: { ...NAMESPACE, pid: PROCESS },
  netns: { ...NAMESPACE, netns: text("/run/netns/name"), userns: text("/proc/PID/ns/user") },
  socket: { ...COMMON, socket: text("/run/vm.socket"), vhostUser: FLAG },
} as const satisfies Readonly<Record<string, Kinds>>;

/** Options that leave no instance to steer, or are ours. */
const NOT_IN_ARGS = /^(--(control|flow-table|help|version|print-capabilities)(=.*)?|-h|--)$/s;

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A wrong value, as its author would know it again. */
function found(value: unknown): string {
  return shown(Deno.inspect(value, { breakLength: Infinity, depth: 1 }));
}

/** @throws ConfigError unless options are an object */
function checkObject(options: unknown): asserts options is Readonly<Record<string, unknown>> {
  if (!isObject(options)) {
    throw new ConfigError(`options: must be an object, not ${found(options)}`);
  }
}

/**
 * What is attached to, by the option that names it.
 *
 * @throws ConfigError unless it is one thing
 */
export function attachKind(options: unknown): "pid" | "netns" | "socket" {
  checkObject(options);
  const [kind, other] = (["pid", "netns", "socket"] as const)
    .filter((name) => options[name] !== undefined);
  if (kind !== undefined && other === undefined) return kind;
  const why = kind === undefined ? "there is none" : `there are ${kind} and ${other}`;
  throw new ConfigError(`attach: one of pid, netns and socket is needed: ${why}`);
}

/**
 * Checks the options of an instance; those that are undefined are not given.
 *
 * @throws ConfigError that names the option and what it accepts
 * @example
 * ```ts
 * import { checkOptions } from "./option_checks.ts";
 * import { assertThrows } from "@std/assert";
 *
 * checkOptions("spawn", { command: ["ls", "-l"], tcp: undefined });
 * const wrong = { tcp: 8080 };
 * assertThrows(
 *   () => checkOptions("spawn", wrong),
 *   Error,
 *   'tcp: must be a text or a list of texts, such as "8080:80", not 8080',
 * );
 * ```
 */
export function checkOptions(of: keyof typeof KINDS, options: unknown): void {
  checkObject(options);
  const kinds: Kinds = KINDS[of];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(kinds, name)) {
      const call = of === "spawn" ? "spawn()" : `attach({ ${of} })`;
      throw new ConfigError(`${shown(name)}: no option of ${call}`);
    }
    const { accepts, holds } = kinds[name];
    if (!holds(value)) throw new ConfigError(`${name}: must be ${accepts}, not ${found(value)}`);
  }
  checkArgs(options.args as readonly string[] | undefined);
}

/** @throws ConfigError for options that a script cannot use */
function checkArgs(args: readonly string[] = []): void {
  const word = args.find((word) => NOT_IN_ARGS.test(word));
  if (word !== undefined) throw new ConfigError(`args: ${shown(word)} cannot be used here`);
}
