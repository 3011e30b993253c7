// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a script says about an instance, and the command line that it comes to.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import type { FlowQuestion } from "../forward/question.ts";
import type { PolicyFunction } from "./client.ts";
import { attachKind, checkOptions } from "./option_checks.ts";

/** One text, several or none. */
export type Texts = string | readonly string[];

/** What instances of all kinds have. They mean what the options of the command line do. */
export interface InstanceOptions {
  /**
   * TCP ports of the host that lead to the guest (`-t`), such as `"8080:80"`. None for `[]`. Unless given: those
   * that programs in the guest listen on, none for a virtual machine.
   */
  readonly tcp?: Texts;
  /** UDP ports, likewise (`-u`). Unless given: as for TCP, and the numbers of TCP's. */
  readonly udp?: Texts;
  /** What the guest may not reach: rules of `--deny-out`, such as `"10.0.0.0/8"`. They come before {@linkcode allowOut}. */
  readonly denyOut?: Texts;
  /** What it may reach: rules of `--allow-out`, such as `"*.example.com:443/tcp"`. Another order takes {@linkcode args}. */
  readonly allowOut?: Texts;
  /**
   * Decides on each flow that no rule of {@linkcode denyOut} and {@linkcode allowOut} is about: a function of
   * this script, or a module whose default export is one, by path or URL (`import.meta.resolve("./policy.ts")`).
   * A flow for which it throws is rejected.
   *
   * A function here may be asynchronous, and use all that the script has: each new flow waits for its answer, for 30
   * seconds at most. A module is loaded into the data path and answers at once: nothing else goes on there until it
   * has. One that loops stops the whole instance, which then hears neither its script's requests nor of the
   * script's end, and has to be ended by {@linkcode signal} or `close()`.
   */
  readonly policy?: PolicyFunction | URL | string;
  /**
   * Told when the function of {@linkcode policy} has thrown, or given an answer that is none: the flow was rejected.
   * Unless given: `console.error`, for at most ten a second. Modules are in the instance, which logs their errors.
   */
  readonly onPolicyError?: (error: unknown, flow: FlowQuestion) => void;
  /**
   * Further options as on the command line, such as `["--mtu", "1500"]`. Not those that start nothing (`--help`,
   * `--version`, `--print-capabilities`) and those that are the library's (`--control`, `--flow-table`).
   */
  readonly args?: readonly string[];
  /** Whether messages below warnings are left out (`-q`): true unless given. */
  readonly quiet?: boolean;
  /**
   * The program and what comes before `pasta` or `passt` on its command line, such as `["/usr/bin/tubetti"]`.
   * Unless given: `main.ts` of this library, run by the deno that runs the script.
   */
  readonly program?: readonly string[];
  /** Folder to start in. Unless given: the script's own. */
  readonly cwd?: string | URL;
  /** Variables in addition to the script's own, or with {@linkcode clearEnv} in place of them. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether the script's own variables are left out. */
  readonly clearEnv?: boolean;
  /** Ends the instance by SIGTERM, and by SIGKILL when it is still there after 3 seconds. */
  readonly signal?: AbortSignal;
  /** Where the command reads. Unless given: `inherit`; `null` for what is attached. */
  readonly stdin?: Stdio;
  /** Where it writes. Unless given: `inherit`. */
  readonly stdout?: Stdio;
  /** Where its errors and our messages go. Unless given: `inherit`. */
  readonly stderr?: Stdio;
}

/** Where a standard stream leads. */
export type Stdio = "inherit" | "piped" | "null";

/** What instances have that serve a namespace. */
export interface NamespaceOptions extends InstanceOptions {
  /**
   * Whether the guest's interface gets its addresses and routes (`--config-net`): true unless given. Otherwise a
   * DHCP client in the namespace can do that.
   */
  readonly configNet?: boolean;
  /** TCP ports of the guest's loopback that lead to the host's (`-T`). None for `[]`. Unless given: `auto`. */
  readonly tcpNs?: Texts;
  /** UDP ports, likewise (`-U`). Unless given: `auto`, and the numbers of TCP's. */
  readonly udpNs?: Texts;
}

/** What is started with a network of its own. */
export interface SpawnOptions extends NamespaceOptions {
  /** The command and its arguments; empty or absent: the user's shell. */
  readonly command?: readonly string[];
}

/**
 * The namespaces of a process. Only its owner may join them, and root: a script that runs as root says whom the
 * instance runs as, which else is nobody, by `args: ["--runas", "0"]`.
 */
export interface AttachProcess extends NamespaceOptions {
  /** Its number. */
  readonly pid: number;
}

/** A network namespace that has a name. As root, see {@linkcode AttachProcess}. */
export interface AttachNamespace extends NamespaceOptions {
  /** Its path, or its name in ip-netns(8). */
  readonly netns: string;
  /** Path of the user namespace that it belongs to, unless that is ours. */
  readonly userns?: string;
}

/** A virtual machine. */
export interface AttachMachine extends InstanceOptions {
  /** UNIX socket that its hypervisor connects to. */
  readonly socket: string;
  /** Whether it does so by vhost-user. */
  readonly vhostUser?: boolean;
}

/** A namespace or virtual machine that others have made. */
export type AttachOptions = AttachProcess | AttachNamespace | AttachMachine;

const list = (texts: Texts): readonly string[] => typeof texts === "string" ? [texts] : texts;

/** `--name=TEXT` for each. */
function repeated(name: string, texts: Texts | undefined): string[] {
  return texts === undefined ? [] : list(texts).map((text) => `--${name}=${text}`);
}

/** As {@linkcode repeated}; an empty list is `none`. */
function ports(name: string, texts: Texts | undefined): string[] {
  return texts !== undefined && list(texts).length === 0
    ? [`--${name}=none`]
    : repeated(name, texts);
}

/** What begins as a URL does, and not as a path. */
const URL_START = /^(file:|[a-z][a-z\d+.-]*:\/\/)/i;

/** The path of a file's URL. @throws ConfigError */
function urlPath(name: string, url: URL): string {
  try {
    if (url.protocol === "file:") return decodeURIComponent(url.pathname);
  } catch {
    // a percent sign that begins no byte
  }
  throw new ConfigError(`${name}: ${shown(url.href)} is not the URL of a file`);
}

/** A file as the program finds it from any folder. @throws ConfigError */
function filePath(name: string, file: URL | string): string {
  if (typeof file !== "string") return urlPath(name, file);
  if (!URL_START.test(file)) return file.startsWith("/") ? file : `${Deno.cwd()}/${file}`;
  const url = URL.parse(file);
  if (url) return urlPath(name, url);
  throw new ConfigError(`${name}: ${shown(file)} is not the URL of a file`);
}

/** The folder to start in. @throws ConfigError */
export function startFolder({ cwd }: Pick<InstanceOptions, "cwd">): string | undefined {
  return cwd === undefined ? undefined : filePath("cwd", cwd);
}

function policyArguments({ policy }: InstanceOptions): string[] {
  if (policy === undefined) return [];
  return [`--policy=${typeof policy === "function" ? "-" : filePath("policy", policy)}`];
}

function commonArguments(options: InstanceOptions): string[] {
  return [
    ...(options.quiet ?? true ? ["--quiet"] : []),
    ...ports("tcp-ports", options.tcp),
    ...ports("udp-ports", options.udp),
    ...repeated("deny-out", options.denyOut),
    ...repeated("allow-out", options.allowOut),
    ...policyArguments(options),
  ];
}

function namespaceArguments(options: NamespaceOptions): string[] {
  return [
    ...commonArguments(options),
    ...(options.configNet ?? true ? ["--config-net"] : []),
    ...ports("tcp-ns", options.tcpNs),
    ...ports("udp-ns", options.udpNs),
  ];
}

/**
 * Mode, options and command of an instance that runs a command.
 *
 * @param descriptors options that name descriptors: they stand first
 * @throws ConfigError for options that are not what they are declared to be
 * @example
 * ```ts
 * import { spawnArguments } from "./arguments.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const args = spawnArguments({ command: ["ls", "-l"], tcp: "8080:80", udp: [] }, ["--control=3"]);
 * assertEquals(args.slice(0, 3), ["pasta", "--control=3", "--quiet"]);
 * assertEquals(args.slice(3, 6), ["--tcp-ports=8080:80", "--udp-ports=none", "--config-net"]);
 * assertEquals(args.slice(6), ["--", "ls", "-l"]);
 * ```
 */
export function spawnArguments(options: SpawnOptions, descriptors: readonly string[]): string[] {
  checkOptions("spawn", options);
  const { command = [], args = [] } = options;
  if (command.length === 1 && /^\d+$/.test(command[0])) {
    throw new ConfigError(`command: ${command[0]} would be a process: use attach({ pid })`);
  }
  const rest = command.length > 0 ? ["--", ...command] : [];
  return ["pasta", ...descriptors, ...namespaceArguments(options), ...args, ...rest];
}

/** As {@linkcode spawnArguments}, for what is there already. @throws ConfigError */
export function attachArguments(options: AttachOptions, descriptors: readonly string[]): string[] {
  const kind = attachKind(options);
  checkOptions(kind, options);
  if (kind === "socket") return machineArguments(options as AttachMachine, descriptors);
  const { args = [], ...target } = options as AttachProcess & AttachNamespace;
  const own = ["pasta", ...descriptors, ...namespaceArguments(options)];
  if (kind === "pid") return [...own, ...args, "--", `${target.pid}`];
  return [...own, `--netns=${target.netns}`, ...repeated("userns", target.userns), ...args];
}

function machineArguments(options: AttachMachine, descriptors: readonly string[]): string[] {
  const { socket, vhostUser = false, args = [] } = options;
  const machine = [`--socket=${socket}`, ...(vhostUser ? ["--vhost-user"] : [])];
  return ["passt", ...descriptors, ...commonArguments(options), ...machine, ...args];
}
