#!/bin/sh
# image.sh BIN FILES - gathers in the folder FILES what the image holds, from the binaries in BIN: one program for the
# daemons and the weft command, links to it by their names, the plugins, the licence and the bill of materials.
set -eu
bin=$1 files=$2
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

rm -rf "$files"
mkdir -p "$files/licenses"
cp "$bin/weft-all" "$bin/weft-cni" "$bin/weft-ipam" "$files/"
for name in weft weft-agent weft-proxy weft-dns; do
    ln -s weft-all "$files/$name"
done
cp LICENSE "$files/licenses/"
cargo tree --locked -p weft-image -p weft-cni -p weft-ipam -e normal --prefix none --format '{p}|{l}' |
    "$bin/examples/sbom" "$version" >"$files/sbom.spdx.json"
