//! The names of kube-proxy's metrics, as its dashboards and alerts have them.

/// What stands before each name, with an underscore.
pub const PREFIX: &str = "kubeproxy";
/// Every sync.
pub const SYNC_PROXY_RULES_DURATION_SECONDS: &str = "sync_proxy_rules_duration_seconds";
/// Syncs that compared everything.
pub const SYNC_FULL_PROXY_RULES_DURATION_SECONDS: &str = "sync_full_proxy_rules_duration_seconds";
/// Syncs of changes alone.
pub const SYNC_PARTIAL_PROXY_RULES_DURATION_SECONDS: &str = "sync_partial_proxy_rules_duration_seconds";
/// From the change in the cluster to its commit.
pub const NETWORK_PROGRAMMING_DURATION_SECONDS: &str = "network_programming_duration_seconds";
/// The last successful sync.
pub const SYNC_PROXY_RULES_LAST_TIMESTAMP_SECONDS: &str = "sync_proxy_rules_last_timestamp_seconds";
/// The last change that came.
pub const SYNC_PROXY_RULES_LAST_QUEUED_TIMESTAMP_SECONDS: &str =
    "sync_proxy_rules_last_queued_timestamp_seconds";
/// Services that are not synced yet.
pub const SYNC_PROXY_RULES_SERVICE_CHANGES_PENDING: &str = "sync_proxy_rules_service_changes_pending";
/// EndpointSlices that are not synced yet.
pub const SYNC_PROXY_RULES_ENDPOINT_CHANGES_PENDING: &str = "sync_proxy_rules_endpoint_changes_pending";
/// EndpointSlices that changed; `_total` is added.
pub const SYNC_PROXY_RULES_ENDPOINT_CHANGES: &str = "sync_proxy_rules_endpoint_changes";
/// Services that changed; `_total` is added.
pub const SYNC_PROXY_RULES_SERVICE_CHANGES: &str = "sync_proxy_rules_service_changes";
/// Syncs that failed; `_total` is added.
pub const SYNC_PROXY_RULES_NFTABLES_SYNC_FAILURES: &str = "sync_proxy_rules_nftables_sync_failures";
/// Answers of /healthz; `_total` is added.
pub const PROXY_HEALTHZ: &str = "proxy_healthz";
/// Services without endpoints on this node under a policy Local.
pub const SYNC_PROXY_RULES_NO_LOCAL_ENDPOINTS_TOTAL: &str = "sync_proxy_rules_no_local_endpoints_total";
/// Answers of /livez; `_total` is added.
pub const PROXY_LIVEZ: &str = "proxy_livez";
/// Deleted conntrack entries; `_total` is added.
pub const CONNTRACK_RECONCILER_DELETED_ENTRIES: &str = "conntrack_reconciler_deleted_entries";
/// Clean-ups of conntrack.
pub const CONNTRACK_RECONCILER_SYNC_DURATION_SECONDS: &str = "conntrack_reconciler_sync_duration_seconds";
/// Addresses and ports from which programs lead sockets. kube-proxy has none.
pub const EBPF_FRONTENDS: &str = "ebpf_frontends";
