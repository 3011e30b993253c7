#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# First and only process of a guest: loads what drives the devices, then runs what comes over the
# control port. A request is a line "NUMBER SECONDS COMMAND", an answer a line "NUMBER STATUS OUTPUT",
# command and output in base64. A command runs under sh, ends after SECONDS, and whatever it starts in
# the background stays.
export PATH=/bin:/sbin HOME=/tmp TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run /tmp /var/run /var/lib/dhcp
mount -t devpts pts /dev/pts
mount -t tmpfs -o size=90% tmp /tmp
while read -r module; do
	insmod "/modules/$module.ko" || echo "Could not load $module"
done </modules/list
hostname guest
ip link set lo up
# many connections at once, from either side
echo 8192 >/proc/sys/net/core/somaxconn
ulimit -n 4096

port=
while [ -z "$port" ]; do
	for found in /dev/vport*; do [ -c "$found" ] && port=$found; done
	[ -n "$port" ] || usleep 10000
done
exec 3<>"$port"
echo "0 0 $(cat /proc/uptime /proc/sys/kernel/random/boot_id | base64 -w0)" >&3
while :; do
	read -r number seconds command <&3 || { usleep 20000; continue; }
	echo "$command" | base64 -d >/tmp/command
	timeout -s KILL "$seconds" sh /tmp/command >/tmp/output 2>&1 </dev/null 3>&-
	status=$?
	# nothing is left to be read while the answer is written
	echo "$number $status $(base64 -w0 </tmp/output)" >&3
done
