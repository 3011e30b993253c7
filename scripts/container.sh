#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# container.sh EXECUTABLE IMAGE.tar: packs the executable and the libraries that it needs, from this
# machine, into an image for `podman load` and `docker load`, without network and without either.
#
# The image is one layer: /usr/bin/tubetti, the links pasta and passt, the C library. It has no shell. Its
# command line is that of tubetti. The same files make the same image, byte by byte.
#
# Form: "Docker image specification v1.2", a tar file of the layer, its configuration and a manifest.
set -eu
export LC_ALL=C
if [ $# -ne 2 ]; then
  echo "Usage: $0 EXECUTABLE IMAGE.tar" >&2
  exit 1
fi
executable=$1 image=$2

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "$0: no image for $(uname -m)" >&2 && exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/usr/bin" "$work/root/tmp" "$work/image"
chmod 1777 "$work/root/tmp" # for sockets of passt without -s
cp -L "$executable" "$work/root/usr/bin/tubetti"
chmod 755 "$work/root/usr/bin/tubetti"
ln -s tubetti "$work/root/usr/bin/pasta"
ln -s tubetti "$work/root/usr/bin/passt"
libraries=$(ldd "$executable" | tr ' \t' '\n\n' | grep '^/')
for library in $libraries; do
  mkdir -p "$work/root${library%/*}"
  cp -L "$library" "$work/root$library"
done

# pack FOLDER FILE: a tar file that depends on nothing but names, modes and contents
pack() {
  tar --create --file="$2" --directory="$1" --sort=name --format=gnu \
    --mtime=@0 --owner=0 --group=0 --numeric-owner .
}

pack "$work/root" "$work/image/layer.tar"
sum=$(sha256sum "$work/image/layer.tar" | cut -d ' ' -f 1)
version=$("$executable" --version | sed -n '1s/^tubetti //p')
cat >"$work/image/config.json" <<END
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z",
"config":{"Entrypoint":["/usr/bin/tubetti"],"Env":["PATH=/usr/bin"]},
"rootfs":{"type":"layers","diff_ids":["sha256:$sum"]},
"history":[{"created":"1970-01-01T00:00:00Z","created_by":"container.sh"}]}
END
cat >"$work/image/manifest.json" <<END
[{"Config":"config.json","RepoTags":["localhost/tubetti:$version"],"Layers":["layer.tar"]}]
END
pack "$work/image" "$image"
