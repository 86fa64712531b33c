//! Values that may be left to the server.
#![forbid(unsafe_code)]

use super::{Value, Written};

/// A value, or the word `auto`: then it is `None`, and the server decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Auto<T>(pub(in crate::config) Option<T>);

const WORD: &str = "auto";

impl<T: Value> Value for Auto<T> {
    fn read(written: Written<'_>) -> Result<Self, String> {
        if written.text()?.eq_ignore_ascii_case(WORD) {
            return Ok(Self(None));
        }
        let value = T::read(written).map_err(|error| format!("{error}, and not `{WORD}`"))?;
        Ok(Self(Some(value)))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| WORD.to_owned(), T::show)
    }

    fn is_zero(&self) -> bool {
        self.0.as_ref().is_some_and(T::is_zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_leaves_the_value_to_the_server() {
        let read = |text| Auto::<usize>::read(Written::Variable(text));
        assert_eq!(read("auto"), Ok(Auto(None)));
        assert_eq!(read("AUTO"), Ok(Auto(None)));
        assert_eq!(read("3"), Ok(Auto(Some(3))));
        assert_eq!(read("often"), Err("\"often\" is not a whole number, and not `auto`".to_owned()));
        assert_eq!([Auto(None), Auto(Some(3_usize))].map(|value| value.show()), ["auto", "3"]);
        assert_eq!(
            [Auto(None), Auto(Some(3)), Auto(Some(0_usize))].map(|value| value.is_zero()),
            [false, false, true]
        );
    }
}
