#!/bin/sh
# krew.sh URL ARCHIVE ... - prints the manifest by which krew installs `kubectl weft`, for archives that lie below URL:
# kubectl-weft-VERSION-linux-ARCH.tar.gz, each with the programs that it is made of.
set -eu
url=$1
shift
version=${VERSION:?is not set: make krew}
cat <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: weft
spec:
  version: v$version
  shortDescription: Install Weft, and find what is wrong in a cluster's network
  description: |
    Puts Weft on a cluster, looks at it there and takes it away again; follows a packet through the rules of every node
    (kubectl weft trace), says what is wrong and what mends it (kubectl weft doctor), and which network policy denies.
  caveats: |
    It needs the right to get nodes/proxy for doctor, trace and policy explain.
  platforms:
END
for archive in "$@"; do
    arch=${archive##*-linux-}
    arch=${arch%.tar.gz}
    cat <<END
    - selector: {matchLabels: {os: linux, arch: $arch}}
      uri: $url/${archive##*/}
      sha256: $(sha256sum "$archive" | cut -d ' ' -f 1)
      bin: kubectl-weft
      files:
        - {from: kubectl-weft, to: .}
        - {from: LICENSE, to: .}
END
done
