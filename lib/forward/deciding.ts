// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Decisions of a program: asks it, checks what it says, and keeps flows that it has to think about waiting.
 *
 * Theory of operation: a {@linkcode Decider} is asked once for each flow, when everything about it is known, and
 * answers at once or later. Meanwhile the flow is held: nobody is told anything. `questions.ts` has what
 * was asked and answered, `held_frames.ts` what the guest has sent meanwhile; the loop has it come in again
 * when there is an answer, and accepted connections go on likewise (`tcp/held.ts`). A permission is used up
 * by the flow that begins with it: while it cannot, for lack of a socket for example, nobody is asked anew. A
 * program that throws, or answers nonsense, has rejected the flow, and that is logged, as often as is bearable.
 *
 * @module
 */
import { errorLine } from "../sys/text.ts";
import { getLogger } from "../std/log.ts";
import { FlowSide, Pif, SIDE_EADDR, SIDE_OADDR } from "../flow/side.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { formatAddress, isV4 } from "../wire/address.ts";
import { IPPROTO_TCP, IPPROTO_UDP } from "../wire/ipv4.ts";
import { checkAnswer, checkFamily, type Decider, type Decision, REJECTED } from "./decider.ts";
import { HeldFrames } from "./held_frames.ts";
import { Verdict } from "./policy_rules.ts";
import type { FlowQuestion } from "./question.ts";
import { Questions } from "./questions.ts";

const COMPLAINTS_PER_SECOND = 1;

const NONE = -1;

/** What is asked beside what a flow's sides say. */
export interface Known {
  /** Names of an address of the host's side, latest first. */
  namesOf(words: Int32Array, at: number, nowMs: number): string[];
  /** Whether an address is a configured resolver's, and the port its. */
  leadsToResolver(protocol: number, tgt: FlowSide): boolean;
}

/** The program of one instance. */
export class Deciding {
  readonly questions: Questions = new Questions();
  readonly frames: HeldFrames = new HeldFrames();
  /** What the last {@linkcode Deciding.decide} came to, unless that was HOLD. */
  decision: Decision = REJECTED;
  /** The question that the last HOLD was about. */
  place = NONE;
  /** Whether the flow that is being looked at could wait. Off: it is not asked about, but dropped. */
  patient = true;
  /** The question whose answer has let the flow begin that is being looked at; -1: there is none. */
  #allowed = NONE;
  readonly #decider: Decider;
  readonly #known: Known;
  readonly #complaints = new RateLimit(COMPLAINTS_PER_SECOND);
  /** Of an answer that came later. */
  readonly #target = new FlowSide();
  #nowMs = 0;

  constructor(decider: Decider, known: Known) {
    this.#decider = decider;
    this.#known = known;
    this.questions.onDrop(this.frames);
  }

  /**
   * Decides on a flow of the guest, or says that nothing is decided yet.
   *
   * @param ini, tgt as in `Policy.apply`
   * @returns one of {@linkcode Verdict}
   */
  decide(nowMs: number, protocol: number, ini: FlowSide, tgt: FlowSide): number {
    const { questions } = this;
    this.#nowMs = nowMs;
    this.decision = REJECTED;
    let place = questions.find(protocol, ini, tgt, nowMs);
    if (place < 0) {
      if (this.patient) place = questions.open(protocol, ini, tgt, nowMs);
      if (place < 0) return this.#noRoom();
      this.#ask(place, protocol, ini, tgt);
    }
    let decision = questions.decisionAt(place);
    if (decision === null) {
      this.place = place;
      return Verdict.HOLD;
    }
    try {
      checkFamily(decision, isV4(tgt.words, SIDE_EADDR));
    } catch (error) {
      decision = this.#complain(error, tgt);
      questions.amend(place, decision);
    }
    this.decision = decision;
    if (decision.verdict === Verdict.ALLOW) this.#allowed = place;
    return decision.verdict;
  }

  /** Another flow is being looked at. */
  forget(): void {
    this.#allowed = NONE;
  }

  /** The flow that {@linkcode Deciding.decide} has let begin does so, and stands for its question now. */
  begun(): void {
    if (this.#allowed < 0) return;
    this.questions.end(this.#allowed);
    this.#allowed = NONE;
  }

  /** Asks about the flow at a place. */
  #ask(place: number, protocol: number, ini: FlowSide, tgt: FlowSide): void {
    const { questions } = this, id = questions.idOf(place);
    let decision: Decision | null = null;
    try {
      const answer = this.#decider.decide(this.#question(protocol, ini, tgt), id);
      if (answer !== null) decision = checkAnswer(answer);
    } catch (error) {
      decision = this.#complain(error, tgt);
    }
    // it may have called `answered`
    if (decision !== null && questions.placeOf(id) === place) {
      questions.settle(place, decision, this.#nowMs);
    }
  }

  /**
   * Takes an answer that was to come later.
   *
   * @param answer anything: what is wrong rejects the flow
   * @returns false: nothing is waiting for it
   */
  answered(id: number, answer: unknown): boolean {
    const place = this.questions.placeOf(id);
    if (place < 0) return false;
    let decision: Decision;
    try {
      decision = checkAnswer(answer);
    } catch (error) {
      this.questions.loadTarget(place, this.#target);
      decision = this.#complain(error, this.#target);
    }
    this.questions.answer(place, decision);
    return true;
  }

  #noRoom(): number {
    if (this.#complaints.allow(this.#nowMs)) {
      getLogger().warn(`Policy: ${this.questions.asked} answers are awaited: flow dropped`);
    }
    return Verdict.DROP;
  }

  /** Says what is wrong with an answer. @returns what it counts as */
  #complain(error: unknown, { words, eport }: FlowSide): Decision {
    if (!this.#complaints.allow(this.#nowMs)) return REJECTED;
    const where = `${formatAddress(words, SIDE_EADDR)} port ${eport}`;
    getLogger().error(`Policy: flow to ${where} rejected: ${errorLine(error)}`);
    return REJECTED;
  }

  #question(protocol: number, ini: FlowSide, tgt: FlowSide): FlowQuestion {
    const kind = protocol === IPPROTO_TCP ? "tcp" : protocol === IPPROTO_UDP ? "udp" : "icmp";
    const ping = kind === "icmp";
    return {
      protocol: kind,
      via: ini.pif === Pif.TAP ? "tap" : "namespace",
      source: formatAddress(ini.words, SIDE_EADDR),
      sourcePort: ini.eport,
      address: formatAddress(tgt.words, SIDE_EADDR),
      port: ping ? 0 : tgt.eport,
      namedAddress: formatAddress(ini.words, SIDE_OADDR),
      namedPort: ping ? 0 : ini.oport,
      names: this.#known.namesOf(tgt.words, SIDE_EADDR, this.#nowMs),
      resolver: this.#known.leadsToResolver(protocol, tgt),
    };
  }
}
