//! The end of the program, told to all reactors: first to finish what is under way, then to give
//! that up.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    #[default]
    Running,
    /// No new connections; those that are open end with their response.
    Draining,
    /// Everything ends now.
    Ending,
}

/// A stage that any thread may raise and any future wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    waiting: Vec<Waker>,
}

impl Stop {
    /// One stage further; the second signal is the impatient one. Returns the stage that is
    /// reached.
    pub(crate) fn raise(&self) -> Stage {
        let (stage, waiting) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.stage = match state.stage {
                Stage::Running => Stage::Draining,
                Stage::Draining | Stage::Ending => Stage::Ending,
            };
            (state.stage, std::mem::take(&mut state.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        stage
    }

    /// Begins the end, unless it has begun already.
    pub(crate) fn begin(&self) {
        if self.stage() == Stage::Running {
            self.raise();
        }
    }

    /// The stage that is reached.
    pub(crate) fn stage(&self) -> Stage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stage
    }

    /// Ready when `stage` is reached.
    pub(crate) fn poll(&self, stage: Stage, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stage >= stage {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_reached_in_order_and_stay() {
        let stop = Stop::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stop.poll(Stage::Running, &mut cx).is_ready());
        assert!(stop.poll(Stage::Draining, &mut cx).is_pending());
        assert_eq!(stop.clone().raise(), Stage::Draining);
        assert!(stop.poll(Stage::Draining, &mut cx).is_ready());
        assert!(stop.poll(Stage::Ending, &mut cx).is_pending());
        assert_eq!((stop.raise(), stop.raise()), (Stage::Ending, Stage::Ending));
        assert!(stop.poll(Stage::Ending, &mut cx).is_ready());
    }
}
