#!/bin/sh
# bundle.sh BIN IMAGE_TAR IMAGE SBOM TO - gathers all that a cluster without a way out needs in one archive below TO: the
# image, the weft command, manifests, Helm chart, bill of materials, checksums, and one script. The same parts and commit
# give the same bytes.
set -eu
bin=$1 tar=$2 image=$3 sbom=$4 to=$5
version=${VERSION:?is not set: make bundle} arch=${ARCH:?is not set: make bundle}
# A commit's own time, so that nothing depends on when this runs.
: "${SOURCE_DATE_EPOCH:?is not set: make bundle}"

name=weft-$version-linux-$arch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
folder=$work/$name
mkdir -p "$folder"
install -m 644 "$tar" "$folder/weft.tar"
install -m 644 "$sbom" "$folder/sbom.spdx.json"
install -m 644 LICENSE "$folder/LICENSE"
install -m 755 "$bin/weft" "$folder/weft"
install -m 755 deploy/install.sh "$folder/install.sh"
printf '%s\n' "$image" >"$folder/IMAGE"
"$folder/weft" manifests --image "$image" >"$folder/weft.yaml"
"$folder/weft" chart "$folder/chart"
sed -i "s|^image: .*|image: \"$image\"|" "$folder/chart/values.yaml"
(cd "$folder" && find . -type f | LC_ALL=C sort | xargs sha256sum) >"$work/sums"
install -m 644 "$work/sums" "$folder/SHA256SUMS"
mkdir -p "$to"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$name" |
    gzip -9n >"$to/$name.tar.gz"
(cd "$to" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$to/$name.tar.gz"
