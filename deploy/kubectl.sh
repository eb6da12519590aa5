#!/bin/sh
# kubectl.sh BIN TO - makes the archive of the plugin of kubectl, from the static binaries in BIN, in the folder TO.
set -eu
bin=$1 to=$2
version=${VERSION:?is not set: make kubectl} arch=${ARCH:?is not set: make kubectl}
# A commit's own time, so that nothing depends on when this runs.
: "${SOURCE_DATE_EPOCH:?is not set: make kubectl}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -m 755 "$bin/weft" "$work/kubectl-weft"
install -m 644 LICENSE "$work/LICENSE"
mkdir -p "$to"
archive=$to/kubectl-weft-$version-linux-$arch.tar.gz
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - LICENSE kubectl-weft |
    gzip -9n >"$archive"
echo "$archive"
