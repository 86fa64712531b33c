//! Numbers, lines and tables as people read them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use console::{measure_text_width, style};
use indicatif::{DecimalBytes, HumanCount};

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number that is not negative: three digits that say something, thousands grouped.
pub(crate) fn figure(number: f64) -> String {
    let decimals = match number {
        _ if !number.is_finite() => return "–".to_owned(),
        _ if number == 0.0 || number >= 99.95 => return grouped(whole(number)),
        _ if number >= 9.995 => 1,
        _ if number >= 0.9995 => 2,
        _ if number >= 0.099_95 => 3,
        _ => 4,
    };
    format!("{number:.decimals$}")
}

/// `count` over `time`, per second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// `part` of `whole`; 0 of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
pub(crate) fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// Bytes in the unit that leaves one to three digits before the point.
pub(crate) fn bytes(count: u64) -> String {
    DecimalBytes(count).to_string()
}

/// A time in milliseconds or seconds.
pub(crate) fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 1000.0 { format!("{} ms", figure(ms)) } else { format!("{} s", figure(ms / 1e3)) }
}

/// `1 tenant`, `2 tenants`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `3 sent, 2 stored`.
pub(crate) fn listed<'a>(counts: impl IntoIterator<Item = (u64, &'a str)>) -> String {
    let told = |(count, what)| format!("{} {what}", grouped(count));
    counts.into_iter().map(told).collect::<Vec<_>>().join(", ")
}

/// How often which status was answered; 0 is no answer.
fn answers(statuses: &BTreeMap<u16, u64>) -> String {
    let told =
        statuses.iter().map(|(&status, &count)| format!("{}: {}", status_name(status), grouped(count)));
    let all: Vec<String> = told.collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

pub(crate) fn status_name(status: u16) -> String {
    if status == 0 { "no answer".to_owned() } else { status.to_string() }
}

/// A report: lines, each with a label before it.
#[derive(Debug, Default)]
pub(crate) struct Report(String);

impl Report {
    pub(crate) fn line(&mut self, label: &str, value: impl Display) {
        self.0.push_str(&format!("{} {value}\n", style(format!("{label:<10}")).dim()));
    }

    /// What was answered, and why where it was not 2xx.
    pub(crate) fn answers(&mut self, statuses: &BTreeMap<u16, u64>, complaints: &BTreeMap<u16, String>) {
        self.line("answers", answers(statuses));
        for (&status, complaint) in complaints {
            self.line("", format_args!("{}: {complaint}", status_name(status)));
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rows under a head; the first column to the left, the others to the right.
#[derive(Debug)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new<T: Into<String>>(head: impl IntoIterator<Item = T>) -> Self {
        Self(vec![head.into_iter().map(Into::into).collect()])
    }

    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }

    /// The same in Markdown; `align` is `---` to have all columns to the left, `---:` for figures.
    pub(crate) fn markdown(&self, align: &str) -> String {
        let cell = |cell: &String| cell.replace('|', "\\|").replace('<', "&lt;").replace('\n', "<br>");
        let line =
            |row: &Vec<String>| format!("| {} |\n", row.iter().map(cell).collect::<Vec<_>>().join(" | "));
        let mut lines: Vec<String> = self.0.iter().map(line).collect();
        let columns = self.0.first().map_or(0, Vec::len);
        lines.insert(1, format!("|---|{}\n", format!("{align}|").repeat(columns.saturating_sub(1))));
        lines.concat()
    }
}

/// For a terminal.
impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| measure_text_width(cell)).max().unwrap_or_default()
        };
        for (index, row) in self.0.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(width(column).saturating_sub(measure_text_width(cell)));
                match column {
                    0 => line.extend([cell.as_str(), &pad]),
                    _ => line.extend(["  ", &pad, cell.as_str()]),
                }
            }
            let line = line.trim_end();
            if index == 0 { writeln!(f, "{}", style(line).dim())? } else { writeln!(f, "{line}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 1500, 12_345_678].map(bytes), ["0 B", "999 B", "1.50 kB", "12.35 MB"]);
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(time(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!(counted(1, "tenant"), "1 tenant");
        let numbers = [0.0, 0.01234, 0.1234, 1.234, 12.34, 123.4, 1_234_567.0, f64::NAN];
        let texts = ["0", "0.0123", "0.123", "1.23", "12.3", "123", "1,234,567", "–"];
        assert_eq!(numbers.map(figure), texts);
    }

    #[test]
    fn a_table_is_aligned_and_its_markdown_is_escaped() {
        let mut table = Table::new(["who", "what"]);
        table.row(["a", "1"]);
        table.row(["longer", "x|<y\nz"]);
        let plain = console::strip_ansi_codes(&table.to_string()).into_owned();
        assert!(plain.starts_with("who       what\na            1\n"), "{plain}");
        let markdown = "| who | what |\n|---|---:|\n| a | 1 |\n| longer | x\\|&lt;y<br>z |\n";
        assert_eq!(table.markdown("---:"), markdown);
    }
}
