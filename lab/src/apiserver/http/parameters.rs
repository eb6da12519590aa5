//! The query of a request.

use std::collections::HashMap;

use axum::extract::Query;
use axum::http::Uri;

use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::field_selector::FieldSelector;
use crate::apiserver::registry::{ListOptions, Selection, Target, Write};
use crate::apiserver::selector::LabelSelector;

/// The parameters by name.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self> {
        let query = Query::try_from_uri(uri);
        query.map(|Query(map)| Self(map)).map_err(|error| ApiError::BadRequest(error.to_string()))
    }

    /// The text of a parameter; empty when it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Is it set to something that Go reads as true?
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True" | "TRUE" | "t")
    }

    /// The number of a parameter, where there is one.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        match self.text(name) {
            "" => Ok(None),
            text => {
                let number = text.parse();
                number
                    .map(Some)
                    .map_err(|_| ApiError::BadRequest(format!("{name}: {text:?} is not a whole number")))
            }
        }
    }

    /// Is this a request that must change nothing?
    pub(super) fn dry_run(&self) -> Result<bool> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::BadRequest(format!("dryRun: {other:?} is not All"))),
        }
    }

    /// How a write is meant. A client that does not ask for strictness gets none.
    pub(super) fn write(&self) -> Result<Write> {
        Ok(Write { dry_run: self.dry_run()?, strict: self.text("fieldValidation") == "Strict" })
    }

    /// Which objects of the target's collection are meant: the one that the path names, or those selected.
    pub(super) fn selection(&self, target: &Target) -> Result<Selection> {
        let mut fields = self.text("fieldSelector").to_owned();
        if !target.name.is_empty() {
            fields = format!("metadata.name={}", target.name);
        }
        Ok(Selection {
            namespace: target.namespace.clone(),
            labels: LabelSelector::parse(self.text("labelSelector"))?,
            fields: FieldSelector::parse(target.resource, &fields)?,
        })
    }

    /// How to list.
    pub(super) fn list_options(&self, target: &Target) -> Result<ListOptions> {
        let limit = self.number("limit")?.unwrap_or(0);
        Ok(ListOptions {
            selection: self.selection(target)?,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            continue_token: self.text("continue").to_owned(),
        })
    }
}
