// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A virtual machine with Linux in it, in which commands can be run.
 *
 * QEMU gets the kernel and the file system of `image.ts`, a network device whose other end is the
 * program under test, and a virtio console port. What happens on that port is written at the top of
 * `init.sh`. The guest's own messages go to a file that is part of every error's text.
 *
 * @module
 */
import { Background, run, sleep, until } from "../helpers/run.ts";
import type { Result, RunOptions } from "../helpers/run.ts";
import { image } from "./image.ts";

/** How Ethernet frames travel between QEMU and the program under test. */
export type Transport = "stream" | "vhost-user";

/** What a guest is made of. */
export interface GuestOptions {
  transport: Transport;
  /** Path of the socket that the program under test listens on. */
  socket: string;
  /** Memory in MiB. */
  memoryMb?: number;
  /** The guest's address on its link. */
  mac?: string;
  /** Number of processors. */
  processors?: number;
  /** Further options of QEMU. */
  more?: readonly string[];
  /** Mark of the processes, by which they are found. */
  mark?: string;
  /** What the network device can do is QEMU's choice, unless properties such as `mrg_rxbuf=off` are given. */
  device?: string;
}

/** What a command in the guest has come to. */
export interface Output {
  /** Exit status; 137 when it was ended because it took too long. */
  readonly code: number;
  /** What it has printed, errors too. */
  readonly out: string;
}

/** The link address that guests have unless they are given another one. */
export const GUEST_MAC = "52:54:00:12:34:56";

const QEMU = "qemu-system-x86_64";
const MEMORY_MB = 256;
const BOOT_TIMEOUT_MS = 120_000;
const COMMAND_TIMEOUT_MS = 30_000;
/** What an answer may take beyond the command's own time. */
const ANSWER_SLACK_MS = 20_000;
const LEAVE_TIMEOUT_MS = 20_000;
const MS_PER_S = 1000;
/** Lines of the guest's messages in an error's text. */
const CONSOLE_LINES = 25;

/** Kernel command line: messages to the serial port, no time for what a test does not need. */
const KERNEL_OPTIONS = "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off nokaslr " +
  "tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests audit=0";

let usable: Promise<boolean> | null = null;

/** Whether the processor's own virtual machines can be used; `TUBETTI_VM_ACCEL=tcg` says no. */
export function hasKvm(): Promise<boolean> {
  if (Deno.env.get("TUBETTI_VM_ACCEL") === "tcg") return Promise.resolve(false);
  const machine = ["-machine", "q35,accel=kvm", "-cpu", "max", "-S", "-nodefaults", "-nographic"];
  return usable ??= run([QEMU, ...machine, "-monitor", "stdio"], { stdin: "quit\n" })
    .then(({ code }) => code === 0, () => false);
}

/**
 * Without this, QEMU 7.2 without KVM ends by SIGSEGV as soon as the driver starts a vhost-user device: it
 * treats the device's message-signalled interrupts as if KVM delivered them. Interrupts by a line do.
 */
const LINE_INTERRUPT = ",vectors=0";

/**
 * QEMU 7.2 leaves the guest's memory barriers out when it emulates a machine that can only ever have one
 * processor. A back-end in another process then misses a notification now and then, and all stands
 * still. So there is always room for one more processor.
 */
function processors(count: number, kvm: boolean): string {
  return kvm ? `${count}` : `${count},maxcpus=${count + 1}`;
}

function networkOptions(options: GuestOptions, kvm: boolean): string[] {
  const { transport, socket, device, mac = GUEST_MAC, memoryMb = MEMORY_MB } = options;
  const properties = device ? `,${device}` : "";
  const card = `virtio-net-pci,netdev=net,romfile=,mac=${mac}${properties}`;
  if (transport === "stream") {
    const stream = `stream,id=net,server=off,addr.type=unix,addr.path=${socket}`;
    return ["-netdev", stream, "-device", card];
  }
  const memory = `memory-backend-memfd,id=memory,size=${memoryMb}M,share=on`;
  return [
    ...["-chardev", `socket,id=socket,path=${socket}`],
    ...["-netdev", "vhost-user,id=net,chardev=socket"],
    ...["-object", memory, "-numa", "node,memdev=memory"],
    ...["-device", card + (kvm ? "" : LINE_INTERRUPT)],
  ];
}

/** A running guest; gone after `await using`. */
export class Guest implements AsyncDisposable {
  readonly qemu: Background;
  readonly #folder: string;
  readonly #port: Port;
  /** Milliseconds from the start of QEMU until the guest could be spoken to. */
  readonly bootMs: number;
  #bootId: string;

  private constructor(qemu: Background, folder: string, port: Port, bootId: string, ms: number) {
    this.qemu = qemu;
    this.#folder = folder;
    this.#port = port;
    this.#bootId = bootId;
    this.bootMs = ms;
  }

  /** Starts a guest and waits until it can be spoken to. */
  static async start(options: GuestOptions): Promise<Guest> {
    const { kernel, initramfs } = await image();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-guest-` });
    const began = performance.now();
    const kvm = await hasKvm();
    const qemu = new Background([
      ...[
        QEMU,
        "-machine",
        `q35,accel=${kvm ? "kvm" : "tcg"}`,
        "-cpu",
        "max",
        "-smp",
        processors(options.processors ?? 1, kvm),
      ],
      ...["-m", `${options.memoryMb ?? MEMORY_MB}`, "-nodefaults", "-nographic"],
      ...["-serial", `file:${folder}/console`, "-kernel", kernel, "-initrd", initramfs],
      ...["-append", KERNEL_OPTIONS, "-device", "virtio-serial-pci"],
      ...["-chardev", `socket,id=control,path=${folder}/control,server=on,wait=off`],
      ...["-device", "virtserialport,chardev=control"],
      ...networkOptions(options, kvm),
      ...(options.more ?? []),
    ], { mark: options.mark ?? "vm" });
    const close = () => Deno.removeSync(folder, { recursive: true });
    const fail = async (why: unknown): Promise<never> => {
      const told = consoleTail(folder);
      await qemu.stop();
      close();
      throw new Error(`The guest did not start: ${why}\n${qemu.stderr}\n${told}`);
    };
    try {
      const port = await Port.connect(`${folder}/control`, qemu);
      const bootId = await port.greeting(BOOT_TIMEOUT_MS);
      return new Guest(qemu, folder, port, bootId, performance.now() - began);
    } catch (error) {
      return await fail(error);
    }
  }

  /** Runs a line of shell in the guest. */
  async run(command: string, timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<Output> {
    const seconds = Math.ceil(timeoutMs / MS_PER_S);
    try {
      return await this.#port.ask(seconds, command, timeoutMs + ANSWER_SLACK_MS);
    } catch (error) {
      throw new Error(`${command}: ${error}\n${this.qemu.stderr}\n${this.console()}`);
    }
  }

  /** Runs a line of shell that must succeed, and returns what it prints, without space around it. */
  async must(command: string, timeoutMs?: number): Promise<string> {
    const { code, out } = await this.run(command, timeoutMs);
    if (code !== 0) throw new Error(`In the guest: ${command}: exit ${code}\n${out}`);
    return out.trim();
  }

  /** Runs a line of shell until it succeeds; throws with the last output when it never did. */
  async until(command: string, timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<string> {
    let last: Output = { code: -1, out: "" };
    const good = async () => (last = await this.run(command)).code === 0;
    if (await until(good, timeoutMs, 50)) return last.out.trim();
    throw new Error(`In the guest, in vain: ${command}: exit ${last.code}\n${last.out}`);
  }

  /** Starts a command in the background of the guest; its output goes to `/tmp/NAME.out`. */
  async start(name: string, command: string): Promise<void> {
    await this.must(`setsid sh -c ${quote(command)} >/tmp/${name}.out 2>&1 </dev/null &`);
  }

  /** Waits until something in the guest listens on a TCP port, or has a UDP port bound. */
  async listens(protocol: "tcp" | "udp", port: number): Promise<void> {
    await this.until(`netstat -ln | grep -E '^${protocol}.*:${port} '`);
  }

  /** Restarts the guest's kernel; QEMU and its connection stay. */
  async reboot(): Promise<void> {
    this.#port.tell(1, "sync; reboot -f");
    const before = this.#bootId;
    this.#bootId = await this.#port.greeting(BOOT_TIMEOUT_MS);
    if (this.#bootId === before) throw new Error("the guest has not booted again");
  }

  /** Has the guest switch itself off, and waits until QEMU has ended. */
  async shutdown(): Promise<number> {
    this.#port.tell(1, "poweroff -f");
    return await this.qemu.wait(LEAVE_TIMEOUT_MS);
  }

  /** Ends QEMU at once. */
  async kill(): Promise<void> {
    await this.qemu.stop("SIGKILL");
  }

  /** The last lines of the guest's own messages. */
  console(): string {
    return consoleTail(this.#folder);
  }

  /** A place to run commands in, as the helpers of the testbed have it: words, not lines. */
  async runWords(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    const began = performance.now();
    const line = command.map(quote).join(" ");
    const { code, out } = await this.run(line, options.timeoutMs);
    return { code, stdout: out, stderr: code === 0 ? "" : out, ms: performance.now() - began };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#port.close();
    await this.kill();
    Deno.removeSync(this.#folder, { recursive: true });
  }
}

/** A word as the shell takes it. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

function consoleTail(folder: string): string {
  try {
    const text = Deno.readTextFileSync(`${folder}/console`);
    return text.trimEnd().split("\n").slice(-CONSOLE_LINES).join("\n");
  } catch {
    return "";
  }
}

/** The control port. */
class Port {
  readonly #connection: Deno.UnixConn;
  readonly #lines: string[] = [];
  readonly #qemu: Background;
  #wake: (() => void) | null = null;
  #number = 0;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(connection: Deno.UnixConn, qemu: Background) {
    this.#connection = connection;
    this.#qemu = qemu;
    void this.#collect();
  }

  static async connect(path: string, qemu: Background): Promise<Port> {
    const end = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      try {
        return new Port(await Deno.connect({ transport: "unix", path }), qemu);
      } catch (error) {
        if (qemu.code !== null) throw new Error(`QEMU ended with status ${qemu.code}`);
        if (performance.now() > end) throw error;
        await sleep(10);
      }
    }
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    let text = "";
    try {
      for await (const chunk of this.#connection.readable) {
        text += decoder.decode(chunk, { stream: true });
        const lines = text.split("\n");
        text = lines.pop()!;
        this.#lines.push(...lines);
        this.#wake?.();
      }
    } catch {
      // closed
    }
    this.#wake?.();
  }

  /** The answer to a number; others, which nobody waits for any more, are dropped. */
  async #answer(number: number, timeoutMs: number): Promise<[number, string]> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      for (let line = this.#lines.shift(); line !== undefined; line = this.#lines.shift()) {
        const [of, status, output] = line.split(" ");
        if (Number(of) === number) return [Number(status), fromBase64(output ?? "")];
      }
      if (this.#qemu.code !== null) throw new Error(`QEMU ended with status ${this.#qemu.code}`);
      const left = end - performance.now();
      if (left <= 0) throw new Error("the guest does not answer");
      await this.#moreLines(Math.min(left, 200));
    }
  }

  async #moreLines(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    this.#wake = null;
  }

  /** Waits for the first words of a guest that has booted; returns the number of this boot. */
  async greeting(timeoutMs: number): Promise<string> {
    const [, text] = await this.#answer(0, timeoutMs);
    return text.trim().split("\n").at(-1)!;
  }

  /** Sends a request that nobody waits for. */
  tell(seconds: number, command: string): number {
    const bytes = new TextEncoder().encode(
      `${++this.#number} ${seconds} ${toBase64(command)}\n`,
    );
    const number = this.#number;
    this.#last = this.#last.then(() => this.#write(bytes)).catch(() => {});
    return number;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  async ask(seconds: number, command: string, timeoutMs: number): Promise<Output> {
    const [code, out] = await this.#answer(this.tell(seconds, command), timeoutMs);
    return { code, out };
  }

  close(): void {
    try {
      this.#connection.close();
    } catch {
      // closed already
    }
  }
}

function toBase64(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}

function fromBase64(text: string): string {
  return new TextDecoder().decode(Uint8Array.fromBase64(text));
}
