// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `--help`, made from the option table.
 *
 * @module
 */
import { PORT_FORMS, PORT_FORMS_TITLE } from "./port_forms.ts";
import type { Mode } from "./spec.ts";
import { OPTION_GROUPS, OPTIONS, type OptionSpec } from "./table.ts";

/** Width of a terminal that does not say it, and the least that text is wrapped to. */
const DEFAULT_WIDTH = 80;
const MIN_WIDTH = 40;
/** Where the second column begins, and how much it must hold for there to be one. */
const COLUMN = 30;
const MIN_SECOND = 40;
/** Where the text stands when there is no second column. */
const INDENT = 8;
const LATER =
  "Other options of pasta(1) and passt(1) are recognized, and say when used that they " +
  "are not available yet.";

/** What stands before the options of each mode. */
const USAGE: Record<Mode, readonly string[]> = {
  pasta: [
    "[OPTION]... [--] [COMMAND [ARG]...]",
    "[OPTION]... PID",
    "[OPTION]... --netns PATH|NAME",
  ],
  passt: ["[OPTION]..."],
};
const PURPOSE: Record<Mode, string> = {
  pasta: "Connects a network namespace to the host's network: that of COMMAND (default: your " +
    "shell), which runs in new user and network namespaces, that of the process PID, or a named one.",
  passt: "Connects a virtual machine to the host's network. This mode is not available yet.",
};

/** Options that a mode has by now, by group. */
export function groupsOf(mode: Mode): (readonly [OptionSpec["group"], OptionSpec[]])[] {
  return OPTION_GROUPS.map((group) =>
    [
      group,
      OPTIONS.filter((spec) =>
        spec.group === group && spec.set && (!spec.mode || spec.mode === mode)
      ),
    ] as const
  ).filter(([, specs]) => specs.length > 0);
}

function heading(spec: OptionSpec): string {
  const short = spec.short ? `-${spec.short}, ` : "    ";
  return `  ${short}--${spec.name}${spec.value ? ` ${spec.value}` : ""}`;
}

/** Breaks text into lines of at most `width` characters at spaces. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  return [...lines, line];
}

/** What to write, and what that does: side by side, or below each other where there is no room. */
function row(head: string, help: string, width: number): string[] {
  const column = width - COLUMN >= MIN_SECOND ? COLUMN : INDENT;
  const lines = wrap(help, width - column);
  const indent = " ".repeat(column);
  if (head.length >= column) return [head, ...lines.map((line) => indent + line)];
  return [head.padEnd(column) + lines[0], ...lines.slice(1).map((line) => indent + line)];
}

/** What stands below the options of a group. */
function note(group: OptionSpec["group"], mode: Mode, width: number): string[] {
  if (group !== "Port forwarding") return [];
  const forms = PORT_FORMS.filter((form) => !form.mode || form.mode === mode);
  return [
    `  ${PORT_FORMS_TITLE}`,
    ...forms.flatMap(({ form, help }) => row(`    ${form}`, help, width)),
  ];
}

/**
 * Columns of the terminal that standard output is: what the environment variable `COLUMNS` or the
 * terminal (ioctl_tty(2), TIOCGWINSZ) says, otherwise 80, and at least 40.
 */
export function terminalWidth(): number {
  return Math.max(MIN_WIDTH, environmentWidth() ?? deviceWidth() ?? DEFAULT_WIDTH);
}

function environmentWidth(): number | null {
  const text = Deno.env.get("COLUMNS") ?? "";
  return /^[1-9]\d{0,4}$/.test(text) ? Number(text) : null;
}

function deviceWidth(): number | null {
  try {
    return Deno.stdout.isTerminal() ? Deno.consoleSize().columns || null : null;
  } catch {
    return null; // a terminal without a size
  }
}

/**
 * The help text of a mode, ending in a newline.
 *
 * @param width columns to wrap it to
 * @param program how the program is called, up to the options
 * @example
 * ```ts
 * import { helpText } from "./help.ts";
 * import { assertStringIncludes } from "@std/assert";
 *
 * assertStringIncludes(helpText("pasta"), "  -m, --mtu MTU ");
 * ```
 */
export function helpText(
  mode: Mode = "pasta",
  width: number = DEFAULT_WIDTH,
  program = `tubetti ${mode}`,
): string {
  const usage = USAGE[mode].map((line, i) => `${i === 0 ? "Usage:" : "      "} ${program} ${line}`);
  const lines = [...usage, "", ...wrap(PURPOSE[mode], width)];
  for (const [group, specs] of groupsOf(mode)) {
    const rows = specs.flatMap((spec) => row(heading(spec), spec.help, width));
    lines.push("", `${group}:`, ...rows, ...note(group, mode, width));
  }
  return `${[...lines, "", ...wrap(LATER, width)].join("\n")}\n`;
}
