#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# machine.sh ROOT WORK PROJECT DENO: the first process of a small Debian machine in namespaces.
#
# To be started as root by unshare(1) in new mount, PID, IPC, UTS and cgroup namespaces, within the
# network namespace that the machine is to have. Nothing of it is left when it ends: what is written
# goes to a tmpfs over ROOT, which stays as it was made. WORK is an empty folder to mount things in.
#
# In the machine: the project in /opt/tubetti, the runtime as /opt/deno, the user "podman", and for
# each NAME of "tubetti" and "debian" a program /opt/helpers/NAME/pasta and a configuration
# /etc/podman-NAME.conf that has podman use it. Each writes its arguments to /tmp/pasta.log.
# It prints "machine is ready" and then only reaps processes.
set -eu
root=$1 work=$2 project=$3 deno=$4
user=1000

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs home # podman's storage: an overlay can't lie on another
mount -t tmpfs -o mode=755 tmpfs dev

mkdir dev/pts dev/shm dev/mqueue dev/net
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" \
  "net/tun 10 200" "fuse 10 229"; do
  set -- $node
  mknod -m 666 "dev/$1" c "$2" "$3"
done

mkdir -p opt/tubetti opt/images/debian
mount --bind "$project" opt/tubetti
mount -o remount,bind,ro opt/tubetti
touch opt/deno
mount --bind "$deno" opt/deno
mount --bind "$root" opt/images/debian # the containers' file system is Debian's, too
mount -o remount,bind,ro opt/images/debian

mkdir -p run/user/$user home/podman
chown $user:$user run/user/$user home/podman
chmod 700 run/user/$user
echo "podman:x:$user:$user::/home/podman:/bin/sh" >>etc/passwd
echo "podman:x:$user:" >>etc/group
for file in etc/subuid etc/subgid; do echo "podman:100000:65536" >$file; done
hostname machine
echo machine >etc/hostname
echo "127.0.0.1 localhost machine" >etc/hosts
cat /etc/resolv.conf >etc/resolv.conf # the namespace's own: ip-netns(8) has mounted it

# program NAME COMMAND: what podman finds as pasta
program() {
  mkdir -p "opt/helpers/$1"
  cat >"opt/helpers/$1/pasta" <<END
#!/bin/sh
echo "\$*" >>/tmp/pasta.log
export DENO_DIR=/tmp/deno NO_COLOR=1
exec $2 "\$@"
END
  chmod 755 "opt/helpers/$1/pasta"
  cat >"etc/podman-$1.conf" <<END
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
helper_binaries_dir = ["/opt/helpers/$1", "/usr/libexec/podman", "/usr/lib/podman"]
[network]
firewall_driver = "nftables"
[containers]
cgroups = "disabled"
default_sysctls = ["net.ipv4.ping_group_range=0 0"]
END
}
program debian /usr/bin/pasta
program tubetti "/opt/deno run --quiet --no-prompt --allow-all \
  --v8-flags=--max-semi-space-size=1 /opt/tubetti/main.ts pasta"
: >tmp/pasta.log
chmod 666 tmp/pasta.log

mkdir -p old
pivot_root . old
cd /
umount -l /old
mount --make-rshared / # podman hands mounts on to its containers
echo "machine is ready"
exec /usr/bin/catatonit -P
