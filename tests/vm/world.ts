// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The program under test as `passt`, in the host namespace of a testbed, and guests connected to it.
 *
 * ```text
 *  guest (QEMU, in no namespace) ── UNIX socket ── passt │ host ── uplink ── remote
 * ```
 *
 * QEMU needs no network of its own, so that all a guest sends ends in the testbed. The program is
 * `main.ts passt` of this project, or what `TUBETTI_UNDER_TEST` names, such as
 * `TUBETTI_UNDER_TEST=passt`.
 *
 * @module
 */
import { socketsOf } from "../helpers/netns.ts";
import { missing, type Requirements, requirements } from "../helpers/require.ts";
import { type Background, until } from "../helpers/run.ts";
import { isTubetti, programUnderTest, type Testbed } from "../helpers/testbed.ts";
import { Guest, type GuestOptions, type Transport } from "./guest.ts";
import { lackOfKernel, VM_PACKAGES } from "./image.ts";

/** Both ways to carry frames, in the order in which they are tested. */
export const TRANSPORTS: readonly Transport[] = ["stream", "vhost-user"];

/** A listening socket's flag in /proc/net/unix: __SO_ACCEPTCON of linux/net.h. */
const ACCEPTS = "00010000";

const FOLDER_MODE = 0o755;
const STOP_TIMEOUT_MS = 20_000;
const NOT_ANSWERED = 124;

/** What a test needs that starts guests over this transport; brings their kernel when it can. */
export async function needs(transport: Transport = "stream", more: Requirements = {}) {
  const all: Requirements = {
    ...more,
    packages: [...VM_PACKAGES, ...(more.packages ?? [])],
    machine: "x86_64",
    tubetti: transport === "vhost-user" || more.tubetti === true,
  };
  const lacks = missing(all) === "" ? await lackOfKernel() : "";
  return requirements({ ...all, lacks });
}

/** The command line of the program under test, up to options; it stays root. */
export function passtUnderTest(): string[] {
  const program = programUnderTest();
  if (isTubetti()) program[program.length - 1] = "passt";
  return [...program, "--runas", "0"];
}

/** Paths of the UNIX sockets that a process itself listens on. */
export function listening(pid: number): string[] {
  const own = socketsOf(pid);
  let text = "";
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/net/unix`);
  } catch {
    // gone
  }
  const lines = text.split("\n").map((line) => line.trim().split(/\s+/));
  // Num RefCount Protocol Flags Type St Inode Path
  return lines.filter(([, , , flags, , , inode]) => flags === ACCEPTS && own.has(inode ?? ""))
    .map((fields) => fields.slice(7).join(" "));
}

/** How to start the program. */
export interface PasstOptions {
  transport?: Transport;
  /** Further options. */
  options?: readonly string[];
  /** Command line up to the options; {@linkcode passtUnderTest} when not given. */
  program?: readonly string[];
  /** Path of the socket; one of its own when not given, the program's choice when null. */
  socket?: string | null;
}

/** The program, running in the foreground; gone after `await using`. */
export class Passt implements AsyncDisposable {
  readonly bed: Testbed;
  readonly process: Background;
  /** Where it listens. */
  readonly socket: string;
  readonly transport: Transport;
  readonly #folder: string;

  private constructor(
    bed: Testbed,
    process: Background,
    socket: string,
    transport: Transport,
    folder: string,
  ) {
    this.bed = bed;
    this.process = process;
    this.socket = socket;
    this.transport = transport;
    this.#folder = folder;
  }

  /** Starts the program and waits until it listens. */
  static async start(bed: Testbed, options: PasstOptions = {}): Promise<Passt> {
    const { transport = "stream", program = passtUnderTest() } = options;
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-passt-` });
    await Deno.chmod(folder, FOLDER_MODE);
    const wanted = options.socket === undefined ? `${folder}/socket` : options.socket;
    const process = await bed.serveHost([
      ...[...program, "-f", "-e", ...(wanted === null ? [] : ["-s", wanted])],
      ...(transport === "vhost-user" ? ["--vhost-user"] : []),
      ...(options.options ?? []),
    ], {});
    let socket = "";
    const found = () => {
      socket = listening(process.pid).find((path) => wanted === null || path === wanted) ?? "";
      return socket !== "" || process.code !== null;
    };
    if (!await until(found) || socket === "") {
      const said = `${process.stdout}${process.stderr}`;
      await process.stop();
      await Deno.remove(folder, { recursive: true });
      throw new Error(`${process.command.join(" ")} does not listen: ${said}`);
    }
    return new Passt(bed, process, socket, transport, folder);
  }

  /** Starts a guest that is connected to the program. */
  guest(options: Partial<GuestOptions> = {}): Promise<Guest> {
    const { transport, socket } = this;
    return Guest.start({ transport, socket, mark: this.bed.guestMark, ...options });
  }

  /** Waits until the program has ended by itself; its status, 124 when it did not. */
  async ended(): Promise<number> {
    return await until(() => this.process.code !== null) ? this.process.code! : NOT_ANSWERED;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.code === null) {
      this.process.kill("SIGTERM");
      await this.process.wait(STOP_TIMEOUT_MS);
    }
    await Deno.remove(this.#folder, { recursive: true });
  }
}
