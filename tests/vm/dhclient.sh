#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Applies and notes down what a DHCPv6 server says, one NAME=VALUE a line, in /tmp/lease6.
case "$reason" in
BOUND6 | RENEW6 | REBIND6)
	env | grep '^new_' | sed 's/^new_//' >/tmp/lease6
	ip -6 addr add "$new_ip6_address/$new_ip6_prefixlen" dev "$interface" nodad
	;;
esac
exit 0
