// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The least that stands for QEMU at a stream socket: frames, each with its length in front as four
 * bytes in network order, and one question that every network answers.
 *
 * @module
 */
import { sleep } from "../helpers/run.ts";
import { Net } from "../helpers/testbed.ts";

const LENGTH_BYTES = 4;
const RETRY_MS = 10;
const ANSWER_TIMEOUT_MS = 15_000;

function ipv4(text: string): string {
  return new Uint8Array(text.split(".").map(Number)).toHex();
}

const MAC = "525400123456";

/** An ARP question for the gateway (RFC 826), in hexadecimal. */
export const QUESTION = "ffffffffffff" + MAC + "0806" + "0001080006040001" +
  MAC + ipv4(Net.HOST4) + "000000000000" + ipv4(Net.GATEWAY4);

/** Whether a frame, in hexadecimal, answers {@linkcode QUESTION}. */
export function answers(frame: string): boolean {
  const reply = new RegExp(`^${MAC}.{12}08060001080006040002.{12}${ipv4(Net.GATEWAY4)}${MAC}`);
  return reply.test(frame);
}

/** Connects, again while the queue of those that wait is full. */
export async function connectTo(path: string): Promise<Deno.UnixConn> {
  const end = performance.now() + ANSWER_TIMEOUT_MS;
  for (;;) {
    try {
      return await Deno.connect({ transport: "unix", path });
    } catch (error) {
      if (!(error instanceof Deno.errors.WouldBlock) || performance.now() > end) throw error;
      await sleep(RETRY_MS);
    }
  }
}

/** One connection. */
export class FramePeer implements Disposable {
  readonly #connection: Deno.UnixConn;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
  }

  static async connect(path: string): Promise<FramePeer> {
    return new FramePeer(await connectTo(path));
  }

  /** Asks, and waits for the answer; false when the connection ends or nothing comes. */
  async ask(): Promise<boolean> {
    const frame = Uint8Array.fromHex(QUESTION);
    const bytes = new Uint8Array(LENGTH_BYTES + frame.length);
    new DataView(bytes.buffer).setUint32(0, frame.length);
    bytes.set(frame, LENGTH_BYTES);
    try {
      for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
      for (;;) {
        const answer = await this.#within(this.#frame());
        if (answer === null) return false;
        if (answers(answer)) return true;
      }
    } catch {
      return false; // closed by the other side
    }
  }

  /** Waits until the other side closes; false when it does not, or sends something. */
  async closed(): Promise<boolean> {
    try {
      return await this.#within(this.#connection.read(new Uint8Array(1)).then((n) => n ?? -1)) ===
        -1;
    } catch {
      return true; // reset
    }
  }

  async #within<T>(promise: Promise<T>): Promise<T | null> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), ANSWER_TIMEOUT_MS);
    });
    const first = await Promise.race([promise, late]);
    clearTimeout(timer);
    return first;
  }

  async #frame(): Promise<string> {
    const head = await this.#bytes(LENGTH_BYTES);
    return (await this.#bytes(new DataView(head.buffer).getUint32(0))).toHex();
  }

  async #bytes(size: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(size);
    for (let at = 0; at < size;) {
      const n = await this.#connection.read(bytes.subarray(at));
      if (n === null) throw new Error("closed");
      at += n;
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch {
      // closed already
    }
  }
}

/** Connects, asks, and leaves. */
export async function asked(path: string): Promise<boolean> {
  using peer = await FramePeer.connect(path);
  return await peer.ask();
}
