//! The limit on open files: each connection takes one.
//!
//! A process starts with a soft limit of 1024 on most systems, for programs that keep descriptors in sets
//! of that size; this one does not. It may raise the limit by itself up to the hard one.

use std::fmt;

/// What became of the soft limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "there is no such limit"))]
pub(crate) enum Raised {
    /// It was as high as it may be.
    AtMost(Option<u64>),
    /// It was raised.
    To { before: u64, now: Option<u64> },
    /// It stays, because the system refuses to raise it, or does not have it.
    Refused(Option<u64>),
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |limit: &Option<u64>| limit.map_or("any number of".into(), |n| n.to_string());
        match self {
            Raised::AtMost(limit) => {
                write!(f, "{} open files are allowed, which is the hard limit", number(limit))
            }
            Raised::To { before, now } => write!(
                f,
                "{} open files are allowed, the hard limit; the soft limit was {before}",
                number(now)
            ),
            Raised::Refused(limit) => {
                write!(f, "{} open files are allowed, and it cannot be more", number(limit))
            }
        }
    }
}

/// Raises the soft limit of this process to its hard limit.
#[cfg(unix)]
pub(crate) fn raise() -> Raised {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without a number it is unlimited, and so more than any.
    let Some(before) = limit.current.filter(|_| limit.current != limit.maximum) else {
        return Raised::AtMost(limit.current);
    };
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Raised::To { before, now: limit.maximum },
        Err(_) => Raised::Refused(limit.current),
    }
}

#[cfg(not(unix))]
pub(crate) fn raise() -> Raised {
    Raised::AtMost(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_limit_is_said_with_its_numbers() {
        for (raised, words) in [
            (Raised::AtMost(Some(64)), &["64 open files", "the hard limit"][..]),
            (Raised::To { before: 64, now: Some(4096) }, &["4096 open files", "was 64"]),
            (Raised::To { before: 64, now: None }, &["any number", "was 64"]),
            (Raised::Refused(Some(7)), &["7 open files", "cannot be more"]),
        ] {
            let text = raised.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
