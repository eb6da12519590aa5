#!/bin/sh
# install.sh - Weft on a cluster that reaches no registry. From the folder of the bundle:
#
#   ./install.sh load              on every node, as root: the image into its container runtime
#   ./install.sh install [FLAG…]   once, where a kubeconfig is: `weft install` with that image, and these flags
#   ./install.sh check             whether the bundle is whole
#
# load finds the runtime of k3s, RKE2 and MicroK8s, containerd and CRI-O; with kind, see README.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# For tries: another place for the node's files.
root=${WEFT_ROOT:-}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

check() {
    (cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "the bundle is damaged: unpack it again, from a copy whose checksum is right"
}

# Into a folder from which k3s and RKE2 take images at each start, and at once.
images() {
    mkdir -p "$1"
    cp "$here/weft.tar" "$1/weft.tar"
}

load() {
    check
    if [ -S "$root/run/k3s/containerd/containerd.sock" ]; then
        for distribution in k3s rke2; do
            if [ -d "$root/var/lib/rancher/$distribution" ]; then images "$root/var/lib/rancher/$distribution/agent/images"; fi
        done
        ctr=$(command -v ctr || echo "$root/var/lib/rancher/rke2/bin/ctr")
        if command -v k3s >/dev/null 2>&1; then set -- k3s ctr; else set -- "$ctr"; fi
        "$@" --address "$root/run/k3s/containerd/containerd.sock" --namespace k8s.io images import "$here/weft.tar"
    elif [ -S "$root/var/snap/microk8s/common/run/containerd.sock" ]; then
        microk8s ctr --namespace k8s.io images import "$here/weft.tar"
    elif [ -S "$root/run/containerd/containerd.sock" ]; then
        ctr --address "$root/run/containerd/containerd.sock" --namespace k8s.io images import "$here/weft.tar"
    elif [ -S "$root/run/crio/crio.sock" ]; then
        # CRI-O and podman have one storage.
        podman load --input "$here/weft.tar"
    else
        fail "found no container runtime: no socket of containerd, CRI-O, k3s, RKE2 or MicroK8s is there; is it running?"
    fi
    echo "this node has $(cat "$here/IMAGE")"
}

case ${1:-} in
check) check && echo "the bundle is whole" ;;
load) load ;;
install)
    shift
    check
    exec "$here/weft" install --image "$(cat "$here/IMAGE")" "$@"
    ;;
*) fail "say what to do: load (on every node), install (once), or check" ;;
esac
