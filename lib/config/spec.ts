// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What an entry of the option table is made of.
 *
 * @module
 */
import type { Options } from "./model.ts";

/** Headings of `--help` and the manual page, in order. */
export const OPTION_GROUPS = [
  "General",
  "Guest addresses",
  "Names and resolvers",
  "Host side",
  "Port forwarding",
  "Policy",
  "Protocols",
  "Namespace",
  "Virtual machine",
] as const;

/** What the program does: serve a namespace, or a virtual machine. */
export type Mode = "pasta" | "passt";

/** What a shell offers as an option's value: these words, or what it finds of a kind. */
export type Completion = readonly string[] | "file" | "interface" | "netns" | "user";

/** One option. */
export interface OptionSpec {
  readonly group: (typeof OPTION_GROUPS)[number];
  /** Long name without dashes. */
  readonly name: string;
  /** One character. */
  readonly short?: string;
  /** Other long names. */
  readonly aliases?: readonly string[];
  /** What stands for the value in help; absent: the option is a flag. */
  readonly value?: string;
  /** What it does, then its default. */
  readonly help: string;
  /** More sentences for the manual page. */
  readonly more?: string;
  readonly complete?: Completion;
  /**
   * `family`: once per address family, a later one of the same family replaces an earlier one. `list`:
   * all count. Absent: the last one counts.
   */
  readonly repeat?: "family" | "list";
  /** Mode that has it; absent: both. */
  readonly mode?: Mode;
  /** Name of an option that must be given, too. */
  readonly needs?: string;
  /** Does what it does. @throws ValueError, PortSpecError or PolicyRuleError. Absent: known, but not there yet */
  readonly set?: (options: Options, text: string) => void;
}

/** Adds the group to options. */
export function group(
  name: OptionSpec["group"],
  list: readonly Omit<OptionSpec, "group">[],
): OptionSpec[] {
  return list.map((spec) => ({ ...spec, group: name }));
}
