//! Panics of the simulated code: kept from being printed run after run, and remembered with their place.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Once;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, panics of this thread are remembered.
pub(super) struct Watch {
    was_watched: bool,
    was_quiet: bool,
}

impl Watch {
    /// Begins with none; a loud watch lets them be printed as well.
    pub(super) fn start(loud: bool) -> Watch {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if WATCHED.try_with(Cell::get).unwrap_or(false) {
                    remember(info.payload(), info.location());
                }
                if !QUIET.try_with(Cell::get).unwrap_or(false) {
                    before(info);
                }
            }));
        });
        let _ = take();
        Watch { was_watched: WATCHED.replace(true), was_quiet: QUIET.replace(!loud) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.set(self.was_watched);
        QUIET.set(self.was_quiet);
    }
}

fn remember(payload: &(dyn Any + Send), place: Option<&Location<'_>>) {
    let place = place.map_or(String::new(), |place| format!(" at {place}"));
    let _ = SEEN.try_with(|seen| {
        if let Ok(mut seen) = seen.try_borrow_mut() {
            seen.push(format!("panicked{place}: {}", words(payload)));
        }
    });
}

/// The panics since the last look, each with its place.
pub(super) fn take() -> Vec<String> {
    SEEN.with(|seen| std::mem::take(&mut *seen.borrow_mut()))
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    if let Some(words) = panic.downcast_ref::<&str>() {
        (*words).to_owned()
    } else if let Some(words) = panic.downcast_ref::<String>() {
        words.clone()
    } else {
        "a panic without words".to_owned()
    }
}
