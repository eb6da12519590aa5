#!/bin/sh
# image.sh BIN FILES - gathers in the folder FILES what the image holds, from the binaries in BIN: one program for the
# daemons and the weft command, one for the plugins, links to them by their names, the licence and the bill of materials.
set -eu
bin=$1 files=$2
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

rm -rf "$files"
mkdir -p "$files/licenses"
cp "$bin/weft-all" "$bin/weft-cni" "$files/"
ln -s weft-cni "$files/weft-ipam"
for name in weft weft-agent weft-proxy weft-dns; do
    ln -s weft-all "$files/$name"
done
cp LICENSE "$files/licenses/"
cargo tree --locked -p weft-image -p weft-cni -e normal --prefix none --format '{p}|{l}' |
    "$bin/examples/sbom" "$version" >"$files/sbom.spdx.json"

# Every name is a program that starts, of this version, and needs no file of another.
for name in weft weft-agent weft-proxy weft-dns; do
    said=$("$files/$name" --version)
    [ "$said" = "$name $version" ] || { echo "image.sh: $name says $said, not $version" >&2; exit 1; }
done
for name in weft-all weft-cni; do
    ! readelf --program-headers "$files/$name" | grep -q INTERP || { echo "image.sh: $name is not static" >&2; exit 1; }
done
