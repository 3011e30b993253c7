// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP frames as the guest's kernel would make and read them: a builder and a reader of their own that
 * share nothing with the code under test.
 *
 * @module
 */
import type { SentFrame } from "../helpers/fake_link.ts";
import { GUEST_MAC, OUR_MAC } from "../helpers/fake_context.ts";

export const FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32;

/** Addresses of the fake context, as bytes. */
export const GUEST4: readonly number[] = [192, 0, 2, 2];
export const GATEWAY4: readonly number[] = [192, 0, 2, 1];
export const GUEST6: readonly number[] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
export const GATEWAY6: readonly number[] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const macBytes = (text: string) => text.split(":").map((byte) => parseInt(byte, 16));

/** What a frame to the guest says. */
export interface Segment {
  v6: boolean;
  source: number[];
  dest: number[];
  sport: number;
  dport: number;
  /** Unsigned. */
  seq: number;
  ack: number;
  flags: number;
  window: number;
  /** Options; undefined when absent. */
  mss: number | undefined;
  scale: number | undefined;
  payload: Uint8Array;
  sent: SentFrame;
}

/** What the guest sends; addresses default to guest → gateway. */
export interface SegmentSpec {
  source?: readonly number[];
  dest?: readonly number[];
  sport: number;
  dport: number;
  seq: number;
  ack?: number;
  flags: number;
  window?: number;
  options?: readonly number[];
  payload?: Uint8Array;
  v6?: boolean;
}

/** Plain Internet checksum (RFC 1071) over some pieces, each padded to an even length. */
function checksum(...pieces: ArrayLike<number>[]): number {
  let sum = 0;
  for (const piece of pieces) {
    for (let i = 0; i < piece.length; i += 2) sum += piece[i] * 256 + (piece[i + 1] ?? 0);
    while (sum > 65535) sum = sum % 65536 + Math.floor(sum / 65536);
  }
  return 65535 - sum;
}

const u16 = (value: number) => [value >>> 8 & 255, value & 255];
const u32 = (value: number) => [...u16(value >>> 16), ...u16(value & 65535)];

function pseudoHeader(source: readonly number[], dest: readonly number[], length: number) {
  return source.length === 4
    ? [...source, ...dest, 0, 6, ...u16(length)]
    : [...source, ...dest, ...u32(length), 0, 0, 0, 6];
}

/** Option bytes of a SYN, padded with NOPs; leave out what is not wanted. */
export function synOptions(mss?: number, scale?: number): number[] {
  const options: number[] = [];
  if (mss !== undefined) options.push(2, 4, ...u16(mss));
  if (scale !== undefined) options.push(1, 3, 3, scale);
  return options;
}

/** The frame of a segment from the guest, checksums included. */
export function buildSegment(spec: SegmentSpec): Uint8Array<ArrayBuffer> {
  const v6 = spec.v6 ?? false;
  const source = spec.source ?? (v6 ? GUEST6 : GUEST4);
  const dest = spec.dest ?? (v6 ? GATEWAY6 : GATEWAY4);
  const payload = spec.payload ?? new Uint8Array(0), options = spec.options ?? [];
  const tcp = [
    ...u16(spec.sport),
    ...u16(spec.dport),
    ...u32(spec.seq),
    ...u32(spec.ack ?? 0),
    (20 + options.length) / 4 << 4,
    spec.flags,
    ...u16(spec.window ?? 65535),
    ...[0, 0, 0, 0],
    ...options,
  ];
  const length = tcp.length + payload.length;
  const sum = checksum(pseudoHeader(source, dest, length), tcp, payload);
  tcp.splice(16, 2, ...u16(sum));
  const ip = v6
    ? [0x60, 0, 0, 0, ...u16(length), 6, 64, ...source, ...dest]
    : [0x45, 0, ...u16(20 + length), 0, 0, 0x40, 0, 64, 6, 0, 0, ...source, ...dest];
  if (!v6) ip.splice(10, 2, ...u16(checksum(ip)));
  const head = [...macBytes(OUR_MAC), ...macBytes(GUEST_MAC), ...(v6 ? [0x86, 0xdd] : [8, 0])];
  const headers = head.concat(ip, tcp);
  const frame = new Uint8Array(headers.length + payload.length);
  frame.set(headers);
  frame.set(payload, headers.length);
  return frame;
}

const refuse = (what: string): never => {
  throw new Error(`Bad frame to the guest: ${what}`);
};

/** Whether a sent frame is TCP (and not, say, ICMP). */
export function isTcp({ frame }: SentFrame): boolean {
  return frame[frame[12] === 0x86 ? 20 : 23] === 6;
}

function readOptions(frame: Uint8Array, from: number, end: number) {
  let mss: number | undefined, scale: number | undefined;
  for (let at = from; at < end;) {
    const kind = frame[at];
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = frame[at + 1];
    if (length < 2 || at + length > end) refuse("option length");
    if (kind === 2) mss = frame[at + 2] * 256 + frame[at + 3];
    else if (kind === 3) scale = frame[at + 2];
    else refuse(`option ${kind}`);
    at += length;
  }
  return { mss, scale };
}

/** Checks the virtio fields that the guest's kernel would read against the frame. */
function checkOffload(sent: SentFrame, tcp: number, data: number, maxSegment: number): void {
  const payload = sent.frame.length - data;
  if (sent.csumStart !== tcp || sent.csumOffset !== 16) refuse("place of the checksum");
  if (sent.headerLength !== 0 && sent.headerLength !== data) refuse("header length");
  if (sent.gsoType === 0) {
    if (sent.gsoSize !== 0) refuse("segment size without segmentation");
    if (payload > maxSegment) refuse(`${payload} bytes of payload in one packet`);
  } else {
    if (sent.gsoType !== (sent.frame[12] === 0x86 ? 4 : 1)) refuse("kind of segmentation");
    if (sent.gsoSize < 1 || sent.gsoSize > maxSegment || payload <= sent.gsoSize) {
      refuse(`segments of ${sent.gsoSize} bytes in ${payload}`);
    }
  }
}

/**
 * Reads a frame to the guest; throws for anything a guest's kernel would drop: lengths, addresses,
 * checksums (completed by the link as a kernel would), impossible offload fields.
 *
 * @param mtu of the guest's interface, which no packet may exceed
 */
export function readSegment(sent: SentFrame, mtu = 1500): Segment {
  const { frame } = sent;
  const v6 = frame[12] === 0x86;
  if (v6 ? frame[13] !== 0xdd : frame[12] !== 8 || frame[13] !== 0) refuse("Ethernet type");
  for (let i = 0; i < 6; i++) {
    if (frame[i] !== macBytes(GUEST_MAC)[i] || frame[6 + i] !== macBytes(OUR_MAC)[i]) refuse("MAC");
  }
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const tcp = v6 ? 54 : 34;
  if (v6) {
    if (frame[14] >>> 4 !== 6 || frame[20] !== 6) refuse("IPv6 header");
    if (view.getUint16(18) !== frame.length - 54) refuse("IPv6 payload length");
  } else {
    if (frame[14] !== 0x45 || frame[23] !== 6) refuse("IPv4 header");
    if (view.getUint16(16) !== frame.length - 14) refuse("IPv4 total length");
    if (checksum(frame.subarray(14, 34)) !== 0) refuse("IPv4 checksum");
  }
  const addresses = frame.subarray(v6 ? 22 : 26, tcp), size = addresses.length / 2;
  const source = [...addresses.subarray(0, size)], dest = [...addresses.subarray(size)];
  const data = tcp + (frame[tcp + 12] >>> 4) * 4;
  if (data < tcp + 20 || data > frame.length) refuse("TCP header length");
  if (checksum(pseudoHeader(source, dest, frame.length - tcp), frame.subarray(tcp)) !== 0) {
    refuse("TCP checksum");
  }
  checkOffload(sent, tcp, data, mtu - (data - 14));
  return {
    v6,
    source,
    dest,
    sport: view.getUint16(tcp),
    dport: view.getUint16(tcp + 2),
    seq: view.getUint32(tcp + 4),
    ack: view.getUint32(tcp + 8),
    flags: frame[tcp + 13],
    window: view.getUint16(tcp + 14),
    ...readOptions(frame, tcp + 20, data),
    payload: frame.subarray(data),
    sent,
  };
}
