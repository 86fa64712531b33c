//! Explains one series.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use serde_json::{Value, json};

use super::place::Place;
use super::sender::Sender;
use super::told::Told;
use crate::auth::Login;
use crate::config::Plan;
use crate::model::Destination;
use crate::selector::{Malformed, Series};
use crate::tenant::{Decision, TenantError};

/// What happens to one series, and why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The series, or the labels of a stream.
    pub series: Series,
    /// What is decided.
    pub decision: Decision,
    /// What the deciding rule says, on one line of harmless text.
    pub rule: Option<String>,
    /// Where it is sent, if it has a tenant.
    pub place: Option<Place>,
    /// What its sender is told, if it has none.
    pub told: Option<Told>,
}

/// Explains where a series goes, or a stream with entries that have no structured metadata, or a resource whose scopes
/// and items have no attributes.
pub fn explain(plan: &Plan, series: Series, sender: &Sender, destination: Destination) -> Explained {
    let rules = plan.tenant_rules(destination);
    let decision = rules.decide(
        |name| series.value_of(name).map(Cow::Borrowed),
        sender.source.as_deref(),
        &sender.grant,
        plan.removes_label(destination),
    );
    let (place, told) = match &decision.tenant {
        Ok(tenant) => (Some(Place::of(plan, tenant, sender, destination)), None),
        Err(error) => (None, Told::of_series(plan, destination, &name_of(&series, destination), error)),
    };
    let rule = decision.rule.map(|rule| rules.describe(rule));
    Explained { series, decision, rule, place, told }
}

/// As error texts name it.
fn name_of(series: &Series, destination: Destination) -> Vec<u8> {
    match destination {
        Destination::Metrics => series.value_of(b"__name__").unwrap_or(b"no name").to_vec(),
        Destination::Logs => series.to_string().into_bytes(),
        Destination::OtlpMetrics | Destination::OtlpLogs | Destination::OtlpTraces => {
            series.value_of(b"service.name").unwrap_or(b"no service.name").to_vec()
        }
    }
}

impl Explained {
    /// All of it as JSON: the answer of `GET /api/v1/explain`.
    pub fn json(&self) -> Value {
        let Self { series, decision, rule, place, told } = self;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let label = decision.label.as_ref();
        let (header, headers) = place.as_ref().map(Place::headers_json).unwrap_or_default();
        json!({
            "series": series.to_string(),
            "decision": decision.word(),
            "tenant": decision.tenant.as_ref().ok().map(|tenant| tenant.as_str()),
            "label": label.map(|label| text(&label.name)),
            "label_value": label.map(|label| text(&label.value)),
            "rule": decision.rule.map(|kind| json!({"kind": kind.kind(), "detail": rule})),
            "reason": decision.tenant.as_ref().err().map(TenantError::to_string),
            "upstream": place.as_ref().map(|place| &place.upstream),
            "target": place.as_ref().map(|place| &place.target),
            "header": header,
            "headers": headers,
            "label_removed": decision.label_removed,
            "answer": told.as_ref().map(Told::json),
        })
    }
}

/// Explains where the series that `series` describes goes, as JSON. `source` is the tenant header of its request.
/// Access rules are left out, as they depend on the credentials of the sender.
///
/// # Errors
/// If the text is not a series; says what is wrong, and where.
pub fn explain_json(
    plan: &Plan,
    series: &str,
    source: Option<&str>,
    destination: Destination,
) -> Result<Value, String> {
    let series = Series::parse(series).map_err(|error: Malformed| error.to_string())?;
    let sender = Sender::new(plan, source, Login::None).map_err(|denied| denied.to_string())?;
    Ok(explain(plan, series, &sender, destination).json())
}
