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
/** Room that options of the command line need behind the program's name. */
const MIN_USAGE = 18;
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
  passt: "Connects a virtual machine to the host's network. The machine's hypervisor connects " +
    "to a UNIX socket.",
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
  const beside = width - COLUMN >= MIN_SECOND;
  const column = beside ? COLUMN : INDENT;
  const lines = wrap(help, width - column);
  if (!beside || head.length >= column) return [head, ...indented(lines, column)];
  return [head.padEnd(column) + lines[0], ...indented(lines.slice(1), column)];
}

/** What stands below the options of a group. */
function note(group: OptionSpec["group"], mode: Mode, width: number): string[] {
  if (group !== "Port forwarding") return [];
  const forms = PORT_FORMS.filter((form) => !form.mode || form.mode === mode);
  return [
    ...wrap(PORT_FORMS_TITLE, width - 2).map((line) => `  ${line}`),
    ...forms.flatMap(({ form, help }) => row(`    ${form}`, help, width)),
  ];
}

function indented(lines: readonly string[], columns: number): string[] {
  return lines.map((line) => " ".repeat(columns) + line);
}

/** The forms of the command line; what has no room in a line goes on below its options. */
function usage(mode: Mode, width: number, program: string): string[] {
  return USAGE[mode].flatMap((form, i) => {
    const start = `${i === 0 ? "Usage:" : "      "} ${program} `;
    const room = width - start.length;
    if (room < MIN_USAGE) return [start.trimEnd(), ...indented(wrap(form, width - INDENT), INDENT)];
    const [first = "", ...others] = wrap(form, room);
    return [start + first, ...indented(others, start.length)];
  });
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
  const lines = [...usage(mode, width, program), "", ...wrap(PURPOSE[mode], width)];
  for (const [group, specs] of groupsOf(mode)) {
    const rows = specs.flatMap((spec) => row(heading(spec), spec.help, width));
    lines.push("", `${group}:`, ...rows, ...note(group, mode, width));
  }
  return `${[...lines, "", ...wrap(LATER, width)].join("\n")}\n`;
}
