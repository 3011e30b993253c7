// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `--help`, made from the option table.
 *
 * @module
 */
import { PORT_FORMS, PORT_FORMS_TITLE } from "./port_forms.ts";
import { OPTION_GROUPS, OPTIONS, type OptionSpec } from "./table.ts";

/** Version of the program. */
export const VERSION = "tubetti 0.1.0";

const WIDTH = 80;
const COLUMN = 30;
const LATER = "Other options of pasta(1) are recognized, and say when used that they are not " +
  "available yet.";

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

/** Two columns: what to write, and what that does. */
function row(head: string, help: string): string[] {
  const lines = wrap(help, WIDTH - COLUMN);
  const indent = " ".repeat(COLUMN);
  if (head.length >= COLUMN) return [head, ...lines.map((line) => indent + line)];
  return [head.padEnd(COLUMN) + lines[0], ...lines.slice(1).map((line) => indent + line)];
}

/** What stands below the options of a group. */
function note(group: OptionSpec["group"], mode: "pasta" | "passt"): string[] {
  if (group !== "Port forwarding") return [];
  const forms = PORT_FORMS.filter((form) => !form.mode || form.mode === mode);
  return [`  ${PORT_FORMS_TITLE}`, ...forms.flatMap(({ form, help }) => row(`    ${form}`, help))];
}

/**
 * The help text of a mode, ending in a newline.
 *
 * @example
 * ```ts
 * import { helpText } from "./help.ts";
 * import { assertStringIncludes } from "@std/assert";
 *
 * assertStringIncludes(helpText("pasta"), "  -m, --mtu MTU ");
 * ```
 */
export function helpText(mode: "pasta" | "passt" = "pasta"): string {
  const lines = [
    "Usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...]",
    "",
    ...wrap(
      "Runs COMMAND (default: your shell) in a new user and network namespace and connects that " +
        "to the host's network.",
      WIDTH,
    ),
  ];
  for (const group of OPTION_GROUPS) {
    const shown = OPTIONS.filter((spec) =>
      spec.group === group && spec.set && (!spec.mode || spec.mode === mode)
    );
    if (shown.length === 0) continue;
    const rows = shown.flatMap((spec) => row(heading(spec), spec.help));
    lines.push("", `${group}:`, ...rows, ...note(group, mode));
  }
  return `${[...lines, "", ...wrap(LATER, WIDTH)].join("\n")}\n`;
}
