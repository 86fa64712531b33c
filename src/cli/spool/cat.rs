//! `tenantry spool cat`: the records of a spool, or the parts in a file of dead letters.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::folder::{Which, fail, report_damages, upstream_name};
use super::lines::{Lines, read_line};
use crate::cli::capture::shown;
use crate::cli::output::{harmless_line, print_error};
use crate::explain::format_name;
use crate::model::{Protocol, SplitLimits};
use crate::selector::show_series;
use crate::split::{Body, body_of, each_series};
use crate::spool::{Sequence, Spooled, Stream, View};
use crate::text::escaped;

/// The arguments of `tenantry spool cat`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct CatArgs {
    #[command(flatten)]
    which: Which,

    /// Only the records of this tenant
    #[arg(long, value_name = "T")]
    tenant: Option<String>,

    /// At most so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Print each record's series, too, with their labels and numbers of samples
    #[arg(long)]
    series: bool,

    /// A file of dead letters (spool.dead_letter), to be read in place of a spool
    #[arg(value_name = "FILE", conflicts_with_all = ["config", "dir"])]
    file: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &CatArgs) -> Result<ExitCode, ExitCode> {
    let mut printer = Printer {
        args,
        out: BufWriter::new(io::stdout().lock()),
        left: args.limit.unwrap_or(u64::MAX),
        is_complete: true,
    };
    let code = match &args.file {
        Some(file) => {
            // A closed pipe (`| head`) or the limit ends it.
            let _ = printer.dead_letters(file)?;
            ExitCode::SUCCESS
        }
        None => {
            let mut view = args.which.view()?;
            for (stream, _) in view.streams() {
                if printer.stream(&mut view, &stream).is_break() {
                    break;
                }
            }
            report_damages(&view)
        }
    };
    let _ = printer.out.flush();
    Ok(if printer.is_complete { code } else { ExitCode::FAILURE })
}

/// Prints records until the limit.
struct Printer<'a, W> {
    args: &'a CatArgs,
    out: W,
    left: u64,
    /// Whether everything could be read.
    is_complete: bool,
}

impl<W: Write> Printer<'_, W> {
    fn stream(&mut self, view: &mut View, stream: &Stream) -> ControlFlow<()> {
        if !self.is_wanted(stream.tenant.as_str()) {
            return ControlFlow::Continue(());
        }
        let mut after = Sequence(0);
        loop {
            match view.next(stream, after) {
                Ok(Some((sequence, spooled))) => {
                    after = sequence;
                    let mut record = Map::new();
                    record.insert("sequence".into(), sequence.0.into());
                    self.record(record, &spooled)?;
                }
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => {
                    self.note(&error);
                    return ControlFlow::Continue(());
                }
            }
        }
    }

    fn dead_letters(&mut self, file: &Path) -> Result<ControlFlow<()>, ExitCode> {
        let cannot = |error: io::Error| fail(&format_args!("{}: cannot be read: {error}", shown(file)));
        let lines = Lines::new(BufReader::new(File::open(file).map_err(cannot)?));
        for (line, number) in lines.zip(1_u64..) {
            match read_line(&line.map_err(cannot)?.text) {
                Ok((letter, spooled)) if self.is_wanted(spooled.part.tenant.as_str()) => {
                    let mut record = Map::new();
                    record.insert("refused_at".into(), letter.refused_at.into());
                    record.insert("reason".into(), letter.reason.into());
                    if self.record(record, &spooled).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(_) => {}
                Err(error) => self.note(&format_args!("{}: line {number}: {error}", shown(file))),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn is_wanted(&self, tenant: &str) -> bool {
        self.args.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
    }

    /// Reports what cannot be read.
    fn note(&mut self, error: &dyn std::fmt::Display) {
        self.is_complete = false;
        print_error(&escaped(&error.to_string()));
    }

    /// Prints a record, behind what is known besides it.
    fn record(&mut self, mut record: Map<String, Value>, spooled: &Spooled) -> ControlFlow<()> {
        if self.left == 0 {
            return ControlFlow::Break(());
        }
        self.left -= 1;
        let part = &spooled.part;
        record.insert("spooled_at".into(), spooled.spooled_at.into());
        record.insert("tenant".into(), part.tenant.as_str().into());
        record.insert("upstream".into(), upstream_name(&spooled.upstream).into());
        record.insert("protocol".into(), format_name(part.protocol).into());
        record.insert("series".into(), part.series.into());
        record.insert("samples".into(), part.samples.into());
        record.insert("bytes".into(), part.elements.len().into());
        if self.args.series {
            let (content, error) = content(spooled);
            record.insert("content".into(), content);
            if let Some(error) = error {
                self.note(&error);
            }
        }
        match writeln!(self.out, "{}", harmless_line(&Value::Object(record))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// The series of a part with their numbers of samples; and what is wrong with it, if anything is.
fn content(spooled: &Spooled) -> (Value, Option<String>) {
    let part = &spooled.part;
    let body = Body {
        // Parts that came as JSON are protobuf.
        protocol: if part.protocol == Protocol::LokiJson { Protocol::Loki } else { part.protocol },
        compression: part.coding.now,
        bytes: body_of(part),
    };
    let inflated_bytes_max = usize::try_from(part.inflated_bytes).unwrap_or(usize::MAX);
    let limits = SplitLimits { inflated_bytes_max, tenants_max: 1 };
    let mut all = Vec::new();
    let read = each_series(body, limits, usize::MAX, |series| {
        all.push(json!({"series": show_series(series.labels()), "samples": series.samples}));
        ControlFlow::Continue(())
    });
    let error = read.err().map(|error| format!("the series of {} cannot be read: {error}", part.tenant));
    (Value::Array(all), error)
}
