// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Flows that were asked about: those whose answer is awaited, and those whose answer waits for them.
 *
 * Theory of operation: a question is known by everything that was asked: protocol and both sides of the flow,
 * every word of them. So the answer to one can never be taken for another's, and what the guest sends again
 * is not asked again. Each has one of {@linkcode MAX_QUESTIONS} places:
 *
 * - ASKED for up to {@linkcode ANSWER_MS}; then it is forgotten, and the next packet asks anew.
 * - ANSWERED for up to {@linkcode KEPT_MS}, for the flow's other packets: so a program is asked once although no
 *   flow has come of it. "Allow" ends when the flow begins that it was for; it stays while that fails.
 *
 * When all places are taken, the next answer that still waits gives way; when all are ASKED, there is no place:
 * such a flow is dropped. So a guest that floods us makes nothing grow, and the work for each packet has a
 * bound. Numbers of questions are never used again: an answer that comes too late finds nothing.
 *
 * Nothing is allocated but what an answer is made of.
 *
 * @module
 */
import { copySide, type FlowSide, SIDE_WORDS } from "../flow/side.ts";
import { type Decision, REJECTED } from "./decider.ts";

/** Questions that there is room for: a power of two. */
export const MAX_QUESTIONS = 1024;
/** How long an answer may take, in milliseconds. */
export const ANSWER_MS = 30_000;
/** How long an answer waits for its flow. */
export const KEPT_MS = 10_000;

/** States of a place. */
const FREE = 0, ASKED = 1, ANSWERED = 2;
/** Words of a key: protocol, and both sides. */
const KEY_WORDS = 1 + 2 * SIDE_WORDS;
const INI_AT = 1, TGT_AT = 1 + SIDE_WORDS;
const NONE = -1;
// FNV-1a of Fowler, Noll and Vo, 32 bits: prime and basis; every instance mixes in a word of its own
const FNV_PRIME = 0x01000193, FNV_BASIS = 0x811c9dc5 | 0;

/** What waits for an answer, at the same place as its question. */
export interface Waiting {
  /** The question is over, or another takes its place: what waited for it is given up. */
  drop(place: number): void;
}

/** The questions of one instance. Places are 0–{@linkcode MAX_QUESTIONS}-1. */
export class Questions {
  readonly #keys = new Int32Array(MAX_QUESTIONS * KEY_WORDS);
  readonly #key = new Int32Array(KEY_WORDS);
  readonly #states = new Uint8Array(MAX_QUESTIONS);
  /** Per place: the question's number, and when it was asked or answered. */
  readonly #ids = new Float64Array(MAX_QUESTIONS);
  readonly #since = new Float64Array(MAX_QUESTIONS);
  readonly #decisions: Decision[] = Array(MAX_QUESTIONS).fill(REJECTED);
  /** Per value of the hash, its first place; per place, the next one, also of free ones. */
  readonly #first = new Int32Array(MAX_QUESTIONS).fill(NONE);
  readonly #next = new Int32Array(MAX_QUESTIONS);
  readonly #hashes = new Int32Array(MAX_QUESTIONS);
  #free = 0;
  /** Questions so far. */
  #count = 0;
  #asked = 0;
  #used = 0;
  /** The place that gives way next. */
  #hand = 0;
  /** When there was no place for the last time. */
  #fullAt = -1;
  /** Places that were answered and not looked at since, each once. */
  readonly #ready = new Int32Array(MAX_QUESTIONS);
  readonly #listed = new Uint8Array(MAX_QUESTIONS);
  #readyCount = 0;
  readonly #waiting: Waiting[] = [];
  readonly #seed = crypto.getRandomValues(new Int32Array(1))[0];

  constructor() {
    for (let place = 0; place < MAX_QUESTIONS; place++) {
      this.#next[place] = place + 1 < MAX_QUESTIONS ? place + 1 : NONE;
    }
  }

  /** Questions whose answer is awaited. */
  get asked(): number {
    return this.#asked;
  }

  /** Whether there is anything that time ends. */
  get timed(): boolean {
    return this.#used > 0;
  }

  /** Answers that {@linkcode Questions.nextReady} has not given yet. */
  get readyCount(): number {
    return this.#readyCount;
  }

  /** Has something told of each question that is over. */
  onDrop(waiting: Waiting): void {
    this.#waiting.push(waiting);
  }

  /**
   * Finds the question about a flow.
   *
   * @returns its place, or -1: there is none, or its time is over
   */
  find(protocol: number, ini: FlowSide, tgt: FlowSide, nowMs: number): number {
    const hash = this.#setKey(protocol, ini, tgt);
    let place = this.#first[hash];
    while (place !== NONE && !this.#isAt(place)) place = this.#next[place];
    if (place === NONE || !this.#isOver(place, nowMs)) return place;
    this.end(place);
    return NONE;
  }

  /**
   * Makes a place for a question that {@linkcode Questions.find} has just not found.
   *
   * @returns the place, or -1: there is none
   */
  open(protocol: number, ini: FlowSide, tgt: FlowSide, nowMs: number): number {
    if (this.#free === NONE && !this.#makeRoom(nowMs)) return NONE;
    const hash = this.#setKey(protocol, ini, tgt), place = this.#free;
    this.#free = this.#next[place];
    this.#next[place] = this.#first[hash];
    this.#first[hash] = place;
    this.#hashes[place] = hash;
    this.#keys.set(this.#key, place * KEY_WORDS);
    this.#states[place] = ASKED;
    this.#since[place] = nowMs;
    this.#ids[place] = this.#count++ * MAX_QUESTIONS + place;
    this.#asked++;
    this.#used++;
    return place;
  }

  /** Number of the question at a place. */
  idOf(place: number): number {
    return this.#ids[place];
  }

  /** Copies where the flow at a place goes. */
  loadTarget(place: number, into: FlowSide): void {
    copySide(into.words, 0, this.#keys, place * KEY_WORDS + TGT_AT);
  }

  /**
   * The place of a question whose answer is awaited.
   *
   * @param id what {@linkcode Questions.idOf} gave, or anything
   * @returns -1: it is none, or it was answered or forgotten
   */
  placeOf(id: number): number {
    const place = Number.isSafeInteger(id) && id >= 0 ? id % MAX_QUESTIONS : 0;
    return this.#ids[place] === id && this.#states[place] === ASKED ? place : NONE;
  }

  /** The answer to the question at a place; null: it is awaited. */
  decisionAt(place: number): Decision | null {
    return this.#states[place] === ANSWERED ? this.#decisions[place] : null;
  }

  /** Puts the answer to a question that is awaited at its place, whose flow is being looked at. */
  settle(place: number, decision: Decision, nowMs: number): void {
    this.#states[place] = ANSWERED;
    this.#since[place] = nowMs;
    this.#decisions[place] = decision;
    this.#asked--;
  }

  /** Likewise for a flow that waits: {@linkcode Questions.nextReady} will tell of it. */
  answer(place: number, decision: Decision): void {
    this.settle(place, decision, Infinity); // its time has not begun
    if (this.#listed[place] !== 0) return;
    this.#listed[place] = 1;
    this.#ready[this.#readyCount++] = place;
  }

  /** Puts another answer in the place of one. */
  amend(place: number, decision: Decision): void {
    this.#decisions[place] = decision;
  }

  /** Takes one that was answered lately, in no order. @returns its place, or -1: its question is over */
  nextReady(nowMs: number): number {
    const place = this.#ready[--this.#readyCount];
    this.#listed[place] = 0;
    if (this.#states[place] !== ANSWERED) return NONE;
    this.#since[place] = nowMs;
    return place;
  }

  /** Ends a question: its flow has begun, or its time is over. */
  end(place: number): void {
    for (let k = 0; k < this.#waiting.length; k++) this.#waiting[k].drop(place);
    if (this.#states[place] === ASKED) this.#asked--;
    this.#used--;
    this.#states[place] = FREE;
    this.#decisions[place] = REJECTED;
    const hash = this.#hashes[place];
    if (this.#first[hash] === place) this.#first[hash] = this.#next[place];
    else {
      let before = this.#first[hash];
      while (this.#next[before] !== place) before = this.#next[before];
      this.#next[before] = this.#next[place];
    }
    this.#next[place] = this.#free;
    this.#free = place;
  }

  /** Ends what time has ended. To be called about once a second while {@linkcode Questions.timed}. */
  expire(nowMs: number): void {
    if (this.#used === 0) return;
    for (let place = 0; place < MAX_QUESTIONS; place++) {
      if (this.#states[place] !== FREE && this.#isOver(place, nowMs)) this.end(place);
    }
  }

  /** Ends all questions: whoever had them asked is gone. */
  endAll(): void {
    for (let place = 0; place < MAX_QUESTIONS; place++) {
      if (this.#states[place] !== FREE) this.end(place);
    }
  }

  #isOver(place: number, nowMs: number): boolean {
    const age = nowMs - this.#since[place];
    return age >= (this.#states[place] === ASKED ? ANSWER_MS : KEPT_MS);
  }

  /** Gives up an answer that waits, whose flow may ask again. @returns false when there is none */
  #makeRoom(nowMs: number): boolean {
    if (this.#fullAt === nowMs) return false; // looked for in this turn of the loop
    for (let k = 0; k < MAX_QUESTIONS; k++) {
      const place = this.#hand;
      this.#hand = (place + 1) % MAX_QUESTIONS;
      if (this.#states[place] === ASKED) continue;
      this.end(place);
      return true;
    }
    this.#fullAt = nowMs;
    return false;
  }

  /** Writes the key of a flow into `#key`. @returns its hash */
  #setKey(protocol: number, ini: FlowSide, tgt: FlowSide): number {
    const key = this.#key;
    key[0] = protocol;
    for (let k = 0; k < SIDE_WORDS; k++) {
      key[INI_AT + k] = ini.words[k];
      key[TGT_AT + k] = tgt.words[k];
    }
    let hash = this.#seed ^ FNV_BASIS;
    for (let k = 0; k < KEY_WORDS; k++) {
      hash = Math.imul(hash ^ key[k], FNV_PRIME);
      hash ^= hash >>> 15; // a multiplication fills the upper bits, which are brought down
    }
    return hash & MAX_QUESTIONS - 1;
  }

  #isAt(place: number): boolean {
    const at = place * KEY_WORDS;
    for (let k = 0; k < KEY_WORDS; k++) if (this.#keys[at + k] !== this.#key[k]) return false;
    return true;
  }
}
