//! What a Service asks of its load balancer: MetalLB's annotations, and the fields of the API that say the
//! same.

use std::net::IpAddr;

use weft_types::{FamilyPolicy, LoadBalancer};

use super::{LoadBalancerIngress, ServiceSpec, address};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::resource::metadata::{Metadata, Texts, annotations, labels, resource_version, uid};

/// Where a Service says what it asks for.
const IPS: &str = "the annotation metallb.io/loadBalancerIPs";
const IP: &str = "spec.loadBalancerIP";

/// What a Service asks for. What cannot be read of it is kept with it: who asks for something particular must
/// not get something else.
pub(super) fn read(
    metadata: Field<Metadata>,
    spec: &mut ServiceSpec,
    ingress: &[Field<LoadBalancerIngress>],
    (is_wanted, filter): (bool, &WatchFilter),
    faults: &mut Faults,
) -> LoadBalancer {
    let take = |field: &mut Field<String>| std::mem::take(field);
    let (class, ip) = (take(&mut spec.load_balancer_class), take(&mut spec.load_balancer_ip));
    let policy = take(&mut spec.ip_family_policy);
    let annotations = annotations(&metadata);
    let text = |field: Field<String>| field.or_nothing().filter(|text| !text.is_empty());
    let mut told = Faults::default();
    let requested = told.note(requested_ips(text(annotations.load_balancer_ips()), text(ip)));
    let requested_pool =
        told.note(annotations.address_pool().optional("the annotation metallb.io/address-pool"));
    let mut balancer = LoadBalancer {
        is_wanted,
        class: told.note(class.optional("spec.loadBalancerClass")).flatten().map(Into::into),
        requested_ips: requested.unwrap_or_default().into(),
        requested_pool: requested_pool.flatten().filter(|pool| !pool.is_empty()).map(Into::into),
        problem: None,
        sharing_key: text(annotations.sharing_key()).map(Into::into),
        families: told.note(family_policy(policy)).unwrap_or_default(),
        selector: in_one_text(std::mem::take(&mut spec.selector).or_nothing().unwrap_or_default()),
        uid: uid(&metadata).into(),
        version: resource_version(&metadata).unwrap_or_default().into(),
        has_other_ingress: false,
        left_behind: Box::default(),
        labels: labels(metadata, filter, faults),
    };
    balancer.problem = (!told.is_empty()).then(|| told.to_string().into());
    match is_wanted {
        true => balancer.has_other_ingress = ingress.iter().any(|one| !is_vip(one)),
        false => balancer.left_behind = ingress.iter().filter_map(ip_of).collect(),
    }
    balancer
}

/// A selector, for those who compare it.
fn in_one_text(selector: Texts) -> Box<str> {
    let labels = selector.into_iter().map(|(key, value)| match value.or_nothing() {
        Some(value) => format!("{key}={value}"),
        None => key,
    });
    labels.collect::<Vec<_>>().join(",").into()
}

fn requested_ips(annotation: Option<String>, field: Option<String>) -> Result<Vec<IpAddr>, Fault> {
    let list = |text: String, path: &str| {
        text.split(',').map(|part| address(part.trim(), path)).collect::<Result<Vec<_>, _>>()
    };
    match (annotation, field) {
        (None, None) => Ok(Vec::new()),
        (Some(annotation), None) => list(annotation, IPS),
        (None, Some(field)) => list(field, IP),
        (Some(annotation), Some(field)) => {
            let (one, other) = (list(annotation, IPS)?, list(field, IP)?);
            let problem = || Fault::new(IP, format!("asks for other addresses than {IPS}; use one of them"));
            (one == other).then_some(one).ok_or_else(problem)
        }
    }
}

fn family_policy(field: Field<String>) -> Result<FamilyPolicy, Fault> {
    match field.or_default("spec.ipFamilyPolicy")?.as_str() {
        "" | "SingleStack" => Ok(FamilyPolicy::SingleStack),
        "PreferDualStack" => Ok(FamilyPolicy::PreferDualStack),
        "RequireDualStack" => Ok(FamilyPolicy::RequireDualStack),
        other => {
            let names = "SingleStack, PreferDualStack, RequireDualStack";
            Err(Fault::new("spec.ipFamilyPolicy", format!("{other:?} is none of {names}")))
        }
    }
}

fn ip_of(ingress: &Field<LoadBalancerIngress>) -> Option<IpAddr> {
    let Field::Is(LoadBalancerIngress { ip: Field::Is(ip), .. }) = ingress else { return None };
    address(ip, "").ok()
}

fn is_vip(ingress: &Field<LoadBalancerIngress>) -> bool {
    let has_mode = |ingress: &LoadBalancerIngress| match &ingress.ip_mode {
        Field::Absent => true,
        Field::Is(mode) => mode == "VIP",
        Field::IsNot(_) => false,
    };
    ip_of(ingress).is_some() && matches!(ingress, Field::Is(ingress) if has_mode(ingress))
}

#[cfg(test)]
mod tests;
