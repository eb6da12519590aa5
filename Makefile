# Weft. `make demo` shows it at work, `make test` proves it. Everything else is a part of these two.
#
# Programs that a target needs and the machine lacks are installed from Debian's packages (as root, or by sudo).

HOST   := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN    := target/$(HOST)/release
# What the demo and the tests run: built in a fraction of the time, and once for both.
DEV    := target/debug
# Static binaries: a plugin or a scratch image must not depend on the libc of where it lands. The explicit target
# keeps these flags away from build scripts and procedural macros, which cannot be static.
STATIC := RUSTFLAGS="-C target-feature=+crt-static"

BUILD_NEEDS := cc:build-essential
TEST_NEEDS  := $(BUILD_NEEDS) ip:iproute2 nft:nftables dig:bind9-dnsutils kdig:knot-dnsutils musl-gcc:musl-tools openssl:openssl curl:curl conntrack:conntrack kubectl:kubernetes-client \
               ping:iputils-ping strace:strace /usr/lib/cni/host-local:containernetworking-plugins \
               containerd:containerd runc:runc podman:podman /bin/busybox:busybox-static iptables:iptables \
               nsenter:util-linux unshare:util-linux /usr/sbin/unbound:unbound shellcheck:shellcheck \
               ipvsadm:ipvsadm qemu-system-x86_64:qemu-system-x86 bird:bird2 \
               pip:python3-pip python3:python3 vtysh:frr gobgpd:gobgpd /usr/sbin/dnsmasq:dnsmasq-base /usr/sbin/udhcpd:udhcpd

# What packages say of themselves, and the moment that stands in them: the commit's, so that they can be made again.
export VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
export ARCH := $(patsubst riscv64gc,riscv64,$(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(firstword $(subst -, ,$(HOST))))))
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
DIST := target/dist

# The image's programs have a profile of their own: small.
IMAGE_BIN   := target/$(HOST)/image
IMAGE_FILES := target/image-files
IMAGE       ?= localhost/weft:$(VERSION)
# The most that the image may be, in bytes.
IMAGE_MOST  := 20000000

.PHONY: help demo picture test check build soak bench-cni bench-proxy bench-dns fuzz fmt deny clean
.PHONY: image image-files bench-nodes bench-policy manifests packaged deb kubectl krew bundle upgrades

help:
	@echo "make demo        bring up a three-node cluster on this machine, run an application, check it, clean up"
	@echo "make test        formatting, lints, unit, kernel, peer and lab tests"
	@echo "make check       the part of the tests that needs no root"
	@echo "make build       static release binaries, in $(BIN)"
	@echo "make image       the OCI image $(IMAGE), in buildah's store and as target/weft.tar"
	@echo "make deb         the Debian package of the weft command and the plugins, in $(DIST)"
	@echo "make kubectl     the archive of the plugin of kubectl, in $(DIST); make krew prints krew's manifest for it"
	@echo "make bundle      image, manifests, chart and script for a cluster without a registry, in $(DIST)"
	@echo "make manifests   what is made of the flags of weft install: deploy/weft.yaml, deploy/chart/weft"
	@echo "make bench-nodes the way between two nodes' pods beside the bare link between the nodes, and looking at flows"
	@echo "make soak        faults under a steady load, for ten minutes: daemons killed, the API server away, clocks that jump"
	@echo "make upgrades    from the last two versions to this one under load, and a node back; builds them from their commits"
	@echo "make bench-cni   the CNI plugin beside the reference plugins and the bare netlink calls"
	@echo "make fuzz        feed the CNI plugin, its IPAM, the DNS server and BGP made-up input, FUZZ_SECONDS=60 each (installs cargo-fuzz)"
	@echo "make bench-proxy the service proxy beside the rule sets of kube-proxy"
	@echo "make bench-policy network policies at 10,000 pods and 1,000 policies, beside other shapes of the same rules"
	@echo "make bench-dns   the DNS server beside Knot, NSD, Unbound and a bare server that only looks bytes up"
	@echo "make fmt         format the code"
	@echo "make deny        check the licences and sources of all dependencies (installs cargo-deny)"
	@echo "make clean       remove what was built"

build:
	@scripts/need $(BUILD_NEEDS)
	$(STATIC) cargo build --release --locked --target $(HOST) --workspace --exclude weft-image --bins

demo:
	@scripts/need $(BUILD_NEEDS)
	cargo build --locked --workspace --exclude weft-image --bins
	$(DEV)/weft-lab demo $(DEMO_FLAGS)

# README's picture, from what the demo really prints.
picture:
	$(DEV)/weft-lab demo | sed '/^  removed/d; /^  to look around/d' | scripts/terminal-picture 'make demo' > docs/demo.svg

# What needs no root and no kernel: format, lints, unit, golden and property tests.
check:
	@scripts/need $(BUILD_NEEDS) kubectl:kubernetes-client shellcheck:shellcheck
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked --no-fail-fast --lib
	cargo test --locked --no-fail-fast -p weft-proxy -p weft-cluster -p weft-e2e -p weft-image \
		--test golden --test changes --test watch --test house --test files --test flags

# The lab's suite drives the programs that cargo builds for the tests of their own crates.
test:
	@scripts/need $(TEST_NEEDS)
	@scripts/kernel target/kernel
	@scripts/helm target/helm
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	WEFT_BIN_DIR=$(CURDIR)/$(DEV) cargo test --workspace --locked --no-fail-fast

image-files:
	@scripts/need $(BUILD_NEEDS)
	$(STATIC) cargo build --profile image --locked --target $(HOST) -p weft-image --bins --example sbom
	@# On its own: features that the daemons ask of shared crates stay out of the plugins.
	$(STATIC) cargo build --profile image --locked --target $(HOST) -p weft-cni --bins
	deploy/image.sh $(IMAGE_BIN) $(IMAGE_FILES)

image: image-files
	@scripts/need buildah:buildah
	buildah bud --quiet --isolation chroot --storage-driver vfs --timestamp 0 -f deploy/Dockerfile -t $(IMAGE) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(IMAGE_FILES)
	rm -f target/weft.tar
	buildah push --quiet --storage-driver vfs $(IMAGE) docker-archive:target/weft.tar:$(IMAGE)
	@size=$$(stat -c %s target/weft.tar); echo "$(IMAGE): $$size bytes, target/weft.tar"; test $$size -le $(IMAGE_MOST)

# One source: the manifests of the weft command.
manifests:
	cargo run --quiet --locked -p weft -- manifests >deploy/weft.yaml
	cargo run --quiet --locked -p weft -- chart deploy/chart/weft

# The weft command and the plugins alone: what packages hold.
packaged:
	@scripts/need $(BUILD_NEEDS)
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft -p weft-cni -p weft-ipam --bins

deb: packaged
	@scripts/need dpkg-deb:dpkg xz:xz-utils
	deploy/deb.sh $(BIN) $(DIST)

kubectl: packaged
	deploy/kubectl.sh $(BIN) $(DIST)

# Where the archives are to be found by those who install them.
RELEASES ?= https://github.com/OWNER/weft/releases/download/v$(VERSION)
krew:
	@deploy/krew.sh $(RELEASES) $(DIST)/kubectl-weft-$(VERSION)-linux-*.tar.gz

bundle: image packaged
	deploy/bundle.sh $(BIN) target/weft.tar $(IMAGE) $(IMAGE_FILES)/sbom.spdx.json $(DIST)

bench-nodes:
	@scripts/need $(BUILD_NEEDS) ip:iproute2 iperf3:iperf3 nft:nftables
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-agent --bin weft-agent --example bench-nodes
	$(BIN)/examples/bench-nodes $(BIN)/weft-agent

# Seconds of its first part; the others take three fifths and one fifth of that.
SOAK_SECONDS ?= 300
soak: build
	@scripts/need $(TEST_NEEDS)
	WEFT_BIN_DIR=$(CURDIR)/$(BIN) WEFT_SOAK_SECONDS=$(SOAK_SECONDS) cargo test -p weft-e2e --locked --test lab

# The versions of before, and with each the lab's scenario that is an upgrade.
upgrades:
	@scripts/need $(TEST_NEEDS)
	cargo build --locked --workspace --exclude weft-image --bins
	@set -e; for commit in $$(grep -v '^#' e2e/versions); do \
		scripts/version $$commit target/versions; \
		WEFT_BIN_DIR=$(CURDIR)/$(DEV) WEFT_UPGRADE_FROM=$(CURDIR)/target/versions/$$commit \
			cargo test -p weft-e2e --locked --test lab -- 'upgrades roll'; \
	done

bench-cni:
	@scripts/need $(BUILD_NEEDS) strace:strace iptables:iptables /usr/lib/cni/bridge:containernetworking-plugins
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-cni -p weft-ipam --bins
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-cni --example bench-cni
	$(BIN)/examples/bench-cni $(BIN)

# Without a sanitizer the stable compiler does, and there is next to no unsafe code here for one to watch. New inputs go
# below target/, one that fails into the artifacts beside the corpus.
FUZZ_SECONDS ?= 60
fuzz:
	@scripts/need $(BUILD_NEEDS)
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	for target in cni-plugin:call cni-plugin:records dns:datagram announce:message; do \
	    folder=$${target%:*}/fuzz name=$${target#*:} && mkdir -p target/fuzz/$$name && \
	    cargo fuzz run --fuzz-dir $$folder --sanitizer none $$name target/fuzz/$$name $$folder/corpus/$$name \
	        -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

bench-proxy:
	@scripts/need $(BUILD_NEEDS) nft:nftables iptables:iptables
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-proxy --bin weft-proxy --example bench-proxy
	$(BIN)/examples/bench-proxy $(BIN)/weft-proxy --svg docs/proxy-load.svg $(BENCH_FLAGS)

bench-policy:
	@scripts/need $(BUILD_NEEDS) ip:iproute2 nft:nftables iptables:iptables ipset:ipset
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-cni --bins
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-agent --bin weft-agent --example bench-policy
	$(BIN)/examples/bench-policy $(BIN) --svg docs/policy-load.svg $(BENCH_FLAGS)

bench-dns:
	@scripts/need $(BUILD_NEEDS) ip:iproute2 taskset:util-linux unshare:util-linux dnsperf:dnsperf knotd:knot nsd:nsd \
		unbound:unbound
	$(STATIC) cargo build --release --locked --target $(HOST) -p weft-dns --bin weft-dns --example bench-dns
	PATH=$$PATH:/usr/sbin unshare --net $(BIN)/examples/bench-dns $(BIN)/weft-dns --svg docs/dns-cost.svg $(BENCH_FLAGS)

fmt:
	cargo fmt --all

deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

clean:
	cargo clean
