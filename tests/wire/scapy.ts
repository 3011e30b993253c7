// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An independent opinion about packets: scapy (Debian: python3-scapy) builds and decodes them. One
 * Python process answers a whole batch.
 *
 * @module
 */

const PYTHON = "/usr/bin/python3";

const SCRIPT = String.raw`
import json, sys, logging
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.packet import Raw, Packet, fuzz
from scapy.layers.l2 import *
from scapy.layers.inet import *
from scapy.layers.inet6 import *
from scapy.layers.dhcp import *
from scapy.layers.dhcp6 import *

def plain(v):
    if isinstance(v, bytes): return v.hex()
    if isinstance(v, Packet): return layer(v)
    if isinstance(v, (list, tuple)): return [plain(x) for x in v]
    if isinstance(v, bool) or v is None or isinstance(v, (int, str)): return v
    try: return int(v)
    except Exception: return str(v)

def layer(p):
    out = {"layer": p.__class__.__name__}
    for f in p.fields_desc:
        out[f.name] = plain(p.getfieldval(f.name))
    return out

def layers(p):
    out = []
    while p and p.__class__.__name__ not in ("NoPayload",):
        out.append(layer(p))
        p = p.payload
    return out

SUMS = ("chksum", "cksum")

def bad_checksums(raw):
    packet, bad, depth = Ether(raw), [], 0
    copy = Ether(raw)
    p = copy
    while p and p.__class__.__name__ != "NoPayload":
        for name in SUMS:
            if name in p.fields and not (isinstance(p, UDP) and p.chksum == 0):
                del p.fields[name]
        p.raw_packet_cache = None
        if p.__class__.__name__.endswith("error"): break
        p = p.payload
    fresh = Ether(bytes(copy))
    a, b = packet, fresh
    while a and a.__class__.__name__ != "NoPayload" and not a.__class__.__name__.endswith("error"):
        for name in SUMS:
            if name in a.fields and a.fields[name] != b.fields.get(name):
                bad.append(a.__class__.__name__)
        a, b = a.payload, b.payload
    return bad

for line in sys.stdin:
    kind, _, rest = line.rstrip("\n").partition(" ")
    if kind == "build":
        print(json.dumps(bytes(eval(rest)).hex()))
    else:
        raw = bytes.fromhex(rest)
        print(json.dumps({"layers": layers(Ether(raw)), "bad": bad_checksums(raw)}))
`;

/** A layer as scapy names it, with its fields; bytes are hexadecimal strings. */
// deno-lint-ignore no-explicit-any
export type Layer = { layer: string } & Record<string, any>;

/** A decoded frame. */
export interface Decoded {
  layers: Layer[];
  /** Names of layers whose checksum is wrong. */
  bad: string[];
}

/** Hexadecimal text of bytes. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Bytes of hexadecimal text. */
export function unhex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

async function ask<T>(lines: string[]): Promise<T[]> {
  const python = new Deno.Command(PYTHON, {
    args: ["-c", SCRIPT],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const written = (async () => {
    const writer = python.stdin.getWriter();
    await writer.write(new TextEncoder().encode(lines.map((line) => line + "\n").join("")));
    await writer.close();
  })();
  const { success, stdout, stderr } = await python.output();
  await written.catch(() => {});
  const text = new TextDecoder();
  if (!success) throw new Error(`scapy: ${text.decode(stderr)}`);
  return text.decode(stdout).trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** Builds packets from scapy expressions, by name. */
export async function build<K extends string>(
  expressions: Record<K, string>,
): Promise<Record<K, Uint8Array<ArrayBuffer>>> {
  const names = Object.keys(expressions) as K[];
  const answers = await ask<string>(names.map((name) => `build ${expressions[name]}`));
  return Object.fromEntries(names.map((name, i) => [name, unhex(answers[i])])) as Record<
    K,
    Uint8Array<ArrayBuffer>
  >;
}

/** Decodes frames, by name. */
export async function decode<K extends string>(
  frames: Record<K, Uint8Array>,
): Promise<Record<K, Decoded>> {
  const names = Object.keys(frames) as K[];
  const answers = await ask<Decoded>(names.map((name) => `decode ${hex(frames[name])}`));
  return Object.fromEntries(names.map((name, i) => [name, answers[i]])) as Record<K, Decoded>;
}

/** The layer of that name; throws when there is none. */
export function layerOf(decoded: Decoded, name: string): Layer {
  const found = decoded.layers.find(({ layer }) => layer === name);
  if (!found) {
    throw new Error(`No ${name} in ${decoded.layers.map(({ layer }) => layer).join("/")}`);
  }
  return found;
}
