//! `loadgen verify`.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadgen::account::FullAccount;
use loadgen::audit::{Audit, Finding};
use loadgen::client::{Url, get};
use loadgen::send::{Outcome, Progress, Retry, RetryRules, SendConfig};
use loadgen::stamped::{StampedConfig, send};
use serde_json::json;

use super::args::VerifyArgs;
use super::send::{answers, forward_stop, now_ms, status_name};
use super::text::{counted, grouped, per_second, rate, time};

/// Sends, compares and reports; false when anything is wrong.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<bool> {
    let stop = super::stop_flag()?;
    // Before anything is sent: a proof that cannot be finished is not begun.
    account(&args.sink, args.timeout)?;
    let began = u64::try_from(now_ms()).unwrap_or_default();
    let listen = |progress: &Progress| forward_stop(&stop, progress);
    let (journal, outcome) =
        send(&config(args), began, u32::from(args.senders), &Progress::default(), listen)?;
    wait(args.settle, &stop);
    let audit = Audit::new(&journal, &account(&args.sink, args.timeout)?, &args.prefix);
    let holds = audit.holds() && audit.acknowledged > 0;
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{}", as_json(&outcome, &audit, holds))?;
    } else {
        write!(out, "{}", report(&outcome, &audit))?;
    }
    Ok(holds)
}

fn config(args: &VerifyArgs) -> StampedConfig {
    let per_request = args.tenants_per_request.and_then(|count| usize::try_from(count).ok());
    StampedConfig {
        send: SendConfig {
            url: args.url.clone(),
            headers: args.headers.clone(),
            duration: Some(args.duration),
            requests: None,
            rate: None,
            retry: Retry::Bounded(RetryRules {
                retry_429: !args.no_retry_429,
                give_up_after: args.give_up_after,
                ..RetryRules::default()
            }),
            timeout: args.timeout,
            server: None,
        },
        format: args.format,
        tenants: args.tenants.0.iter().map(|(name, _)| name.clone()).collect(),
        tenant_label: args.tenant_label.clone(),
        tenants_per_request: per_request.unwrap_or(usize::MAX),
        tenant_header: args.tenant_header.clone(),
        prefix: args.prefix.clone(),
        series: args.series,
        requests: args.requests,
        interval: args.interval.unwrap_or_default(),
        pulse: None,
    }
}

/// What a sink tells at /account.
fn account(url: &Url, timeout: Duration) -> anyhow::Result<FullAccount> {
    let (status, body) = get(url, timeout).with_context(|| format!("--sink: no answer from {url}"))?;
    if status != 200 {
        bail!("--sink: {url} answers {status}; was the sink started with --account?");
    }
    serde_json::from_slice(&body).with_context(|| format!("--sink: {url} shows no account of a sink"))
}

#[expect(clippy::disallowed_methods, reason = "the command's own thread has nothing else to do")]
fn wait(time: Duration, stop: &AtomicBool) {
    let begun = Instant::now();
    while begun.elapsed() < time && !stop.load(Ordering::Relaxed) {
        thread::sleep(time.saturating_sub(begun.elapsed()).min(Duration::from_millis(50)));
    }
}

/// The report for a person.
fn report(outcome: &Outcome, audit: &Audit) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| text.push_str(&format!("{label:<10} {value}\n"));
    let attempts = match outcome.retries() {
        0 => String::new(),
        again => format!(", {} sent again", grouped(again)),
    };
    let samples = rate(per_second(audit.acknowledged, outcome.elapsed));
    line(
        "sent",
        format!(
            "{} in {}{attempts}, {samples} samples/s",
            counted(outcome.requests, "request"),
            time(outcome.elapsed)
        ),
    );
    for (label, value) in answered_and_settled(outcome) {
        line(label, value);
    }
    line(
        "samples",
        format!("{} acknowledged, {} stored", grouped(audit.acknowledged), grouped(audit.stored)),
    );
    for (what, finding) in lawful(audit) {
        if finding.samples > 0 {
            line("", format!("{} {what}", grouped(finding.samples)));
        }
    }
    if outcome.unknown() > 0 {
        let there = grouped(audit.stored_though_unknown);
        line(
            "",
            format!("of those given up, {there} are stored and {} not", grouped(audit.missing_as_unknown)),
        );
    }
    if audit.acknowledged == 0 {
        line("verified", "NO: nothing was acknowledged".to_owned());
    } else if audit.holds() {
        let all = "every acknowledged sample is stored where it belongs, in order";
        line("verified", format!("{all}; none is lost, duplicated, misplaced, reordered or invented"));
    } else {
        line("verified", "NO".to_owned());
        for (label, value) in faults(audit) {
            line(label, value);
        }
    }
    text
}

/// What the rules of remote write allow, and what is said of it.
pub(crate) fn lawful(audit: &Audit) -> [(&'static str, &Finding); 5] {
    [
        ("stored again, lawfully: nobody could know that they were stored", &audit.duplicated_as_unknown),
        (
            "stored again, lawfully: their requests failed in another part and were sent again",
            &audit.duplicated_with_others,
        ),
        (
            "stored again, lawfully: the same, over another connection and perhaps by another server",
            &audit.duplicated_elsewhere,
        ),
        ("stored late, lawfully: of requests without a clear answer", &audit.reordered_lawfully),
        (
            "stored though their requests were refused: lawful where other parts of them were",
            &audit.stored_though_refused,
        ),
    ]
}

/// What is wrong, with examples.
pub(crate) fn faults(audit: &Audit) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for (name, finding) in audit.faults() {
        if finding.samples == 0 {
            continue;
        }
        lines.push((name, counted(finding.samples, "sample")));
        lines.extend(finding.examples.iter().map(|example| ("", format!("  {example}"))));
    }
    if audit.damaged > 0 {
        lines.push(("damaged", counted(audit.damaged, "sample")));
        lines.extend(audit.damaged_examples.iter().map(|example| ("", format!("  {example}"))));
    }
    if audit.untracked > 0 {
        let untracked = counted(audit.untracked, "sample");
        lines.push(("untracked", format!("{untracked} that the sink had no room to keep account of")));
    }
    lines
}

/// What requests were answered, and how they ended.
pub(crate) fn answered_and_settled(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let mut lines = vec![("answers", answers(&outcome.statuses))];
    let complaint = |(&status, text): (&u16, &String)| ("", format!("{}: {text}", status_name(status)));
    lines.extend(outcome.complaints.iter().map(complaint));
    let settled = format!(
        "{} acknowledged, {} refused, {} given up",
        grouped(outcome.acknowledged()),
        grouped(outcome.refused),
        grouped(outcome.unknown())
    );
    lines.push(("settled", settled));
    lines
}

/// The same for a program.
fn as_json(outcome: &Outcome, audit: &Audit, holds: bool) -> serde_json::Value {
    json!({
        "elapsed_ms": outcome.elapsed.as_secs_f64() * 1e3,
        "requests": requests_as_json(outcome),
        "statuses": outcome.statuses,
        "complaints": outcome.complaints,
        "verified": holds,
        "audit": audit,
    })
}

/// How many requests there were, and how they ended.
pub(crate) fn requests_as_json(outcome: &Outcome) -> serde_json::Value {
    json!({
        "settled": outcome.requests,
        "attempts": outcome.attempts(),
        "acknowledged": outcome.acknowledged(),
        "refused": outcome.refused,
        "unknown": outcome.unknown(),
    })
}
