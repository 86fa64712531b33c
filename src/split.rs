//! t
#[derive(Debug, Default, Clone)]
/// t
#[allow(missing_docs)]
pub struct Refused {
    pub missing: u64,
    pub invalid: u64,
    pub samples: u64,
    pub example: Option<String>,
}
