// SPDX-License-Identifier: GPL-2.0-or-later
/** The text of policy rules: what is accepted, and what is refused with which words. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { parsePolicyRule, PolicyRuleError, Verdict } from "../../lib/forward/policy_rules.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { encodeDomainName } from "../../lib/wire/dns_name.ts";

const PROTOCOLS = ["", "icmp", "", "", "", "", "tcp"];
PROTOCOLS[17] = "udp";

/** A rule in canonical text: host, ports, protocol, target. */
function read(text: string): string {
  const rule = parsePolicyRule(text, Verdict.ALLOW);
  const { name, address, prefixLength, first, last, protocol, target, targetPort } = rule;
  const host = name
    ? `${name.below ? "below " : ""}${new TextDecoder().decode(name.wire)}`
    : address
    ? `${formatAddress(address)}/${prefixLength}`
    : "any";
  const to = target ? `= ${formatAddress(target)} ${targetPort}` : "";
  return [host, `${first}-${last}`, PROTOCOLS[protocol], to].filter((part) => part !== "").join(
    " ",
  );
}

const wire = (name: string) => new TextDecoder().decode(encodeDomainName(name)!);

Deno.test("parsePolicyRule() reads every form", () => {
  const forms: Record<string, string> = {
    "any": "any 0-0",
    "any/icmp": "any 0-0 icmp",
    "any:53/udp": "any 53-53 udp",
    "192.0.2.1": "192.0.2.1/32 0-0",
    "192.0.2.1:80": "192.0.2.1/32 80-80",
    "10.0.0.0/8": "10.0.0.0/8 0-0",
    "10.0.0.0/8/tcp": "10.0.0.0/8 0-0 tcp",
    "10.0.0.0/8:80-90/tcp": "10.0.0.0/8 80-90 tcp",
    "0.0.0.0/0": "0.0.0.0/0 0-0",
    "::/0": "::/0 0-0",
    "::1": "::1/128 0-0",
    "[::1]": "::1/128 0-0",
    "[::1]:80": "::1/128 80-80",
    "2001:db8::/32": "2001:db8::/32 0-0",
    "2001:db8::/32/udp": "2001:db8::/32 0-0 udp",
    "[2001:db8::/32]:443/tcp": "2001:db8::/32 443-443 tcp",
    "Example.COM": `${wire("example.com")} 0-0`,
    "example.com.": `${wire("example.com")} 0-0`,
    "example.com:443": `${wire("example.com")} 443-443`,
    "*.example.com:1-65535/tcp": `below ${wire("example.com")} 1-65535 tcp`,
    "_a-b.xn--bcher-kva.example/icmp": `${wire("_a-b.xn--bcher-kva.example")} 0-0 icmp`,
    "printer": `${wire("printer")} 0-0`,
    "any=192.0.2.1": "any 0-0 = 192.0.2.1 0",
    "example.com:443/tcp=127.0.0.1:8443": `${wire("example.com")} 443-443 tcp = 127.0.0.1 8443`,
    "[2001:db8::1]:80=[::1]:8080": "2001:db8::1/128 80-80 = ::1 8080",
    "2001:db8::1=::1": "2001:db8::1/128 0-0 = ::1 0",
  };
  for (const [text, expected] of Object.entries(forms)) assertEquals(read(text), expected, text);
});

Deno.test("parsePolicyRule() refuses what it could only guess at, in one line", () => {
  const bad: Record<string, string> = {
    "": 'no destination (an address, a prefix, a name, or "any")',
    ":80": "no destination",
    "*": `"*" is not a destination; all are "any"`,
    "*:80": `"*" is not a destination`,
    "ANY": `"ANY" is not a destination; all are "any"`,
    "all": `"all" is not a destination; all are "any"`,
    "any.": `"any." is not a destination; all are "any"`,
    "*.*": `"*.*" is not a destination; all are "any"`,
    "*.": `"*." is neither an address nor a name`,
    "www.*.com": "an asterisk stands only before the first dot",
    "a*.com": "an asterisk stands only before the first dot",
    "*.*.com": "an asterisk stands only before the first dot",
    "192.0.2.256": `"192.0.2.256" is not an IPv4 or IPv6 address`,
    "192.0.2": "is not an IPv4 or IPv6 address",
    "*.2": "neither an address nor a name",
    "a.0x7f": "neither an address nor a name",
    "1e.7": "neither an address nor a name",
    "10.0.0.1/8": `"10.0.0.1/8" has bits set behind the first 8`,
    "2001:db8::1/64": "has bits set behind the first 64",
    "10.0.0.0/33": `"33" is not a prefix length (0 to 32)`,
    "10.0.0.0/": `"" is not a prefix length`,
    "2001:db8::/129": "(0 to 128)",
    "0.0.0.0": `"0.0.0.0" is no destination; all are "any"`,
    "::": "is no destination",
    "::ffff:192.0.2.1": "is an IPv4 address in IPv6 form",
    "::ffff:0:0/96": "is an IPv4 address in IPv6 form",
    "[::1": "lacks the closing bracket",
    "[192.0.2.1]:80": `"192.0.2.1" is not an IPv6 address`,
    "[::1]80": "only :PORTS can follow the bracket",
    "any:0": `"0" is not a port (1 to 65535)`,
    "any:65536": "is not a port",
    "any:": `"" is not a port`,
    "any:9-8": "is a reversed range",
    "any:1-2-3": `"2-3" is not a port`,
    "any:http": `"http" is not a port`,
    "any/sctp": `"sctp" is not a protocol (tcp, udp, icmp)`,
    "any/constructor": "is not a protocol",
    "any:80/icmp": "pings have no ports",
    "localhost:80": "the host's own loopback is written as 127.0.0.1 or [::1]",
    "bücher.example": `names beyond ASCII as "xn--..."`,
    "a b": "neither an address nor a name",
    "a..b": "neither an address nor a name",
    "example.com/24": "neither an address nor a name",
    [`${"a".repeat(64)}.com`]: "neither an address nor a name",
    ["a.".repeat(300)]: "longer than 512 characters",
    "any=": `"" is not an IPv4 or IPv6 address`,
    "any=example.com": "is not an IPv4 or IPv6 address",
    "any=0.0.0.0": "is not the address of one host",
    "any=224.0.0.1": "is not the address of one host",
    "any=10.0.0.0/8": "is not an IPv4 or IPv6 address",
    "any=127.0.0.1:0": "is not a port",
    "any/icmp=127.0.0.1:80": "pings have no ports",
    "192.0.2.1=[::1]": "target and destination are of different families",
  };
  for (const [text, expected] of Object.entries(bad)) {
    const error = assertThrows(() => parsePolicyRule(text, Verdict.ALLOW), PolicyRuleError);
    assertEquals(error.message.includes(expected), true, `${text}: ${error.message}`);
    assertMatch(error.message, /^[^\n]{1,200}$/);
  }
  const denied = assertThrows(
    () => parsePolicyRule("any=127.0.0.1", Verdict.REJECT),
    PolicyRuleError,
  );
  assertEquals(denied.message, "what is denied goes nowhere: no =TARGET");
});
