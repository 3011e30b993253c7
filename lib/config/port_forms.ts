// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a SPEC of the port options can be, for `--help`. `lib/forward/port_spec.ts` has the grammar.
 *
 * @module
 */

/** One form of a SPEC. */
export interface PortForm {
  readonly form: string;
  readonly help: string;
  /** Mode that has it; absent: both. */
  readonly mode?: "pasta";
}

/** Line before the forms. */
export const PORT_FORMS_TITLE = "SPEC is none, or a list with commas of:";

/** All forms, in the order of help. */
export const PORT_FORMS: readonly PortForm[] = [
  { form: "22, 22-80", help: "These ports" },
  { form: "22:2222, 22-80:122-180", help: "To other ports of the other side" },
  {
    form: "22:ADDR, 22:ADDR/2222",
    help: "To an address of the other side; IPv6 stands in brackets",
  },
  { form: "~25, ~25-30", help: "Not these ports; alone: all others" },
  {
    form: "all",
    help: "All ports but the ephemeral ones, as far as they can be had; beside it only ~25 and, " +
      "for an address, all:ADDR",
  },
  {
    form: "auto",
    help: "The list's ports, or those of all, each while something listens on the other side",
    mode: "pasta",
  },
  {
    form: "ADDR/SPEC, ADDR%IF/SPEC",
    help:
      "Listen on this address, this interface only (also %IF/SPEC and */SPEC), not for -T and -U",
  },
];
