// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The guest as a command in namespaces of its own.
 *
 * Theory of operation: a syscall script clones the command's process into new user, network, PID,
 * mount, UTS and IPC namespaces. (Where a user namespace is named, a first child joins that and clones
 * the command's process from there, as a child of ours: CLONE_PARENT.) There it ties its life to ours (PR_SET_PDEATHSIG), maps our user to
 * root, opens ping sockets to root, mounts /proc and /sys anew (they show the new PID and network
 * namespaces) and then waits on a socket pair, while we make the tap and configure it from outside
 * (`../sys/namespace.ts`). {@linkcode GuestProcess.release} lets it execute the command. Should we die before, it
 * reads an end of file and exits; afterwards the kernel kills it, and as it is process 1 of its PID
 * namespace everything it has started goes with it. It stays in our session and process group, so a
 * shell has job control. It keeps descriptors 0, 1 and 2 only, and finds signals handled and the file
 * mode mask as we did when we were started.
 *
 * @module
 */
import { awaitByte } from "../sys/descriptors.ts";
import { check, E } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { userJoinHint, userNamespaceHint } from "../sys/namespace.ts";
import { openPidfd, pollExit, waitExit } from "../sys/process.ts";
import { AT_FDCWD, CLONE, Script, type Step } from "../sys/script.ts";
import { type SignalMask, SIGSET_SIZE } from "../sys/signal_mask.ts";
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_STREAM } from "../sys/socket.ts";
import { COMMAND_NOT_EXECUTABLE, CommandError, executeHint } from "./command_error.ts";
import { callersUmask } from "./hygiene.ts";
import { addStartStrings, startVariable } from "./start_strings.ts";

const PR_SET_PDEATHSIG = 1; // linux/prctl.h
const PR_SET_DUMPABLE = 4; // linux/prctl.h
const SIGKILL = 9; // asm-generic/signal.h
const SIGPIPE = 13; // asm-generic/signal.h
const KERNEL_SIGACTION_SIZE = 32; // asm/signal.h: handler, flags, restorer, mask; all zero: SIG_DFL
const SIG_IGN = 1; // asm-generic/signal.h
/** linux/mount.h */
const MS = {
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  BIND: 0x1000,
  REC: 0x4000,
  SLAVE: 1 << 19,
} as const;
const PSEUDO_FS = MS.NOSUID | MS.NODEV | MS.NOEXEC;
const AT_RECURSIVE = 0x8000; // linux/fcntl.h
const OPEN_TREE_CLONE = 1; // linux/mount.h
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
const MOVE_MOUNT_F_EMPTY_PATH = 4; // linux/mount.h
const FIRST_OTHER_FD = 3;
const LAST_FD = 0xffffffff;
const CLOSE_RANGE_CLOEXEC = 4; // linux/close_range.h
const X_OK = 1; // unistd.h
const MAX_HOSTNAME = 64; // sethostname(2)
const HOSTNAME_PREFIX = "pasta-";
const SHELL = "/bin/sh";
const DEFAULT_PATH = "/bin:/usr/bin"; // execvp(3)

const NAMESPACES = CLONE.NEWNET | CLONE.NEWPID | CLONE.NEWNS | CLONE.NEWUTS | CLONE.NEWIPC;

/** What to run. */
export interface SpawnOptions {
  /** Command and arguments; empty or absent: the user's shell ($SHELL or /bin/sh) as login shell. */
  readonly command?: readonly string[];
  /** Host name inside, cut to 64 bytes. Absent: the host's with `pasta-` in front. */
  readonly hostname?: string;
  /** Signals that the command finds ignored though we do not ignore them. */
  readonly ignored?: readonly number[];
  /** Its signal mask. Absent: ours. */
  readonly mask?: SignalMask;
  /** Make no user namespace: the command has our rights, and we must be root. */
  readonly sameUser?: boolean;
  /** Make no user namespace, but join this one first: a descriptor of nsfs. */
  readonly userNamespace?: number;
}

/** The command's process. */
export interface GuestProcess {
  /** Process ID as we see it. */
  readonly pid: number;
  /** Readable when the process has ended. */
  readonly pidfd: number;
  /** What could not be set up inside, though the command can run without it. */
  readonly warnings: readonly string[];
  /**
   * Lets the process execute the command. Blocks until it has.
   *
   * @throws CommandError when the kernel refuses; the process is gone then
   */
  release(): void;
  /** The exit code (128 + N after signal N), or null while the process runs. Does not block. */
  status(): number | null;
  /** Sends a signal to the command, unless it has ended. Default: SIGKILL. */
  kill(signal?: number): void;
  /** Ends the command and all it has started, waits until they are gone, closes descriptors. */
  close(): void;
}

/**
 * Finds a command as execvp(3) does, with our rights.
 *
 * @throws CommandError
 */
export function findCommand(name: string): string {
  if (name.includes("/")) return name;
  let found = "";
  for (const directory of (startVariable("PATH") ?? DEFAULT_PATH).split(":")) {
    const path = `${directory || "."}/${name}`;
    if (name === "" || !isFile(path)) continue;
    if (libc.access(new TextEncoder().encode(`${path}\0`), X_OK) === 0) return path;
    found ||= path;
  }
  if (found) throw new CommandError(found, E.EACCES, executeHint(E.EACCES));
  throw new CommandError(name, E.ENOENT, "command not found");
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** What to execute. */
interface Command {
  readonly path: string;
  readonly argv: readonly string[];
}

function resolve(command: readonly string[]): Command {
  if (command.length > 0) return { path: findCommand(command[0]), argv: command };
  const shell = Deno.env.get("SHELL") || SHELL;
  return { path: shell, argv: [`-${shell}`] }; // login(1): a leading dash makes a login shell
}

/** Maps our user and group to root, which the owner of a user namespace may do without privileges. */
function addIdentity(script: Script): void {
  const options = { hint: userNamespaceHint };
  script.writeFile("/proc/self/setgroups", "deny", options);
  script.writeFile("/proc/self/uid_map", `0 ${libc.geteuid()} 1`, options);
  script.writeFile("/proc/self/gid_map", `0 ${libc.getegid()} 1`, options);
}

/** Shows the new namespaces in /proc and /sys; the host's control groups stay where they were. */
function addMounts(script: Script): void {
  const soft = { required: false };
  // what is unmounted on the host goes here too; nothing goes the other way
  script.call("mount", [0, "/", 0, MS.REC | MS.SLAVE, 0], { what: "/ as slave" });
  const cgroup = "/sys/fs/cgroup";
  const clone = OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE;
  const tree = script.call("open_tree", [AT_FDCWD, cgroup, clone], {
    what: cgroup,
    tolerate: E.ENOENT,
    ...soft,
  });
  script.call("mount", ["proc", "/proc", "proc", PSEUDO_FS, 0], { what: "/proc", ...soft });
  script.call("mount", ["sysfs", "/sys", "sysfs", PSEUDO_FS, 0], { what: "/sys", ...soft });
  script.call("move_mount", [tree, "", AT_FDCWD, cgroup, MOVE_MOUNT_F_EMPTY_PATH], {
    what: cgroup,
    ...soft,
  });
}

/** Gives signals the action with which we were started, where we or the runtime changed it. */
function addSignals(script: Script, ignored: readonly number[]): void {
  const defaultAction = script.address(script.reserve(KERNEL_SIGACTION_SIZE));
  script.call("rt_sigaction", [SIGPIPE, defaultAction, 0, SIGSET_SIZE]);
  const ignore = new Uint8Array(KERNEL_SIGACTION_SIZE);
  ignore[0] = SIG_IGN; // low byte of the handler
  for (const signal of ignored) {
    script.call("rt_sigaction", [signal, script.data(ignore), 0, SIGSET_SIZE]);
  }
}

/** Undoes what the runtime changed, and executes the command. @returns the two attempts */
function addExecute(script: Script, { path, argv }: Command, options: SpawnOptions): Step[] {
  addSignals(script, options.ignored ?? []);
  script.call("umask", [callersUmask()]);
  // Linux 5.11; our own descriptors are close-on-exec anyway
  script.call("close_range", [FIRST_OTHER_FD, LAST_FD, CLOSE_RANGE_CLOEXEC], {
    what: "descriptors",
    required: false,
  });
  script.restoreSignals(options.mask);
  const program = script.string(path),
    environment = script.vector(addStartStrings(script, "environ"));
  const words = argv.map((word) => script.string(word));
  const shellWords = [script.string(SHELL), program, ...words.slice(1)];
  return [
    script.call("execve", [program, script.vector(words), environment], { tolerate: E.ENOEXEC }),
    // a script without #! runs in the shell, as execvp(3) has it
    script.call("execve", [SHELL, script.vector(shellWords), environment]),
  ];
}

class Process implements GuestProcess {
  readonly pid: number;
  readonly pidfd: number;
  readonly warnings: readonly string[];
  readonly #script: Script;
  readonly #attempts: readonly Step[];
  readonly #command: string;
  #gate: number;
  #exitCode: number | null = null;
  #closed = false;

  constructor(pid: number, gate: number, script: Script, attempts: readonly Step[], path: string) {
    this.pid = pid;
    this.#gate = gate;
    this.#script = script;
    this.#attempts = attempts;
    this.#command = path;
    this.pidfd = openPidfd(pid);
    this.warnings = script.errors(false).map((error) => error.message);
  }

  release(): void {
    if (this.#gate < 0) return;
    libc.send(this.#gate, new Uint8Array(1), 1, MSG_NOSIGNAL);
    awaitByte(this.#gate); // its end is closed by execve or by exit
    const [first, second] = this.#attempts.map((step) => this.#script.errorOf(step));
    this.#closeGate();
    const error = second ?? (first?.errno === E.ENOEXEC ? null : first);
    if (!error) return;
    this.close();
    throw new CommandError(this.#command, error.errno, executeHint(error.errno));
  }

  #closeGate(): void {
    if (this.#gate < 0) return;
    libc.close(this.#gate);
    this.#gate = -1;
    this.#script.dispose();
  }

  status(): number | null {
    return this.#exitCode ??= pollExit(this.pid);
  }

  kill(signal: number = SIGKILL): void {
    if (this.status() === null) libc.kill(this.pid, signal);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.kill();
    this.#exitCode ??= waitExit(this.pid);
    this.#closeGate();
    libc.close(this.pidfd);
  }
}

function sameUserHint(errno: number): string {
  return errno === E.EPERM ? "--netns-only makes no user namespace: only root can do without" : "";
}

/** The steps to a process in its namespaces. */
function addClone(script: Script, { sameUser = false, userNamespace = -1 }: SpawnOptions): void {
  const what = "namespaces";
  if (userNamespace >= 0) {
    script.clone(0, { what: "helper" });
    // EINVAL: it is our own; if it is not, the next step says EPERM
    const joining = { what: "user namespace", hint: userJoinHint, tolerate: E.EINVAL };
    script.call("setns", [userNamespace, CLONE.NEWUSER], joining);
    script.succeed(NAMESPACES, { what, hint: userNamespaceHint });
    // joining took our own files in /proc from us, and with them the namespaces that are opened there
    script.call("prctl", [PR_SET_DUMPABLE, 1], { what: "PR_SET_DUMPABLE" });
  } else if (sameUser) {
    script.clone(NAMESPACES, { what, hint: sameUserHint });
  } else {
    script.clone(NAMESPACES | CLONE.NEWUSER, { what, hint: userNamespaceHint });
    addIdentity(script);
  }
}

/** Runs the script. @returns the guest's process ID @throws SysError when there is none */
function runScript(script: Script, joins: boolean): number {
  const child = script.run();
  if (!joins) return child;
  waitExit(child);
  if (script.successor === 0) throw script.failure() ?? new Error("The helper ended too early");
  return script.successor;
}

/** The script of the guest's process. @returns the attempts to execute the command */
function addSteps(
  script: Script,
  [ours, theirs]: Int32Array,
  command: Command,
  options: SpawnOptions,
): Step[] {
  const { hostname = `${HOSTNAME_PREFIX}${Deno.hostname()}` } = options;
  addClone(script, options);
  script.call("close", [ours]);
  script.call("prctl", [PR_SET_PDEATHSIG, SIGKILL], { what: "PR_SET_PDEATHSIG" });
  script.writeFile("/proc/sys/net/ipv4/ping_group_range", "0 0", { required: false });
  const name = new TextEncoder().encode(hostname).subarray(0, MAX_HOSTNAME);
  script.call("sethostname", [script.data(name), name.length], { what: hostname, required: false });
  addMounts(script);
  const byte = script.address(script.reserve(1));
  script.call("write", [theirs, byte, 1], { what: "readiness" });
  script.call("read", [theirs, byte, 1], { what: "release", exitOnZero: true });
  const attempts = addExecute(script, command, options);
  script.exit(COMMAND_NOT_EXECUTABLE);
  return attempts;
}

/**
 * Makes the guest's namespaces with a process that waits for {@linkcode GuestProcess.release} to execute the
 * command. Blocks for some milliseconds.
 *
 * To be called in the main thread: the guest ends when the calling thread does.
 *
 * @throws CommandError when the command is not found in PATH
 * @throws SysError when a namespace is refused; nothing is left behind
 * @example
 * ```ts
 * import { spawnGuest } from "./spawn.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const guest = spawnGuest({ command: ["sh", "-c", "exit 7"] });
 * // here the namespace gets its network: openGuestNetwork(openNamespace(guest.pid), …)
 * guest.release();
 * while (guest.status() === null); // a program waits for `guest.pidfd` instead
 * assertEquals(guest.status(), 7);
 * guest.close();
 * ```
 */
export function spawnGuest(options: SpawnOptions = {}): GuestProcess {
  const command = resolve(options.command ?? []);
  const pair = new Int32Array(2);
  check(libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
  const script = new Script();
  let pid = 0;
  try {
    const attempts = addSteps(script, pair, command, options);
    pid = runScript(script, options.userNamespace !== undefined);
    libc.close(pair[1]);
    pair[1] = -1;
    if (awaitByte(pair[0]) >= 0) return new Process(pid, pair[0], script, attempts, command.path);
    throw script.failure() ?? new Error("The guest's process ended before it was ready");
  } catch (error) {
    if (pid > 0) {
      libc.kill(pid, SIGKILL);
      waitExit(pid);
    }
    for (const fd of pair) if (fd >= 0) libc.close(fd);
    script.dispose();
    throw error;
  }
}
