// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Completion for fish: see complete(1) of fish.
 *
 * @module
 */
import { groupsOf } from "./help.ts";
import { SHELLS } from "./model.ts";
import type { Completion, Mode, OptionSpec } from "./spec.ts";
import { OPTIONS } from "./table.ts";
import { spellings } from "./completion_bash.ts";

/** A word within single quotes. */
function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}

function values(completion: Completion | undefined): string {
  switch (completion) {
    case undefined:
      return "-x";
    case "file":
      return "-r -F";
    case "interface":
      return "-x -a '(path basename /sys/class/net/*)'";
    case "netns":
      return "-r -F -a '(path basename /run/netns/*)'";
    case "user":
      return "-x -a '(__fish_complete_users)'";
    default:
      return `-x -a ${quoted(completion.join(" "))}`;
  }
}

function line(mode: Mode, { name, short, value, help, complete }: OptionSpec): string {
  const letter = short ? ` -s ${short}` : "";
  const value_ = value === undefined ? "" : ` ${values(complete)}`;
  return `  complete -c $program -n '__tubetti_in ${mode}'${letter} -l ${name}${value_} ` +
    `-d ${quoted(help)}`;
}

function lines(mode: Mode): string {
  return groupsOf(mode).flatMap(([, specs]) => specs.map((spec) => line(mode, spec))).join("\n");
}

/** The script. */
export function fishScript(): string {
  const withValue = OPTIONS.filter((spec) => spec.value !== undefined).flatMap(spellings).join(" ");
  return `# fish completion for tubetti, pasta and passt

# What stands behind the mode, a word a line; fails when the mode is not $argv[1].
function __tubetti_words
  set -l words (commandline -opc)
  set -l mode (string replace -r '.*/' '' -- $words[1])
  set -e words[1]
  if not contains -- $mode pasta passt
    set mode $words[1]
    set -e words[1]
  end
  test "$mode" = "$argv[1]"; or return 1
  string join \\n -- $words
  return 0
end

# Whether an option of the mode can stand at the cursor: no command has begun.
function __tubetti_in
  set -l words (__tubetti_words $argv[1]); or return 1
  set -l pending no
  for word in $words
    if test $pending = yes
      set pending no
    else if contains -- $word ${withValue}
      set pending yes
    else if test "$word" = --; or not string match -q -- '-*' $word
      return 1
    end
  end
end

# Whether a command has begun, or could.
function __tubetti_command
  __tubetti_words pasta >/dev/null; and not string match -q -- '-*' (commandline -ct)
end

function __tubetti_first
  test (count (commandline -opc)) -eq 1
end

for program in tubetti pasta passt
  complete -c $program -e
${lines("pasta")}
${lines("passt")}
  complete -c $program -n '__tubetti_command' -x -a '(__fish_complete_subcommand)'
end

complete -c tubetti -f
complete -c tubetti -n __tubetti_first -a pasta -d 'Serve a network namespace'
complete -c tubetti -n __tubetti_first -a passt -d 'Serve a virtual machine'
complete -c tubetti -n __tubetti_first -a completion -d 'Print completion for a shell'
complete -c tubetti -n __tubetti_first -s h -l help -d 'Show help and exit'
complete -c tubetti -n __tubetti_first -l version -d 'Show the version and exit'
complete -c tubetti -n '__tubetti_words completion >/dev/null' -x -a ${quoted(SHELLS.join(" "))}
`;
}
