// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Completion for zsh, by its own `_arguments`: see zshcompsys(1).
 *
 * @module
 */
import { groupsOf } from "./help.ts";
import { SHELLS } from "./model.ts";
import type { Completion, Mode, OptionSpec } from "./spec.ts";

/** A word within single quotes. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Text in a place where colons and brackets have a meaning. */
function plain(text: string): string {
  return text.replace(/[\\:[\]]/g, "\\$&");
}

function action(completion: Completion | undefined): string {
  switch (completion) {
    case undefined:
      return " "; // a value, but nothing to offer
    case "file":
      return "_files";
    case "interface":
      return "_tubetti_interfaces";
    case "netns":
      return "_tubetti_namespaces";
    case "user":
      return "_users";
    default:
      return `(${completion.join(" ")})`;
  }
}

/** One argument of `_arguments`, or two words that brace expansion makes of one. */
function argument({ name, short, value, help, repeat, complete }: OptionSpec): string {
  const end = `[${plain(help)}]` +
    (value === undefined ? "" : `:${plain(value)}:${action(complete)}`);
  const [long, letter] = value === undefined ? [name, short] : [`${name}=`, short && `${short}+`];
  const others = repeat ? "*" : short ? `(-${short} --${name})` : "";
  if (!letter) return quoted(`${others}--${long}${end}`);
  return `${quoted(others)}{-${letter},--${long}}${quoted(end)}`;
}

function modeFunction(mode: Mode): string {
  const specs = groupsOf(mode).flatMap(([, list]) => list.map(argument));
  const command = ["'(-)1:command:_command_names -e'", "'*::argument:_normal'"];
  const all = [...specs, ...(mode === "pasta" ? command : [])];
  return `_tubetti_${mode}() {
  _arguments -s -S -A '-*' ${all.map((word) => `\\\n    ${word}`).join(" ")}
}`;
}

/** The script: to be sourced, or put as \`_tubetti\` where \`$fpath\` leads. */
export function zshScript(): string {
  return `#compdef tubetti pasta passt
# zsh completion for tubetti, pasta and passt

_tubetti_interfaces() {
  local -a names
  names=(/sys/class/net/*(N:t))
  compadd -a names
}

_tubetti_namespaces() {
  local -a names
  names=(/run/netns/*(N:t))
  compadd -a names
  _files
}

${modeFunction("pasta")}

${modeFunction("passt")}

_tubetti() {
  local mode=\${service:-tubetti}
  if [[ $mode != pasta && $mode != passt ]]; then
    if ((CURRENT == 2)); then
      compadd pasta passt completion -- --help --version
      return
    fi
    mode=$words[2]
    shift words
    ((CURRENT--))
  fi
  case $mode in
    pasta) _tubetti_pasta ;;
    passt) _tubetti_passt ;;
    completion) ((CURRENT == 2)) && compadd ${SHELLS.join(" ")} ;;
  esac
}

if [[ $funcstack[1] == _tubetti ]]; then
  _tubetti "$@"
else
  compdef _tubetti tubetti pasta passt
fi
`;
}
