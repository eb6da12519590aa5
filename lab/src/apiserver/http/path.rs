//! Which resource a URL path names.

use crate::apiserver::registry::Target;
use crate::apiserver::resource::{Resource, by_path};

/// What a path is about.
#[derive(Debug)]
pub(super) enum Route {
    Health,
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1` and `/apis/<group>/<version>`
    Resources {
        group: String,
        version: String,
    },
    OpenApiV2,
    /// `/openapi/v3`, or one of the documents below it.
    OpenApiV3(Option<String>),
    /// `/apis/authentication.k8s.io/v1/tokenreviews`
    TokenReviews,
    Objects(Place),
}

/// A collection, an object, or a subresource of one.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) target: Target,
    /// The subresource; empty for the object itself.
    pub(super) subresource: String,
    /// The path behind the subresource `proxy`, with its slash; empty for all else.
    pub(super) beyond: String,
}

impl Place {
    /// Whether tokens of a ServiceAccount are made there.
    pub(super) fn is_token(&self) -> bool {
        self.target.resource.plural == "serviceaccounts" && self.subresource == "token"
    }
}

/// Reads a path; `None` when there is nothing there.
pub(super) fn route(path: &str) -> Option<Route> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    Some(match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["version"] => Route::Version,
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiV3(None),
        ["openapi", "v3", document @ ..] => Route::OpenApiV3(Some(document.join("/"))),
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", "authentication.k8s.io", "v1", "tokenreviews"] => Route::TokenReviews,
        ["api", version] => Route::Resources { group: String::new(), version: (*version).to_owned() },
        ["apis", group, version] => {
            Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["api", version, rest @ ..] => Route::Objects(place("", version, rest)?),
        ["apis", group, version, rest @ ..] => Route::Objects(place(group, version, rest)?),
        _ => return None,
    })
}

fn place(group: &str, version: &str, rest: &[&str]) -> Option<Place> {
    let find = |plural: &str, namespaced: Option<bool>| -> Option<&'static Resource> {
        by_path(group, version, plural).filter(|row| namespaced.is_none_or(|wanted| row.namespaced == wanted))
    };
    if let ["namespaces", namespace, plural, inner @ ..] = rest
        && let Some(resource) = find(plural, Some(true))
    {
        return within(resource, namespace, inner);
    }
    match rest {
        [plural] => within(find(plural, None)?, "", &[]),
        [plural, inner @ ..] => within(find(plural, Some(false))?, "", inner),
        [] => None,
    }
}

fn within(resource: &'static Resource, namespace: &str, inner: &[&str]) -> Option<Place> {
    let (name, subresource, beyond) = match inner {
        [] => ("", "", String::new()),
        [name] => (*name, "", String::new()),
        [name, "proxy", path @ ..] => (*name, "proxy", format!("/{}", path.join("/"))),
        [name, subresource] => (*name, *subresource, String::new()),
        _ => return None,
    };
    let target = Target { resource, namespace: namespace.to_owned(), name: name.to_owned() };
    Some(Place { target, subresource: subresource.to_owned(), beyond })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(path: &str) -> Option<(&'static str, String, String, String)> {
        match route(path)? {
            Route::Objects(Place { target, subresource, .. }) => {
                Some((target.resource.plural, target.namespace, target.name, subresource))
            }
            _ => None,
        }
    }

    #[test]
    fn paths_of_objects() {
        for (path, plural, namespace, name, subresource) in [
            ("/api/v1/pods", "pods", "", "", ""),
            ("/api/v1/namespaces", "namespaces", "", "", ""),
            ("/api/v1/namespaces/a", "namespaces", "", "a", ""),
            ("/api/v1/namespaces/a/status", "namespaces", "", "a", "status"),
            ("/api/v1/namespaces/a/pods", "pods", "a", "", ""),
            ("/api/v1/namespaces/a/pods/x/status", "pods", "a", "x", "status"),
            ("/apis/apps/v1/namespaces/a/deployments/x/scale", "deployments", "a", "x", "scale"),
            ("/api/v1/nodes/n1", "nodes", "", "n1", ""),
            ("/api/v1/namespaces/a/serviceaccounts/x/token", "serviceaccounts", "a", "x", "token"),
        ] {
            let want = (plural, namespace.to_owned(), name.to_owned(), subresource.to_owned());
            assert_eq!(objects(path), Some(want), "{path}");
        }
    }

    #[test]
    fn behind_a_proxy_any_path_may_follow() {
        for (path, beyond) in [
            ("/api/v1/nodes/n1:8181/proxy/explain", "/explain"),
            ("/api/v1/namespaces/a/pods/x:80/proxy/a/b", "/a/b"),
            ("/api/v1/namespaces/a/pods/x/proxy", "/"),
        ] {
            let Some(Route::Objects(place)) = route(path) else { panic!("{path}") };
            assert_eq!((place.subresource.as_str(), place.beyond.as_str()), ("proxy", beyond), "{path}");
        }
    }

    #[test]
    fn paths_of_nothing() {
        for path in
            ["/", "/api/v1/cats", "/api/v1/pods/x", "/apis/apps/v1/pods", "/api/v1/namespaces/a/nodes/n1"]
        {
            assert!(objects(path).is_none(), "{path}");
        }
    }
}
