#!/bin/sh
# run.sh - three virtual machines with kubeadm, Weft on them from this source, and the self-test there. Needs vagrant with
# VirtualBox, and the network for Debian's box and Kubernetes' packages. KEEP=1 leaves the machines.
set -eu
cd "$(dirname "$0")/../.."
image=${IMAGE:-localhost/weft:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}

make image
cp target/weft.tar target/image-files/weft.tar
cd e2e/vagrant
clean_up() {
    [ "${KEEP:-0}" = 1 ] || vagrant destroy -f
}
trap clean_up EXIT
vagrant up

weft() {
    vagrant ssh control -c "sudo KUBECONFIG=/root/.kube/config /weft/weft $*"
}
weft install --image "$image"
weft status
weft uninstall
echo "vagrant: everything passed"
