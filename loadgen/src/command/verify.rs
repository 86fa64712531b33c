//! `loadgen verify`.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use loadgen::account::FullAccount;
use loadgen::audit::{Audit, Finding};
use loadgen::child::wait_for;
use loadgen::client::Url;
use loadgen::fleet::now_ms;
use loadgen::send::{Outcome, Progress, RetryRules};
use loadgen::stamped::{StampedConfig, send};

use super::args::{ServerArgs, VerifyArgs};
use super::rig::{Rig, RigConfig, TENANT_LABEL};
use super::send::forward_stop;
use super::text::{Report, counted, figure, grouped, listed, per_second, time};

/// Sends, compares and reports; false when anything is wrong.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<bool> {
    let stop = super::stop_flag()?;
    // Before anything is sent: a proof that cannot be finished is not begun.
    let mut config = config(args)?;
    let rig = args.tls.then(|| rig(&mut config)).transpose()?;
    let account = || match &rig {
        Some(rig) => rig.sink.account().context("the sink keeps no account"),
        None => account(&args.sink.with_tls_of(&config.send.url), config.send.timeout),
    };
    account()?;
    let began = u64::try_from(now_ms()).unwrap_or_default();
    let listen = |progress: &Progress| forward_stop(&stop, progress);
    let (journal, outcome) = send(&config, began, u32::from(args.senders), &Progress::default(), listen)?;
    wait_for(args.settle, || stop.load(Ordering::Relaxed));
    let audit = Audit::new(&journal, &account()?, &config.prefix);
    let holds = audit.holds() && audit.acknowledged > 0;
    write!(io::stdout(), "{}", report(&outcome, &audit))?;
    Ok(holds)
}

fn config(args: &VerifyArgs) -> anyhow::Result<StampedConfig> {
    let mut config = args.stamped.clone();
    config.send = config.send.ready()?;
    let rules = RetryRules { give_up_after: Some(args.give_up_after), ..RetryRules::prometheus(true) };
    config.send.retry = Some(rules);
    Ok(config)
}

/// A server and a sink that speak TLS; senders are told where they are.
fn rig(config: &mut StampedConfig) -> anyhow::Result<Rig> {
    let server = ServerArgs { tls: true, ..ServerArgs::default() };
    let rig = Rig::start(RigConfig { server, full_account: true, ..RigConfig::default() })?;
    config.send.url = rig.server.push_url()?;
    TENANT_LABEL.clone_into(&mut config.tenant_label);
    Ok(rig)
}

/// What a sink tells at /account.
fn account(url: &Url, timeout: Duration) -> anyhow::Result<FullAccount> {
    super::fetch("--sink", url, timeout, "; was the sink started with --account?")
}

fn report(outcome: &Outcome, audit: &Audit) -> Report {
    let mut report = Report::default();
    let samples = figure(per_second(audit.acknowledged, outcome.elapsed));
    let (requests, elapsed) = (counted(outcome.requests, "request"), time(outcome.elapsed));
    report.line("sent", format_args!("{requests} in {elapsed}, {samples} samples/s"));
    settled(&mut report, outcome);
    report.line("samples", listed([(audit.acknowledged, "acknowledged"), (audit.stored, "stored")]));
    for (what, finding) in lawful(audit).into_iter().filter(|(_, finding)| finding.samples > 0) {
        report.line("", format_args!("{} {what}", grouped(finding.samples)));
    }
    if outcome.unknown() > 0 {
        let (there, missing) = (grouped(audit.stored_though_unknown), grouped(audit.missing_as_unknown));
        report.line("", format_args!("of those given up, {there} are stored and {missing} not"));
    }
    if audit.acknowledged == 0 {
        report.line("verified", "NO: nothing was acknowledged");
    } else if audit.holds() {
        let all = "every acknowledged sample is stored where it belongs, in order";
        report.line(
            "verified",
            format_args!("{all}; none is lost, duplicated, misplaced, reordered or invented"),
        );
    } else {
        report.line("verified", "NO");
        faults(audit).into_iter().for_each(|(label, value)| report.line(label, value));
    }
    report
}

/// What was answered, and what came of all requests.
pub(crate) fn settled(report: &mut Report, outcome: &Outcome) {
    report.answers(&outcome.statuses, &outcome.complaints);
    let ends = [
        (outcome.acknowledged(), "acknowledged"),
        (outcome.refused, "refused"),
        (outcome.unknown(), "given up"),
        (outcome.retries(), "sent again"),
    ];
    report.line("settled", listed(ends));
}

/// What the rules of remote write allow, and what is said of it.
pub(crate) fn lawful(audit: &Audit) -> [(&'static str, &Finding); 3] {
    [
        ("stored more than once, of requests without a clear answer", &audit.duplicated_lawfully),
        ("stored late, of requests without a clear answer", &audit.reordered_lawfully),
        ("stored though their requests were refused because of other tenants", &audit.stored_though_refused),
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
    lines
}
