//! Parsers for the values of command line options.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::fleet::{Tenants, numbered_tenants};

/// The most tenants: what a body of a few thousand series can still give a share to, in turns.
const TENANTS_MAX: usize = 100_000;

/// A number above 0 and up to `most`.
pub fn number(most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= most);
        number.ok_or_else(|| format!("`{text}` is no number above 0 and up to {most}"))
    }
}

/// A count from 1 to `most`.
pub fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

/// A share of a whole.
///
/// # Errors
/// When it is no number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is no share from 0 to 1"))
}

/// A size of at least `least` bytes: a number, or one such as `4Mi` or `4MiB`.
pub fn bytes(least: u64) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text.get(digits.len()..) {
            Some("") => Some(0),
            Some("Ki" | "KiB") => Some(10),
            Some("Mi" | "MiB") => Some(20),
            Some("Gi" | "GiB") => Some(30),
            _ => None,
        };
        let number = digits.parse::<u64>().ok().zip(shift);
        let bytes = number.and_then(|(number, shift)| number.checked_mul(1 << shift));
        bytes
            .filter(|bytes| *bytes >= least)
            .ok_or_else(|| format!("`{text}` is no size such as 4Mi of at least {least} bytes"))
    }
}

/// A duration, see [`crate::duration`].
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::duration::parse(text).map_err(|error| error.to_string())
}

/// A header, as `NAME=VALUE`.
///
/// # Errors
/// When HTTP cannot carry it.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if header_name(name).is_err() || value.chars().any(char::is_control) {
        return Err(format!("`{text}` cannot be a header"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A header's name.
///
/// # Errors
/// When HTTP cannot carry it.
pub fn header_name(text: &str) -> Result<String, String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || !text.chars().all(is_token) {
        return Err(format!("`{text}` cannot be a header's name"));
    }
    Ok(text.to_owned())
}

/// Tenants: a number, or names with weights as in `payments:5,search:2`.
///
/// # Errors
/// When it is neither, or a name occurs twice.
pub fn tenants(text: &str) -> Result<Tenants, String> {
    match text.parse() {
        Ok(1..=TENANTS_MAX) => Ok(numbered_tenants(text.parse().unwrap_or_default())),
        Ok(_) => Err(format!("there can be 1 to {TENANTS_MAX} tenants")),
        Err(_) => named_tenants(text),
    }
}

/// The names of [`tenants`] alone.
///
/// # Errors
/// See [`tenants`].
pub fn tenant_names(text: &str) -> Result<Vec<String>, String> {
    Ok(tenants(text)?.into_iter().map(|(name, _)| name).collect())
}

fn named_tenants(text: &str) -> Result<Tenants, String> {
    let mut tenants = Tenants::new();
    for part in text.split(',') {
        let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
        let weight: u32 = weight.parse().unwrap_or_default();
        if name.is_empty() || weight == 0 {
            return Err(format!("`{part}` is neither NAME nor NAME:WEIGHT"));
        }
        if tenants.iter().any(|(other, _)| other == name) {
            return Err(format!("`{name}` is there twice"));
        }
        tenants.push((name.to_owned(), weight));
    }
    Ok(tenants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_by_number_and_by_name() {
        assert_eq!(tenants("3").unwrap().len(), 3);
        assert_eq!(tenants("a:5,b").unwrap(), [("a".to_owned(), 5), ("b".to_owned(), 1)]);
        for wrong in ["0", "100001", "a:", "a:0", ":5", "a,a", "", "a,,b"] {
            assert!(tenants(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!((share("0"), share("0.25"), share("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for wrong in ["-0.1", "1.1", "NaN", "10%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_end() {
        assert_eq!(number(3600.0)("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "1e9", "NaN", "s"] {
            assert!(number(3600.0)(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("1024", 1024), ("1Ki", 1024), ("4MiB", 4 << 20), ("2Gi", 2 << 30)] {
            assert_eq!(bytes(1024)(text), Ok(size), "{text}");
        }
        for wrong in ["1023", "", "Mi", "4M", "4 Mi", "-4Mi", "4.5Mi", "18446744073709551615Gi"] {
            assert!(bytes(1024)(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers() {
        assert_eq!(header("X-A=b=c").unwrap(), ("X-A".to_owned(), "b=c".to_owned()));
        for wrong in ["X-A", "=v", "X A=v", "X=a\r\nB: c"] {
            assert!(header(wrong).is_err(), "{wrong:?}");
        }
    }
}
