#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What dhclient(8) and udhcpc(8) run: configures the interface and writes the variables it was
# given to the file $OUT, one NAME=VALUE a line.
set -u
iface=${interface:-}
case "${reason:-}${1:-}" in
PREINIT | PREINIT6 | deconfig)
	ip link set "$iface" up
	;;
BOUND | REBOOT | RENEW)
	ip addr replace "$new_ip_address/$new_subnet_mask" dev "$iface"
	ip route replace default via "${new_routers%% *}" dev "$iface"
	;;
BOUND6 | RENEW6)
	ip addr replace "$new_ip6_address/$new_ip6_prefixlen" dev "$iface" nodad
	;;
bound | renew)
	ip addr replace "$ip/$subnet" dev "$iface"
	ip route replace default via "${router%% *}" dev "$iface"
	;;
esac
env >>"$OUT" # last: who finds the variables finds the interface configured
exit 0
