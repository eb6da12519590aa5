#!/bin/sh
# run.sh - makes a kind cluster, puts Weft on it from this source, runs preflight and the self-test there, and takes it away
# again. Needs docker, kind and kubectl, and a registry for kind's node image. KEEP=1 leaves the cluster.
set -eu
cd "$(dirname "$0")/../.."
here=e2e/kind
name=weft
image=${IMAGE:-localhost/weft:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
weft=target/image-files/weft

for program in docker kind kubectl; do
    command -v "$program" >/dev/null || { echo "run.sh: $program is missing" >&2; exit 1; }
done

make image-files
docker build -q -f deploy/Dockerfile -t "$image" target/image-files

folder=$(mktemp -d)
KUBECONFIG=$folder/kubeconfig
export KUBECONFIG
clean_up() {
    [ "${KEEP:-0}" = 1 ] || kind delete cluster --name "$name"
    rm -rf "$folder"
}
trap clean_up EXIT

kind create cluster --config "$here/cluster.yaml"
kind load docker-image --name "$name" "$image"
# kubeadm makes it whatever kind is told; weft-dns takes over its Service.
kubectl -n kube-system delete deployment coredns --ignore-not-found

# Each node must be fit before, and the cluster must work after.
for node in $(kind get nodes --name "$name"); do
    docker cp -L "$weft" "$node:/usr/local/bin/weft"
    docker exec "$node" weft preflight --cluster-cidr 10.244.0.0/16,fd00:10:244::/56 \
        --service-cidr 10.96.0.0/16,fd00:10:96::/112
done
"$weft" install --image "$image" --api-host "$name-control-plane" --cluster-cidr 10.244.0.0/16,fd00:10:244::/56
"$weft" status

# A second time changes nothing, and nothing breaks.
"$weft" install --image "$image" --api-host "$name-control-plane" --cluster-cidr 10.244.0.0/16,fd00:10:244::/56

"$weft" uninstall
echo "kind: everything passed"
