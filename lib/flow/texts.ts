// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Texts in a table's buffer, which flows refer to by number: labels, and the names of types of one's own.
 *
 * Theory of operation: a text is written once and stays. So a reader in another process needs no care: whoever
 * sees the number of a text, which is stored as `generations.ts` says, sees the text. Labels are few: a
 * policy names kinds of flows, not flows.
 *
 * @module
 */
import { MAX_LABELS, MAX_TEXT_BYTES, TEXT_SLOT } from "./layout.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const bytes: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_TEXT_BYTES);

/** Slot of the text of a label, 1–{@linkcode MAX_LABELS}. */
export function labelSlot(id: number): number {
  return id - 1;
}

/** Slot of the name of a type, 0–{@linkcode MAX_TYPES} - 1. */
export function typeSlot(type: number): number {
  return MAX_LABELS + type;
}

/** As much of a text as a slot takes: whole characters, in {@linkcode bytes}. Returns its length there. */
function encodeStart(text: string): { read: number; written: number } {
  return encoder.encodeInto(text, bytes);
}

/** Writes what fits of a text. */
export function writeText(texts: Uint8Array, slot: number, text: string): void {
  const { written } = encodeStart(text), at = slot * TEXT_SLOT;
  for (let k = 0; k < written; k++) texts[at + 1 + k] = bytes[k];
  texts[at] = written;
}

/** The text in a slot; null when there is none. Takes any bytes for a text. */
export function readText(texts: Uint8Array, slot: number): string | null {
  const at = slot * TEXT_SLOT, length = Math.min(texts[at] ?? 0, MAX_TEXT_BYTES);
  // a copy, as TextDecoder takes no shared memory
  return length === 0 ? null : decoder.decode(texts.slice(at + 1, at + 1 + length));
}

/** The labels of a table. */
export class FlowLabels {
  readonly #texts: Uint8Array;
  readonly #ids: Map<string, number> = new Map();

  /**
   * Takes a table without labels.
   *
   * @param texts zeroes, {@linkcode TEXT_SLOT} bytes for each
   */
  constructor(texts: Uint8Array) {
    this.#texts = texts;
  }

  /** The number of a label, see {@linkcode FlowTable.labelId}. */
  idOf(text: string): number {
    return this.#ids.get(text) ?? this.#define(text);
  }

  #define(text: string): number {
    const key = text.slice(0, encodeStart(text).read);
    const known = this.#ids.get(key), id = this.#ids.size + 1;
    if (known !== undefined) return known;
    if (key === "" || id > MAX_LABELS) return 0;
    writeText(this.#texts, labelSlot(id), key);
    this.#ids.set(key, id);
    return id;
  }
}
