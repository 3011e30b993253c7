// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Completion for bash: see bash(1), "Programmable Completion".
 *
 * Theory of operation: a function walks over the words before the cursor to find the mode, whether an
 * option waits for its value, and where a command begins. bash splits words at `=` and `:`, so
 * `--name=value` comes as three words.
 *
 * @module
 */
import { groupsOf } from "./help.ts";
import { SHELLS } from "./model.ts";
import type { Completion, Mode, OptionSpec } from "./spec.ts";
import { OPTIONS } from "./table.ts";

/** Every way to write an option. */
export function spellings({ name, short, aliases = [] }: OptionSpec): string[] {
  return [...(short ? [`-${short}`] : []), ...[name, ...aliases].map((long) => `--${long}`)];
}

function longNames(mode: Mode): string {
  return groupsOf(mode).flatMap(([, specs]) => specs.map(({ name }) => `--${name}`)).join(" ");
}

/** Commands that fill COMPREPLY with values of a kind. */
function action(completion: Completion): string {
  const words = (source: string) => `COMPREPLY=($(compgen ${source} -- "$cur"))`;
  if (completion === "file") return `compopt -o filenames; ${words("-f")}`;
  if (completion === "interface") return words('-W "$(ls /sys/class/net 2>/dev/null)"');
  if (completion === "user") return words("-u");
  if (completion === "netns") {
    return `compopt -o filenames; ${words('-f -W "$(ls /run/netns 2>/dev/null)"')}`;
  }
  return words(`-W "${completion.join(" ")}"`);
}

/** A case for each kind of value, and one for all other options with a value. */
function valueCases(): string[] {
  const cases = new Map<string, string[]>();
  for (const spec of OPTIONS) {
    if (spec.value === undefined) continue;
    const commands = spec.complete ? action(spec.complete) : "COMPREPLY=()";
    cases.set(commands, [...cases.get(commands) ?? [], ...spellings(spec)]);
  }
  return [...cases].map(([commands, names]) => `    ${names.join("|")})\n      ${commands} ;;`);
}

/** The script. */
export function bashScript(): string {
  const withValue = OPTIONS.filter((spec) => spec.value !== undefined).flatMap(spellings).join("|");
  return `# bash completion for tubetti, pasta and passt

# Values of option $1 that begin with $cur.
_tubetti_value() {
  case $1 in
${valueCases().join("\n")}
  esac
}

_tubetti() {
  local cur=\${COMP_WORDS[COMP_CWORD]} mode=\${1##*/} at=1 pending= word
  COMPREPLY=()
  if [[ $mode != pasta && $mode != passt ]]; then
    if ((COMP_CWORD == 1)); then
      COMPREPLY=($(compgen -W "pasta passt completion --help --version" -- "$cur"))
      return
    fi
    mode=\${COMP_WORDS[1]} at=2
  fi
  if [[ $mode == completion ]]; then
    ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -W "${SHELLS.join(" ")}" -- "$cur"))
    return
  fi
  for ((; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    if [[ -n $pending ]]; then
      [[ $word == = ]] || pending=
      continue
    fi
    case $word in
    ${withValue}) pending=$word ;;
    --) ((at++)); break ;;
    -*) ;;
    *) break ;;
    esac
  done
  if [[ -n $pending ]]; then
    [[ $cur == = ]] && cur=
    _tubetti_value "$pending"
  elif ((at < COMP_CWORD)) || [[ \${COMP_WORDS[at - 1]} == -- || $cur != -* ]]; then
    [[ $mode == pasta ]] || return
    if declare -F _command_offset >/dev/null; then
      _command_offset "$at"
    elif ((at < COMP_CWORD)); then
      compopt -o filenames
      COMPREPLY=($(compgen -f -- "$cur"))
    else
      COMPREPLY=($(compgen -c -- "$cur"))
    fi
  elif [[ $mode == pasta ]]; then
    COMPREPLY=($(compgen -W "${longNames("pasta")}" -- "$cur"))
  else
    COMPREPLY=($(compgen -W "${longNames("passt")}" -- "$cur"))
  fi
}

complete -F _tubetti tubetti pasta passt
`;
}
