#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Applies and notes down what a DHCP server says, one NAME=VALUE a line, in /tmp/lease.
case "$1" in
bound | renew)
	env | grep -E '^(ip|mask|subnet|router|mtu|dns|search|domain|serverid|lease|staticroutes)=' >/tmp/lease
	ip -4 addr flush dev "$interface"
	ip addr add "$ip/$mask" dev "$interface"
	[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
	for gateway in $router; do
		ip route add default via "$gateway" dev "$interface" onlink
	done
	: >/etc/resolv.conf
	for name in $dns; do echo "nameserver $name" >>/etc/resolv.conf; done
	[ -n "$search" ] && echo "search $search" >>/etc/resolv.conf
	;;
esac
exit 0
