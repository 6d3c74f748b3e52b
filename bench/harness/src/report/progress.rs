//! How far a run is, on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that is drawn between measurements only: no thread of its own disturbs them.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(total: Duration) -> Self {
        let bar = ProgressBar::new(total.as_millis() as u64);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta:>4} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(crate) fn begin(&self, what: &str) {
        if self.0.is_hidden() {
            eprintln!("{what}");
        }
        self.0.set_message(what.to_owned());
        self.0.tick();
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.inc(by.as_millis() as u64);
    }

    /// There is more to do than was thought.
    pub(crate) fn extend(&self, by: Duration) {
        self.0.inc_length(by.as_millis() as u64);
    }

    pub(crate) fn note(&self, what: &str) {
        if self.0.is_hidden() {
            eprintln!("{what}");
        }
        self.0.println(what);
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
