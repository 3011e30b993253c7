// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What clients ask, built by scapy: one frame of every kind that a service looks at.
 *
 * @module
 */
import { GUEST_MAC } from "../helpers/fake_context.ts";
import { build } from "../wire/scapy.ts";
import { once } from "./exchange.ts";

/** The guest's link-local address. */
export const GUEST_LL = "fe80::1234";

const CHADDR = `bytes.fromhex("${GUEST_MAC.replaceAll(":", "")}")`;

function arp(fields: string, source = GUEST_MAC): string {
  return `Ether(dst="ff:ff:ff:ff:ff:ff",src="${source}")/ARP(op=1,hwsrc="${source}",${fields})`;
}

/** A DHCP message; `options` is a Python list's inside. */
function dhcp(options: string, bootp = "", src = "0.0.0.0", dst = "255.255.255.255"): string {
  return `Ether(dst="ff:ff:ff:ff:ff:ff",src="${GUEST_MAC}")/IP(src="${src}",dst="${dst}")/` +
    `UDP(sport=68,dport=67)/BOOTP(chaddr=${CHADDR},xid=0x3903f326${bootp && ","}${bootp})/` +
    `DHCP(options=[${options}])`;
}

function ipv6(dst: string, src = GUEST_LL, hlim = 255): string {
  return `Ether(dst="33:33:00:00:00:02",src="${GUEST_MAC}")/` +
    `IPv6(src="${src}",dst="${dst}",hlim=${hlim})`;
}

function solicitation(target: string, src = GUEST_LL, hlim = 255): string {
  const option = src === "::" ? "" : `/ICMPv6NDOptSrcLLAddr(lladdr="${GUEST_MAC}")`;
  return `${ipv6("ff02::1:ff00:1", src, hlim)}/ICMPv6ND_NS(tgt="${target}")${option}`;
}

const CLIENT = `DHCP6OptClientId(duid=DUID_LL(lladdr="${GUEST_MAC}"))`;
/** DUID-LL of the fake context's own MAC address. */
const SERVER = 'DHCP6OptServerId(duid=DUID_LL(lladdr="9a:55:9a:55:9a:55"))';
const OTHER_SERVER = 'DHCP6OptServerId(duid=DUID_LL(lladdr="9a:55:9a:55:9a:56"))';

function dhcpv6(message: string, dst = "ff02::1:2"): string {
  return `${ipv6(dst)}/UDP(sport=546,dport=547)/${message}`;
}

function iaNa(iaid: number, ...addresses: string[]): string {
  const options = addresses.map((addr) => `DHCP6OptIAAddress(addr="${addr}")`);
  return `DHCP6OptIA_NA(iaid=${iaid},ianaopts=[${options.join(",")}])`;
}

const OURS = "2001:db8::2", FOREIGN = "2001:db8:9::9";

/** Expressions by name. */
const EXPRESSIONS = {
  arpGateway: arp('psrc="192.0.2.2",pdst="192.0.2.1"'),
  arpNeighbour: arp('psrc="192.0.2.2",pdst="192.0.2.77"'),
  arpRemote: arp('psrc="192.0.2.2",pdst="203.0.113.7"'),
  arpOwn: arp('psrc="192.0.2.9",pdst="192.0.2.2"'),
  arpAnnouncement: arp('psrc="192.0.2.9",pdst="192.0.2.9"'),
  arpProbeOwn: arp('psrc="0.0.0.0",pdst="192.0.2.2"'),
  arpProbeOther: arp('psrc="0.0.0.0",pdst="192.0.2.77"'),
  arpProbeGateway: arp('psrc="0.0.0.0",pdst="192.0.2.1"'),
  arpMulticast: arp('psrc="192.0.2.2",pdst="224.0.0.1"'),
  arpAny: arp('psrc="192.0.2.2",pdst="0.0.0.0"'),
  arpReply: arp('psrc="192.0.2.2",pdst="192.0.2.1"').replace("op=1", "op=2"),
  arpFromGroup: arp('psrc="192.0.2.2",pdst="192.0.2.1"', "03:00:00:00:00:01"),
  arpFromUs: arp('psrc="192.0.2.2",pdst="192.0.2.1"', "9a:55:9a:55:9a:55"),
  arpOtherSender: arp('psrc="192.0.2.2",pdst="192.0.2.1"').replace("hwsrc=", "hwdst=")
    .replace("op=1", 'op=1,hwsrc="02:00:5e:10:00:99"'),
  arpFromOtherMac: arp('psrc="192.0.2.2",pdst="192.0.2.1"', "02:00:5e:10:00:99"),

  discover: dhcp('("message-type","discover"),"end"'),
  discoverBroadcast: dhcp('("message-type","discover"),"end"', "flags=0x8000"),
  discoverRapid: dhcp('("message-type","discover"),(80,b""),"end"'),
  discoverListed: dhcp('("message-type","discover"),("param_req_list",[119,15,26,3,1]),"end"'),
  discoverFqdn: dhcp(
    '("message-type","discover"),(81,b"\\x05\\0\\0\\x05guest\\0"),' +
      '("client_id",b"\\0abc"),"end"',
  ),
  discoverFqdnText: dhcp('("message-type","discover"),(81,b"\\0\\0\\0guest"),"end"'),
  discoverLarge: dhcp('("message-type","discover"),("max_dhcp_size",1400),"end"'),
  discoverTiny: dhcp('("message-type","discover"),("max_dhcp_size",64),"end"'),
  discoverRelayed: dhcp('("message-type","discover"),"end"', 'giaddr="192.0.2.3"'),
  discoverTokenRing: dhcp('("message-type","discover"),"end"', "htype=6"),
  request: dhcp(
    '("message-type","request"),("requested_addr","192.0.2.2"),("server_id","192.0.2.1"),"end"',
  ),
  requestReboot: dhcp('("message-type","request"),("requested_addr","192.0.2.2"),"end"'),
  requestOther: dhcp('("message-type","request"),("requested_addr","10.9.9.9"),"end"'),
  requestOtherServer: dhcp(
    '("message-type","request"),("requested_addr","192.0.2.2"),("server_id","192.0.2.250"),"end"',
  ),
  renew: dhcp('("message-type","request"),"end"', 'ciaddr="192.0.2.2"', "192.0.2.2", "192.0.2.1"),
  renewOther: dhcp('("message-type","request"),"end"', 'ciaddr="10.9.9.9"', "10.9.9.9"),
  inform: dhcp('("message-type","inform"),"end"', 'ciaddr="192.0.2.2"', "192.0.2.2"),
  informMulticast: dhcp('("message-type","inform"),"end"', 'ciaddr="224.0.0.9"'),
  release: dhcp('("message-type","release"),"end"', 'ciaddr="192.0.2.2"', "192.0.2.2"),
  decline: dhcp('("message-type","decline"),("requested_addr","192.0.2.2"),"end"'),
  bootp: dhcp('"end"'),
  dhcpReply: dhcp('("message-type","offer"),"end"', "op=2"),
  dhcpNoEnd: dhcp('("message-type","discover")'),
  dhcpBadType: dhcp('(53,b"\\x01\\x01"),"end"'),

  neighbourGateway: solicitation("2001:db8::1"),
  neighbourRemote: solicitation("2001:db8:77::5"),
  neighbourRouter: solicitation("fe80::1"),
  neighbourOwn: solicitation("2001:db8::2"),
  neighbourOwnLinkLocal: solicitation(GUEST_LL),
  neighbourTwoHops: solicitation("2001:db8::1", GUEST_LL, 254),
  dadOwn: solicitation("2001:db8::2", "::"),
  dadOther: solicitation("2001:db8::7", "::"),
  neighbourAdvert: `${ipv6("ff02::1")}/ICMPv6ND_NA(tgt="2001:db8::1",R=0,S=0,O=1)`,
  routerSolicit: `${ipv6("ff02::2")}/ICMPv6ND_RS()`,
  routerSolicitAnonymous: `${ipv6("ff02::2", "::")}/ICMPv6ND_RS()`,
  routerAdvert: `${ipv6("ff02::1")}/ICMPv6ND_RA()`,
  redirect: `${ipv6("ff02::1")}/ICMPv6ND_Redirect()`,
  echo6: `${ipv6("2001:db8::1")}/ICMPv6EchoRequest()`,

  solicit: dhcpv6(`DHCP6_Solicit(trid=0xabcdef)/${CLIENT}/${iaNa(7)}`),
  solicitRapid: dhcpv6(`DHCP6_Solicit(trid=1)/${CLIENT}/DHCP6OptRapidCommit()/${iaNa(7)}`),
  solicitMany: dhcpv6(
    `DHCP6_Solicit(trid=1)/${CLIENT}/${iaNa(7)}/${iaNa(8)}/DHCP6OptIA_TA(iaid=9)/` +
      `DHCP6OptIA_PD(iaid=10)`,
  ),
  solicitNobody: dhcpv6(`DHCP6_Solicit(trid=1)/${iaNa(7)}`),
  solicitServer: dhcpv6(`DHCP6_Solicit(trid=1)/${CLIENT}/${SERVER}/${iaNa(7)}`),
  solicitUnicast: dhcpv6(`DHCP6_Solicit(trid=1)/${CLIENT}/${iaNa(7)}`, "2001:db8::1"),
  solicitSite: dhcpv6(`DHCP6_Solicit(trid=1)/${CLIENT}/${iaNa(7)}`, "ff05::1:3"),
  solicitFqdn: dhcpv6(
    `DHCP6_Solicit(trid=1)/${CLIENT}/${iaNa(7)}/DHCP6OptClientFQDN(flags=1,fqdn="guest")`,
  ),
  request6: dhcpv6(`DHCP6_Request(trid=1)/${CLIENT}/${SERVER}/${iaNa(7, OURS)}`),
  request6Other: dhcpv6(`DHCP6_Request(trid=1)/${CLIENT}/${SERVER}/${iaNa(7, FOREIGN)}`),
  request6OtherServer: dhcpv6(`DHCP6_Request(trid=1)/${CLIENT}/${OTHER_SERVER}/${iaNa(7, OURS)}`),
  request6NoServer: dhcpv6(`DHCP6_Request(trid=1)/${CLIENT}/${iaNa(7, OURS)}`),
  renew6: dhcpv6(`DHCP6_Renew(trid=1)/${CLIENT}/${SERVER}/${iaNa(7, OURS, FOREIGN)}`),
  rebind6: dhcpv6(`DHCP6_Rebind(trid=1)/${CLIENT}/${iaNa(7, OURS)}`),
  confirm: dhcpv6(`DHCP6_Confirm(trid=1)/${CLIENT}/${iaNa(7, OURS)}`),
  confirmOther: dhcpv6(`DHCP6_Confirm(trid=1)/${CLIENT}/${iaNa(7, FOREIGN)}`),
  confirmBoth: dhcpv6(`DHCP6_Confirm(trid=1)/${CLIENT}/${iaNa(7, OURS)}/${iaNa(8, FOREIGN)}`),
  confirmNone: dhcpv6(`DHCP6_Confirm(trid=1)/${CLIENT}/${iaNa(7)}`),
  release6: dhcpv6(`DHCP6_Release(trid=1)/${CLIENT}/${SERVER}/${iaNa(7, OURS)}`),
  decline6: dhcpv6(`DHCP6_Decline(trid=1)/${CLIENT}/${SERVER}/${iaNa(7, OURS)}`),
  information: dhcpv6("DHCP6_InfoRequest(trid=1)/DHCP6OptOptReq(reqopts=[23,24])"),
  informationClient: dhcpv6(`DHCP6_InfoRequest(trid=1)/${CLIENT}`),
  informationOther: dhcpv6(`DHCP6_InfoRequest(trid=1)/${OTHER_SERVER}`),
  informationAddress: dhcpv6(`DHCP6_InfoRequest(trid=1)/${CLIENT}/${iaNa(7)}`),
  advertise6: dhcpv6(`DHCP6_Advertise(trid=1)/${CLIENT}/${SERVER}`),
};

/** Names of the questions. */
export type Question = keyof typeof EXPRESSIONS;

/** All questions; built at the first call. */
export const questions: () => Promise<Record<Question, Uint8Array<ArrayBuffer>>> = once(() =>
  build(EXPRESSIONS)
);

/** Questions of each service that a default context answers. */
export const ANSWERED: readonly Question[] = [
  "arpGateway",
  "arpNeighbour",
  "arpRemote",
  "arpProbeGateway",
  "discover",
  "discoverRapid",
  "discoverListed",
  "discoverFqdn",
  "request",
  "requestOther",
  "renew",
  "inform",
  "bootp",
  "neighbourGateway",
  "routerSolicit",
  "solicit",
  "solicitRapid",
  "solicitMany",
  "request6",
  "request6Other",
  "renew6",
  "rebind6",
  "confirm",
  "confirmOther",
  "release6",
  "information",
];
