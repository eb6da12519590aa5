//! The fields of the messages that clients send: their numbers, as the `generated.proto` files of the
//! Kubernetes API give them, and their names in JSON.

/// A message: its fields.
pub(super) type Message = &'static [Field];

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) many: bool,
}

/// What a field holds. Go writes the plain ones even when nothing is set; the optional ones only when it is.
pub(super) enum Type {
    Text,
    Number,
    OptionalNumber,
    Flag,
    OptionalFlag,
    Bytes,
    Time,
    IntOrString,
    Message(Message),
    Map(&'static Type),
}

use Type::{
    Bytes, Flag, IntOrString, Map, Message as Nested, Number, OptionalFlag, OptionalNumber, Text, Time,
};

const fn one(number: u64, name: &'static str, kind: Type) -> Field {
    Field { number, name, kind, many: false }
}

const fn many(number: u64, name: &'static str, kind: Type) -> Field {
    Field { number, name, kind, many: true }
}

/// The schema of a kind's objects, where the server has it.
pub(super) fn of_kind(kind: &str) -> Option<Message> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Service" => SERVICE,
        "Event" => EVENT,
        "Lease" => LEASE,
        "Deployment" => DEPLOYMENT,
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        "Eviction" => EVICTION,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// The head of the envelope (apimachinery `runtime.TypeMeta`).
pub(super) const TYPE_META: Message = &[one(1, "apiVersion", Text), one(2, "kind", Text)];

pub(super) const TIME: Message = &[one(1, "seconds", Number), one(2, "nanos", Number)];

pub(super) const INT_OR_STRING: Message =
    &[one(1, "type", Number), one(2, "intVal", Number), one(3, "strVal", Text)];

const METADATA: Message = &[
    one(1, "name", Text),
    one(2, "generateName", Text),
    one(3, "namespace", Text),
    one(4, "selfLink", Text),
    one(5, "uid", Text),
    one(6, "resourceVersion", Text),
    one(7, "generation", Number),
    one(8, "creationTimestamp", Time),
    one(9, "deletionTimestamp", Time),
    one(10, "deletionGracePeriodSeconds", OptionalNumber),
    one(11, "labels", Map(&Text)),
    one(12, "annotations", Map(&Text)),
    many(13, "ownerReferences", Nested(OWNER_REFERENCE)),
    many(14, "finalizers", Text),
];

const OWNER_REFERENCE: Message = &[
    one(1, "kind", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "controller", OptionalFlag),
    one(7, "blockOwnerDeletion", OptionalFlag),
];

const DELETE_OPTIONS: Message = &[
    one(1, "gracePeriodSeconds", OptionalNumber),
    one(2, "preconditions", Nested(&[one(1, "uid", Text), one(2, "resourceVersion", Text)])),
    one(3, "orphanDependents", OptionalFlag),
    one(4, "propagationPolicy", Text),
    many(5, "dryRun", Text),
];

const EVICTION: Message =
    &[one(1, "metadata", Nested(METADATA)), one(2, "deleteOptions", Nested(DELETE_OPTIONS))];

const NAMESPACE: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "spec", Nested(&[many(1, "finalizers", Text)])),
    one(3, "status", Nested(&[one(1, "phase", Text)])),
];

const CONFIG_MAP: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "data", Map(&Text)),
    one(3, "binaryData", Map(&Bytes)),
    one(4, "immutable", OptionalFlag),
];

const SECRET: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "data", Map(&Bytes)),
    one(3, "type", Text),
    one(4, "stringData", Map(&Text)),
    one(5, "immutable", OptionalFlag),
];

const LOCAL_REFERENCE: Message = &[one(1, "name", Text)];

const SERVICE_ACCOUNT: Message = &[
    one(1, "metadata", Nested(METADATA)),
    many(2, "secrets", Nested(OBJECT_REFERENCE)),
    many(3, "imagePullSecrets", Nested(LOCAL_REFERENCE)),
    one(4, "automountServiceAccountToken", OptionalFlag),
];

const OBJECT_REFERENCE: Message = &[
    one(1, "kind", Text),
    one(2, "namespace", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "resourceVersion", Text),
    one(7, "fieldPath", Text),
];

const EVENT: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "involvedObject", Nested(OBJECT_REFERENCE)),
    one(3, "reason", Text),
    one(4, "message", Text),
    one(5, "source", Nested(&[one(1, "component", Text), one(2, "host", Text)])),
    one(6, "firstTimestamp", Time),
    one(7, "lastTimestamp", Time),
    one(8, "count", Number),
    one(9, "type", Text),
    one(10, "eventTime", Time),
    one(11, "series", Nested(&[one(1, "count", Number), one(2, "lastObservedTime", Time)])),
    one(12, "action", Text),
    one(13, "related", Nested(OBJECT_REFERENCE)),
    one(14, "reportingComponent", Text),
    one(15, "reportingInstance", Text),
];

const LEASE: Message = &[one(1, "metadata", Nested(METADATA)), one(2, "spec", Nested(LEASE_SPEC))];

const LEASE_SPEC: Message = &[
    one(1, "holderIdentity", Text),
    one(2, "leaseDurationSeconds", OptionalNumber),
    one(3, "acquireTime", Time),
    one(4, "renewTime", Time),
    one(5, "leaseTransitions", OptionalNumber),
];

const SERVICE: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "spec", Nested(SERVICE_SPEC)),
    one(3, "status", Nested(&[one(1, "loadBalancer", Nested(&[]))])),
];

const SERVICE_SPEC: Message = &[
    many(1, "ports", Nested(SERVICE_PORT)),
    one(2, "selector", Map(&Text)),
    one(3, "clusterIP", Text),
    one(4, "type", Text),
    many(5, "externalIPs", Text),
    one(7, "sessionAffinity", Text),
    one(8, "loadBalancerIP", Text),
    many(9, "loadBalancerSourceRanges", Text),
    one(10, "externalName", Text),
    one(11, "externalTrafficPolicy", Text),
    one(12, "healthCheckNodePort", Number),
    one(13, "publishNotReadyAddresses", Flag),
    one(
        14,
        "sessionAffinityConfig",
        Nested(&[one(1, "clientIP", Nested(&[one(1, "timeoutSeconds", OptionalNumber)]))]),
    ),
    one(17, "ipFamilyPolicy", Text),
    many(18, "clusterIPs", Text),
    many(19, "ipFamilies", Text),
    one(20, "allocateLoadBalancerNodePorts", OptionalFlag),
    one(21, "loadBalancerClass", Text),
    one(22, "internalTrafficPolicy", Text),
    one(23, "trafficDistribution", Text),
];

const SERVICE_PORT: Message = &[
    one(1, "name", Text),
    one(2, "protocol", Text),
    one(3, "port", Number),
    one(4, "targetPort", IntOrString),
    one(5, "nodePort", Number),
    one(6, "appProtocol", Text),
];

const DEPLOYMENT: Message = &[
    one(1, "metadata", Nested(METADATA)),
    one(2, "spec", Nested(DEPLOYMENT_SPEC)),
    one(3, "status", Nested(DEPLOYMENT_STATUS)),
];

const DEPLOYMENT_SPEC: Message = &[
    one(1, "replicas", OptionalNumber),
    one(2, "selector", Nested(LABEL_SELECTOR)),
    one(3, "template", Nested(&[one(1, "metadata", Nested(METADATA)), one(2, "spec", Nested(POD_SPEC))])),
    one(4, "strategy", Nested(STRATEGY)),
    one(5, "minReadySeconds", Number),
    one(6, "revisionHistoryLimit", OptionalNumber),
    one(7, "paused", Flag),
    one(9, "progressDeadlineSeconds", OptionalNumber),
];

const STRATEGY: Message = &[
    one(1, "type", Text),
    one(
        2,
        "rollingUpdate",
        Nested(&[one(1, "maxUnavailable", IntOrString), one(2, "maxSurge", IntOrString)]),
    ),
];

/// The server sets a status itself; a client that creates sends zeros.
const DEPLOYMENT_STATUS: Message = &[
    one(1, "observedGeneration", Number),
    one(2, "replicas", Number),
    one(3, "updatedReplicas", Number),
    one(4, "availableReplicas", Number),
    one(5, "unavailableReplicas", Number),
    one(7, "readyReplicas", Number),
];

const LABEL_SELECTOR: Message =
    &[one(1, "matchLabels", Map(&Text)), many(2, "matchExpressions", Nested(SELECTOR_REQUIREMENT))];

const SELECTOR_REQUIREMENT: Message =
    &[one(1, "key", Text), one(2, "operator", Text), many(3, "values", Text)];

/// As much of a pod as `kubectl create deployment` says.
const POD_SPEC: Message = &[
    many(2, "containers", Nested(CONTAINER)),
    one(3, "restartPolicy", Text),
    one(4, "terminationGracePeriodSeconds", OptionalNumber),
    one(6, "dnsPolicy", Text),
    one(7, "nodeSelector", Map(&Text)),
    one(8, "serviceAccountName", Text),
    one(9, "serviceAccount", Text),
    one(10, "nodeName", Text),
    one(11, "hostNetwork", Flag),
    one(12, "hostPID", Flag),
    one(13, "hostIPC", Flag),
    many(15, "imagePullSecrets", Nested(LOCAL_REFERENCE)),
    one(16, "hostname", Text),
    one(17, "subdomain", Text),
    one(19, "schedulerName", Text),
    many(20, "initContainers", Nested(CONTAINER)),
    one(24, "priorityClassName", Text),
];

const CONTAINER: Message = &[
    one(1, "name", Text),
    one(2, "image", Text),
    many(3, "command", Text),
    many(4, "args", Text),
    one(5, "workingDir", Text),
    many(6, "ports", Nested(CONTAINER_PORT)),
    many(7, "env", Nested(&[one(1, "name", Text), one(2, "value", Text)])),
    one(8, "resources", Nested(&[])),
    one(13, "terminationMessagePath", Text),
    one(14, "imagePullPolicy", Text),
    one(16, "stdin", Flag),
    one(17, "stdinOnce", Flag),
    one(18, "tty", Flag),
    one(20, "terminationMessagePolicy", Text),
];

const CONTAINER_PORT: Message = &[
    one(1, "name", Text),
    one(2, "hostPort", Number),
    one(3, "containerPort", Number),
    one(4, "protocol", Text),
    one(5, "hostIP", Text),
];

const ROLE: Message = &[
    one(1, "metadata", Nested(METADATA)),
    many(2, "rules", Nested(POLICY_RULE)),
    one(3, "aggregationRule", Nested(&[many(1, "clusterRoleSelectors", Nested(LABEL_SELECTOR))])),
];

const POLICY_RULE: Message = &[
    many(1, "verbs", Text),
    many(2, "apiGroups", Text),
    many(3, "resources", Text),
    many(4, "resourceNames", Text),
    many(5, "nonResourceURLs", Text),
];

const BINDING: Message = &[
    one(1, "metadata", Nested(METADATA)),
    many(
        2,
        "subjects",
        Nested(&[
            one(1, "kind", Text),
            one(2, "apiGroup", Text),
            one(3, "name", Text),
            one(4, "namespace", Text),
        ]),
    ),
    one(3, "roleRef", Nested(&[one(1, "apiGroup", Text), one(2, "kind", Text), one(3, "name", Text)])),
];
