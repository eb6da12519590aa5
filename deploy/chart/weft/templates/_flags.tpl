{{- /* Made by `weft chart`; not to be edited. Each begins with a comma: they are the rest of a list. */ -}}
{{- define "weft.agentFlags" -}}
{{- if and (ne .Values.tunnel "vxlan") (ne .Values.backend "auto") (ne .Values.backend .Values.tunnel) }}{{ fail "tunnel has no effect with that backend: it says what backend auto leads through; leave one of them out" }}{{ end -}}
{{- if ne .Values.ipam "node-cidr" }}, "--ipam={{ .Values.ipam }}"{{ end -}}
{{- if ne .Values.backend "auto" }}, "--backend={{ .Values.backend }}"{{ end -}}
{{- if ne .Values.fastPath "none" }}, "--fast-path={{ .Values.fastPath }}"{{ end -}}
{{- if .Values.dhcp }}, "--dhcp=true"{{ end -}}
{{- if not (kindIs "invalid" .Values.mtu) }}, "--mtu={{ int64 .Values.mtu }}"{{ end -}}
{{- if ne .Values.cniBinDir "/opt/cni/bin" }}, "--cni-bin-dir={{ .Values.cniBinDir }}"{{ end -}}
{{- if ne .Values.cniConfDir "/etc/cni/net.d" }}, "--cni-conf-dir={{ .Values.cniConfDir }}"{{ end -}}
{{- if ne .Values.tunnel "vxlan" }}, "--tunnel={{ .Values.tunnel }}"{{ end -}}
{{- if ne .Values.encryption "strict" }}, "--encryption={{ .Values.encryption }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.wireguardPort) }}, "--wireguard-port={{ int64 .Values.wireguardPort }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.wireguardKeepalive) }}, "--wireguard-keepalive={{ int64 .Values.wireguardKeepalive }}"{{ end -}}
{{- if not .Values.networkPolicy }}, "--network-policy=false"{{ end -}}
{{- if ne .Values.policyDeny "drop" }}, "--policy-deny={{ .Values.policyDeny }}"{{ end -}}
{{- if .Values.policyLog }}, "--policy-log={{ .Values.policyLog }}"{{ end -}}
{{- if ne (int64 .Values.policyLogGroup) (int64 7) }}, "--policy-log-group={{ int64 .Values.policyLogGroup }}"{{ end -}}
{{- if not .Values.policyCutConnections }}, "--policy-cut-connections=false"{{ end -}}
{{- if not (kindIs "invalid" .Values.policyTimeout) }}, "--policy-timeout={{ int64 .Values.policyTimeout }}"{{ end -}}
{{- if ne .Values.flows "asked" }}, "--flows={{ .Values.flows }}"{{ end -}}
{{- if ne (int64 .Values.flowsKeep) (int64 60) }}, "--flows-keep={{ int64 .Values.flowsKeep }}"{{ end -}}
{{- if .Values.lbPool }}, "--lb-pool={{ join "," .Values.lbPool }}"{{ end -}}
{{- if .Values.lbCrds }}, "--lb-crds"{{ end -}}
{{- if .Values.lbClass }}, "--lb-class={{ .Values.lbClass }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.lbL2) }}, "--lb-l2={{ .Values.lbL2 }}"{{ end -}}
{{- if .Values.lbInterface }}, "--lb-interface={{ join "," .Values.lbInterface }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.bgpAsn) }}, "--bgp-asn={{ int64 .Values.bgpAsn }}"{{ end -}}
{{- if .Values.bgpPeer }}, "--bgp-peer={{ join "," .Values.bgpPeer }}"{{ end -}}
{{- if ne (join "," .Values.bgpAnnounce) "load-balancers" }}, "--bgp-announce={{ join "," .Values.bgpAnnounce }}"{{ end -}}
{{- if .Values.bgpCrds }}, "--bgp-crds"{{ end -}}
{{- if .Values.bgpCommunity }}, "--bgp-community={{ join "," .Values.bgpCommunity }}"{{ end -}}
{{- if .Values.bgpImport }}, "--bgp-import={{ join "," .Values.bgpImport }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.bgpMultihop) }}, "--bgp-multihop={{ int64 .Values.bgpMultihop }}"{{ end -}}
{{- if not (kindIs "invalid" .Values.bgpRestartTime) }}, "--bgp-restart-time={{ int64 .Values.bgpRestartTime }}"{{ end -}}
{{- if eq (toString .Values.bgpMesh) "false" }}, "--bgp-mesh=false"{{ end -}}
{{- end -}}
{{- define "weft.proxyFlags" -}}
{{- if ne .Values.proxyMode "nftables" }}, "--proxy-mode={{ .Values.proxyMode }}"{{ end -}}
{{- if ne .Values.fastPath "none" }}, "--conntrack-tcp-be-liberal=true"{{ end -}}
{{- if eq .Values.proxyEbpf "host" }}, "--ebpf", "--ebpf-cgroup=/host/cgroup"{{ else if .Values.proxyEbpf }}, "--ebpf", "--ebpf-cgroup=/host/cgroup", "--ebpf-scope=all"{{ end -}}
{{- end -}}
{{- define "weft.agentCapabilities" -}}
{{- if ne .Values.fastPath "none" }}, BPF, PERFMON, SYS_ADMIN{{ else if .Values.dhcp }}, SYS_ADMIN{{ end -}}
{{- if or .Values.lbPool .Values.lbCrds (eq (toString .Values.lbL2) "true") .Values.bgpCrds }}, SYS_NICE{{ end -}}
{{- end -}}
{{- define "weft.dnsSocket" -}}
{{- if contains ":" .Values.clusterDns }}[{{ .Values.clusterDns }}]:53{{ else }}{{ .Values.clusterDns }}:53{{ end -}}
{{- end -}}
