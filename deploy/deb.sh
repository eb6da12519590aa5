#!/bin/sh
# deb.sh BIN TO - makes the Debian package of the weft command (also as kubectl-weft) and the CNI plugins, from the static
# binaries in BIN, into the folder TO. The same binaries and commit give the same bytes.
set -eu
bin=$1 to=$2
version=${VERSION:?is not set: make deb} arch=${ARCH:?is not set: make deb}
# A commit's own time, so that nothing depends on when this runs.
: "${SOURCE_DATE_EPOCH:?is not set: make deb}"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/usr/lib/cni" "$root/usr/share/doc/weft"
# mktemp leaves it to its owner alone.
chmod 755 "$root"
install -m 755 "$bin/weft" "$root/usr/bin/weft"
ln -s weft "$root/usr/bin/kubectl-weft"
install -m 755 "$bin/weft-cni" "$bin/weft-ipam" "$root/usr/lib/cni/"
install -m 644 README.md "$root/usr/share/doc/weft/README.md"
cat >"$root/usr/share/doc/weft/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Weft

Files: *
Copyright: the authors of Weft
License: Apache-2.0
 On Debian systems, the whole text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
END
{
    printf 'weft (%s) unstable; urgency=medium\n\n' "$version"
    printf '  * What changed is told in CHANGELOG.md.\n\n'
    printf ' -- The authors of Weft <weft@localhost>  %s\n' "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$root/usr/share/doc/weft/changelog.gz"
size=$(du -s --apparent-size -k "$root/usr" | cut -f1)
cat >"$root/DEBIAN/control" <<END
Package: weft
Version: $version
Architecture: $arch
Maintainer: The authors of Weft <weft@localhost>
Installed-Size: $size
Section: net
Priority: optional
Suggests: containerd, kubernetes-client
Description: pod network, Services and DNS for a Kubernetes cluster
 The weft command, which puts Weft on a cluster, looks at it there and takes it
 away again, also as a plugin of kubectl; and the CNI plugins weft-cni and
 weft-ipam, for container runtimes without Kubernetes. The daemons of a cluster
 come in an image.
END
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$to"
dpkg-deb --root-owner-group --uniform-compression -Zxz --build "$root" "$to/weft_${version}_$arch.deb" >/dev/null
echo "$to/weft_${version}_$arch.deb"
