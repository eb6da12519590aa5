//! What can be wrong with a request, and the `Status` object that says so to the client.

use serde_json::{Value, json};
use thiserror::Error;

use super::resource::Resource;

/// One field of an object that the server does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The path of the field, as `spec.ports[0].port`.
    pub(crate) field: String,
    /// The machine-readable reason: `FieldValueRequired`, `FieldValueInvalid`…
    pub(crate) reason: &'static str,
    /// What a person reads, without the field.
    pub(crate) message: String,
}

impl Cause {
    /// A value that cannot stand there.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {value}: {detail}");
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// A value that must be there.
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        let message = format!("Required value{colon}{detail}");
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A value that may stand only once.
    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {value}"),
        }
    }

    /// A value that is none of those that may stand there.
    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<_> = supported.iter().map(|word| format!("{word:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// A value that may not change or may not stand there at all.
    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {detail}") }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// No object of that name.
    #[error("{resource} {name:?} not found")]
    NotFound { resource: String, name: String },
    /// No such path.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// An object of that name is there already.
    #[error("{resource} {name:?} already exists")]
    AlreadyExists { resource: String, name: String },
    /// Somebody else changed the object first, or it is another object than the client means.
    #[error("Operation cannot be fulfilled on {resource} {name:?}: {detail}")]
    Conflict { resource: String, name: String, detail: String },
    /// The object breaks a rule of its kind.
    #[error("{kind} {name:?} is invalid: {}", describe(causes))]
    Invalid { kind: &'static str, name: String, causes: Vec<Cause> },
    /// The request may not be served in this state.
    #[error("{resource} {name:?} is forbidden: {detail}")]
    Forbidden { resource: String, name: String, detail: String },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The resource version is older than the history, or of another server.
    #[error("{0}")]
    Expired(String),
    /// The verb is not for this path.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The body is in a format that the server does not read.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// The body is larger than the server takes.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// Nobody answers behind `proxy`.
    #[error("error trying to reach service: {0}")]
    Unreachable(String),
}

/// What a request answers.
pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// There is no such object.
    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::NotFound { resource: resource.qualified(), name: name.to_owned() }
    }

    /// The object is not the one that the client has seen.
    pub(crate) fn conflict(resource: &Resource, name: &str, detail: impl Into<String>) -> Self {
        Self::Conflict { resource: resource.qualified(), name: name.to_owned(), detail: detail.into() }
    }

    /// The HTTP status code.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Forbidden { .. } => 403,
            Self::NotFound { .. } | Self::NoSuchPath => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists { .. } | Self::Conflict { .. } => 409,
            Self::Expired(_) => 410,
            Self::TooLarge(_) => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::Invalid { .. } => 422,
            Self::Unreachable(_) => 503,
        }
    }

    /// The reason as clients compare it (apimachinery `StatusReason`).
    fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Forbidden { .. } => "Forbidden",
            Self::NotFound { .. } | Self::NoSuchPath => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } => "Conflict",
            Self::Expired(_) => "Expired",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Invalid { .. } => "Invalid",
            Self::Unreachable(_) => "ServiceUnavailable",
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. }
            | Self::Forbidden { resource, name, .. } => {
                let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
                json!({"name": name, "group": group, "kind": plural})
            }
            Self::Invalid { kind, name, causes } => {
                let causes: Vec<_> = causes
                    .iter()
                    .map(|cause| {
                        json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
                    })
                    .collect();
                json!({"name": name, "kind": kind, "causes": causes})
            }
            _ => json!({}),
        }
    }

    /// The `Status` object of this error.
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "reason": self.reason(), "details": self.details(),
            "code": self.code(),
        })
    }
}

fn describe(causes: &[Cause]) -> String {
    let each: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match each.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resource::named;

    #[test]
    fn a_missing_object_is_named_with_its_group() {
        let status = ApiError::not_found(named("deployments"), "web").status();
        assert_eq!(status["message"], r#"deployments.apps "web" not found"#);
        assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
        assert_eq!(status["code"], 404);
    }

    #[test]
    fn an_invalid_object_names_every_field() {
        let causes = vec![
            Cause::invalid("spec.ports[0].port", &json!(0), "must be between 1 and 65535, inclusive"),
            Cause::required("spec.selector", ""),
        ];
        let error = ApiError::Invalid { kind: "Service", name: "web".to_owned(), causes };
        let want = "Service \"web\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 \
                    and 65535, inclusive, spec.selector: Required value]";
        assert_eq!(error.to_string(), want);
        assert_eq!(error.status()["details"]["causes"][1]["field"], "spec.selector");
    }
}
