// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The manual page, made from the option table, in the man(7) macros of groff.
 *
 * @module
 */
import { groupsOf } from "./help.ts";
import { PORT_FORMS, PORT_FORMS_TITLE } from "./port_forms.ts";
import { OPTION_GROUPS, OPTIONS, type OptionSpec } from "./table.ts";
import { LICENCE, VERSION } from "./version.ts";

/** Text as groff wants it: no escapes, no requests, and characters that stay what they are. */
function escape(text: string): string {
  const replaced = text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("~", "\\(ti")
    .replaceAll("^", "\\(ha").replaceAll("`", "\\(ga");
  return replaced.replace(/^[.']/gm, "\\&$&");
}

/** `-x`, `--name` and `name(1)` in bold, values in italics, the rest as it is. */
function prose(text: string): string {
  return text.split(
    /(?<=^|[\s(])(-{1,2}[a-zA-Z0-9][a-zA-Z0-9-]*|[a-zA-Z_-]+\(\d\)|[A-Z]{3,}(?=[\s,.:]|$))/,
  )
    .map((part, i) => {
      if (i % 2 === 0) return escape(part);
      const value = /^[A-Z]+$/.test(part);
      if (value && !VALUES.has(part)) return escape(part);
      return `\\f${value ? "I" : "B"}${escape(part)}\\fR`;
    }).join("");
}

/** Words in capitals that stand for a value, all others are abbreviations. */
const VALUES = new Set(["FILE", "SPEC", "ADDR", "PID", "COMMAND", "PATH", "NAME", "IF", "RULE"]);

/** A paragraph, one sentence a line. */
function paragraph(text: string): string[] {
  return prose(text).replace(/([a-z)RFCS\d]\.) (?=[A-Z\\])/g, "$1\n").split("\n");
}

/** `-m, --mtu MTU` */
function names({ short, name, aliases = [], value }: OptionSpec): string {
  const all = [...(short ? [`-${short}`] : []), ...[name, ...aliases].map((long) => `--${long}`)];
  const bold = all.map((one) => `\\fB${escape(one)}\\fR`).join(", ");
  return value ? `${bold} \\fI${escape(value)}\\fR` : bold;
}

/** What the text says is said as a sentence. */
function option(spec: OptionSpec): string[] {
  const only = spec.mode ? [`Only in ${spec.mode} mode.`] : [];
  const needs = spec.needs ? [`It needs --${spec.needs}.`] : [];
  const text = [`${spec.help}.`, ...(spec.more ? [spec.more] : []), ...needs, ...only].join(" ");
  return [".TP", names(spec), ...paragraph(text)];
}

/** The forms of a SPEC. */
function portForms(): string[] {
  const forms = PORT_FORMS.flatMap(({ form, help, mode }) => [
    ".TP",
    `\\fB${escape(form)}\\fR`,
    ...paragraph(`${help}.${mode ? ` Only in ${mode} mode.` : ""}`),
  ]);
  return [".PP", prose(PORT_FORMS_TITLE), ".RS", ...forms, ".RE"];
}

/** All options that are there, of either mode, by group. */
function options(): string[] {
  const there = [...groupsOf("pasta"), ...groupsOf("passt")].flatMap(([, specs]) => specs);
  return OPTION_GROUPS.flatMap((group) => {
    const specs = OPTIONS.filter((spec) => spec.group === group && there.includes(spec));
    if (specs.length === 0) return [];
    const forms = group === "Port forwarding" ? portForms() : [];
    return [`.SS ${group}`, ...specs.flatMap(option), ...forms];
  });
}

/** Options that are known only. */
function later(): string[] {
  const list = OPTIONS.filter((spec) => !spec.set).map(names).join(",\n");
  return [
    ".SS Not available yet",
    "These are recognized, and the program says when they are used that they are not available yet:",
    ...`${list}.`.split("\n"),
  ];
}

/** A section: its heading, then paragraphs; one that begins with a dot is a request. */
function section(title: string, ...paragraphs: readonly string[]): string[] {
  const lines = paragraphs.flatMap((text, i) => [...(i > 0 ? [".PP"] : []), ...paragraph(text)]);
  return [`.SH ${title}`, ...lines];
}

/** Terms with what they mean. */
function terms(list: readonly (readonly [string, string])[]): string[] {
  return list.flatMap(([term, text]) => [".TP", `\\fB${escape(term)}\\fR`, ...paragraph(text)]);
}

function example(what: string, line: string): string[] {
  return [".PP", ...paragraph(what), ".PP", ".RS 4", ".EX", escape(line), ".EE", ".RE"];
}

const SYNOPSIS: readonly string[] = [
  "\\fBtubetti pasta\\fR [\\fIOPTION\\fR]... [\\fB\\-\\-\\fR] [\\fICOMMAND\\fR [\\fIARG\\fR]...]",
  "\\fBtubetti pasta\\fR [\\fIOPTION\\fR]... \\fIPID\\fR",
  "\\fBtubetti pasta\\fR [\\fIOPTION\\fR]... \\fB\\-\\-netns\\fR \\fIPATH\\fR|\\fINAME\\fR",
  "\\fBtubetti passt\\fR [\\fIOPTION\\fR]...",
  "\\fBtubetti completion bash\\fR|\\fBzsh\\fR|\\fBfish\\fR",
  "\\fBtubetti \\-\\-help\\fR|\\fB\\-\\-version\\fR",
];

const DESCRIPTION: readonly string[] = [
  "Tubetti gives a network namespace, or a virtual machine, the host's network without any privileges. It takes packets " +
  "from an interface in the namespace and carries what is in them over ordinary sockets of the " +
  "host, for TCP, UDP and ICMP echo, over IPv4 and IPv6. The namespace has the same addresses, " +
  "routes and resolvers as the host unless options say otherwise.",
  "Called as pasta, by a link or a copy of that name, it behaves as tubetti pasta does, and " +
  "called as passt as tubetti passt.",
  "With COMMAND, new user and network namespaces are made, and the command runs there. It is the " +
  "user's shell when none is given. With PID or --netns, namespaces are joined that exist " +
  "already, and the program goes to the background once all is ready.",
  "As passt, the network is that of a virtual machine. Its hypervisor connects to a UNIX socket, and " +
  "the guest configures itself by DHCP, DHCPv6 and router advertisements. The program goes to the " +
  "background once the socket is there.",
  "Options can be given more than once. The last one counts, also of two that contradict each " +
  "other, unless it is said that all count. Long options can be cut short as long as it is clear " +
  "which one is meant.",
];

const EXITS: readonly (readonly [string, string])[] = [
  ["0", "All went well. In the background: all is ready."],
  ["1", "The start failed, or an option was wrong. One line on standard error says why."],
  ["126, 127", "COMMAND could not be executed, or was not found."],
  ["128 + N", "COMMAND was ended by signal N, or the program was."],
  ["other", "The exit status of COMMAND."],
];

const FILES: readonly (readonly [string, string])[] = [
  ["/dev/net/tun", "The device that interfaces are made with. The user must be able to open it."],
  ["/etc/resolv.conf", "Resolvers and search domains, unless options give others."],
  ["/run/netns", "Named network namespaces, see ip-netns(8)."],
];

const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["COLUMNS", "Width of what --help prints (default: the terminal's, or 80)."],
  ["SHELL", "What is run when no COMMAND is given."],
];

const EXAMPLES: readonly (readonly [string, string])[] = [
  [
    "A shell in a network of its own that reaches all that the host reaches:",
    "tubetti pasta --config-net",
  ],
  [
    "A web server on port 80 of the namespace, reached as port 8080 of the host:",
    "tubetti pasta --config-net -t 8080:80 -- python3 -m http.server 80",
  ],
  [
    "A virtual machine, whose ssh server is reached as port 2222 of the host:",
    "tubetti passt -s /tmp/vm.socket -t 2222:22",
  ],
  ["A named namespace:", "tubetti pasta --config-net --netns blue"],
  ["Completion in this bash:", "source <(tubetti completion bash)"],
];

/**
 * The manual page as groff source, ending in a newline.
 *
 * @example
 * ```ts
 * import { manualPage } from "./manual.ts";
 * import { assertStringIncludes } from "@std/assert";
 *
 * assertStringIncludes(manualPage(), "\\fB\\-m\\fR, \\fB\\-\\-mtu\\fR \\fIMTU\\fR");
 * ```
 */
export function manualPage(): string {
  const lines = [
    '.\\" SPDX-License-Identifier: GPL-2.0-or-later',
    '.\\" Made from the option table by "deno task manual": do not edit.',
    `.TH TUBETTI 1 "" "${VERSION}" "User Commands"`,
    ".SH NAME",
    "tubetti, pasta, passt \\- network for namespaces and virtual machines without privileges",
    ".SH SYNOPSIS",
    ...SYNOPSIS.flatMap((line, i) => [...(i > 0 ? [".br"] : []), line]),
    ...section("DESCRIPTION", ...DESCRIPTION),
    ".SH OPTIONS",
    ...options(),
    ...later(),
    ".SH EXIT STATUS",
    ...terms(EXITS),
    ".SH ENVIRONMENT",
    ...terms(ENVIRONMENT),
    ".SH FILES",
    ...terms(FILES),
    ".SH EXAMPLES",
    ...EXAMPLES.flatMap(([what, line]) => example(what, line)),
    ...section("COPYRIGHT", `${LICENCE}.`),
    ".SH SEE ALSO",
    "\\fBip\\-netns\\fR(8), \\fBnetwork_namespaces\\fR(7), \\fBuser_namespaces\\fR(7), " +
    "\\fBunshare\\fR(1)",
  ];
  return `${lines.join("\n")}\n`;
}
