//! Logs: a sample is a log record, whose body bears the value.

use testkit::proto_otlp::any_value::Value;
use testkit::proto_otlp::{AnyValue, ExportLogsServiceRequest, KeyValue, LogRecord, ResourceLogs, ScopeLogs};

use super::{NAME, Reader, Series, Target, attributes, expect_scope, scope, strange};
use crate::proto::Sample;
use crate::translate::{Unreadable, line, nanoseconds, read_line, read_nanoseconds};

/// `SEVERITY_NUMBER_INFO`.
const INFO: i32 = 9;

pub(super) fn export(targets: &[Target<'_>]) -> ExportLogsServiceRequest {
    let resource = |target: &Target<'_>| {
        let log_records = target.series.iter().flat_map(records).collect();
        ResourceLogs {
            resource: target.resource(),
            scope_logs: vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    };
    ExportLogsServiceRequest { resource_logs: targets.iter().map(resource).collect() }
}

/// The name of a series comes first among the attributes.
fn records(series: &Series<'_>) -> Vec<LogRecord> {
    let mut named = vec![KeyValue::text(NAME, &series.name)];
    named.extend(attributes(&series.labels));
    series.samples.iter().map(|sample| record(sample, named.clone())).collect()
}

fn record(sample: &Sample, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: nanoseconds(sample).cast_unsigned(),
        severity_number: INFO,
        body: Some(AnyValue { value: Some(Value::Text(line(sample))) }),
        attributes,
        ..LogRecord::default()
    }
}

pub(super) fn read(export: ExportLogsServiceRequest, reader: &mut Reader) -> Result<(), Unreadable> {
    for resource in export.resource_logs {
        reader.resource(resource.resource, &resource.schema_url)?;
        for scope in resource.scope_logs {
            expect_scope(scope.scope.as_ref(), &scope.schema_url)?;
            for record in scope.log_records {
                let (name, attributes, sample) = read_record(&record).ok_or_else(|| strange(&record))?;
                reader.item(&name, attributes, sample)?;
            }
        }
    }
    Ok(())
}

fn read_record(found: &LogRecord) -> Option<(String, Vec<KeyValue>, Sample)> {
    let Value::Text(line) = found.body.as_ref()?.value.as_ref()? else { return None };
    let sample = read_nanoseconds(found.time_unix_nano.cast_signed(), read_line(line)?)?;
    let (name, attributes) = found.attributes.split_first()?;
    let is_ours = name.key == NAME && *found == record(&sample, found.attributes.clone());
    is_ours.then_some((name.name()?, attributes.to_vec(), sample))
}
