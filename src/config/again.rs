//! What was found when files were read again.
#![forbid(unsafe_code)]

/// What was found in files of one kind. A mistake in one of them does not keep the others from being renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Whether any has something else than before, which is used from now on.
    pub changed: bool,
    /// The mistakes, each one line. What was read before stays in use.
    pub mistakes: Vec<String>,
}

impl Again {
    /// Takes what was read, if it differs from what is `running`.
    pub(super) fn take<T>(&mut self, read: Result<Option<T>, Vec<String>>) -> Option<T> {
        match read {
            Ok(read) => {
                self.changed |= read.is_some();
                read
            }
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                None
            }
        }
    }

    /// Whether nothing was found.
    pub fn is_quiet(&self) -> bool {
        !self.changed && self.mistakes.is_empty()
    }
}
