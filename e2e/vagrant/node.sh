#!/bin/sh
# node.sh NAME ADDRESS CONTROL - makes a Debian machine a node of the cluster, as root on that machine: containerd,
# kubeadm, and a join, or an init on the control plane. Vagrant runs it; it can be run by hand on any three machines.
set -eu
name=$1 address=$2 control=$3
# Only for a cluster that is thrown away.
token=weft00.0123456789abcdef
release=v1.33

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq containerd curl gpg nftables bind9-dnsutils >/dev/null
if ! command -v kubeadm >/dev/null; then
    curl -fsSL "https://pkgs.k8s.io/core:/stable:/$release/deb/Release.key" | gpg --dearmor -o /etc/apt/kubernetes.gpg
    echo "deb [signed-by=/etc/apt/kubernetes.gpg] https://pkgs.k8s.io/core:/stable:/$release/deb/ /" \
        >/etc/apt/sources.list.d/kubernetes.list
    apt-get update -qq
    apt-get install -y -qq kubelet kubeadm kubectl >/dev/null
fi
swapoff -a
echo "net.ipv4.ip_forward = 1" >/etc/sysctl.d/weft.conf
sysctl -q --system
echo "KUBELET_EXTRA_ARGS=--node-ip=$address" >/etc/default/kubelet
mkdir -p /etc/containerd
containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' >/etc/containerd/config.toml
systemctl restart containerd

# The image comes with the source, not from a registry.
/weft/weft preflight
ctr -n k8s.io images import /weft/weft.tar

if [ "$name" = control ]; then
    kubeadm init --token "$token" --apiserver-advertise-address "$address" --pod-network-cidr 10.244.0.0/16 \
        --skip-phases addon
    mkdir -p /root/.kube
    cp /etc/kubernetes/admin.conf /root/.kube/config
else
    kubeadm join "$control:6443" --token "$token" --discovery-token-unsafe-skip-ca-verification
fi
