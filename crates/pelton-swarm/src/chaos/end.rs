//! The end: the faults stop, everything is closed, and nothing may be left.

use std::time::Duration;

use pelton::sim::Kind;
use pelton_driver::Seam;

use super::op::What;
use super::{Chaos, Dice};

/// Ticks until everything has ended, at most.
const MOST_TICKS: usize = 4_000;

impl Chaos {
    pub(super) fn end(self: std::rc::Rc<Chaos>) -> Result<(), (Kind, String)> {
        self.ending.set(true);
        self.world.set_faults(false);
        self.world.heal_all();
        let hard = self.world.choose("hard end", 0, 3, |_| "drivers dropped as they were".into());
        if !self.failed() && hard != 2 {
            self.wind_up();
        }
        let wrong = |chaos: &Chaos| {
            let _ = chaos.failed();
            chaos.wrong.borrow_mut().take()
        };
        if let Some(wrong) = wrong(&self) {
            return Err(wrong);
        }
        let world = self.world.clone();
        let registry = self.registry().clone();
        let counters: Vec<_> = self
            .sides
            .iter()
            .map(|side| (side.notifier.clone(), side.driver.seam() == Seam::Readiness))
            .collect();
        for side in &self.sides {
            // Leases outlive their driver, now and then.
            if hard != 1 {
                side.leases.borrow_mut().clear();
            }
        }
        drop(self);
        let mut steps = 0;
        while steps < 10_000 && world.step() {
            steps += 1;
        }
        let violation = |what: String| Err((Kind::Violation, what));
        if let Some(what) = registry.wrong() {
            return violation(what);
        }
        if registry.live() > 0 {
            return violation(format!("{} buffers were never dropped", registry.live()));
        }
        for (notifier, readiness) in counters {
            let counters = notifier.counters().snapshot();
            let stale = if readiness { 0 } else { counters.stale };
            if counters.leaked + stale + counters.orphans > 0 {
                return violation(format!("a driver left something behind: {counters:?}"));
            }
            if counters.in_flight_total() > 0 || counters.buffers_in_use > 0 {
                return violation(format!("a driver has something in flight: {counters:?}"));
            }
        }
        match world.leftovers().into_iter().next() {
            Some(left) => violation(left),
            None => Ok(()),
        }
    }

    fn wind_up(&self) {
        let dice = Dice::new(self.world.seed());
        let gentle = dice.one_in(2);
        // Now and then nobody waits, and the world goes on in between.
        let polled = dice.one_in(4);
        for side in 0..self.sides.len() {
            let at = &self.sides[side];
            for (descriptor, known) in at.detached.take() {
                self.gone(&known);
                drop(descriptor);
            }
            let descs = at.descs.borrow().len();
            for desc in 0..descs {
                if at.descs.borrow()[desc].open {
                    self.close(side, desc, &dice);
                }
            }
            for op in at.ops.borrow_mut().values_mut() {
                op.cancelled = true;
            }
            if gentle {
                // The closes end what is on descriptors.
                let loose = |op: &super::op::Op| op.desc.is_none().then_some(op.id);
                let ids: Vec<_> = at.ops.borrow().values().filter_map(loose).collect();
                self.with(side, |driver| {
                    ids.into_iter().for_each(|id| {
                        driver.cancel(id);
                    })
                });
            } else {
                self.with(side, |driver| driver.cancel_all());
            }
            while !at.leases.borrow().is_empty() {
                self.drop_lease(side, 0);
            }
        }
        let mut ticks = 0;
        loop {
            let mut left = 0;
            for side in 0..self.sides.len() {
                if polled {
                    self.tick(side, Duration::ZERO);
                    if !self.world.step() {
                        self.world.advance(self.world.now() + Duration::from_millis(10));
                    }
                } else {
                    self.tick(side, Duration::from_millis(10));
                }
                self.take_told(side, &dice);
                let driver = &self.sides[side].driver;
                left += driver.operations() + driver.descriptors();
                while !self.sides[side].leases.borrow().is_empty() {
                    self.drop_lease(side, 0);
                }
                self.close_new(side, &dice);
            }
            if left == 0 || self.failed() {
                break;
            }
            ticks += 1;
            if ticks > MOST_TICKS {
                self.stuck();
                break;
            }
        }
        for side in &self.sides {
            let in_use = side.driver.counters().buffers_in_use.get();
            if in_use > 0 {
                self.wrong(format!("{in_use} buffers of the pool are still in use"));
            }
        }
    }

    /// Takes whatever has been told of, and nothing else: what is never told of is missed.
    fn take_told(&self, side: usize, dice: &Dice) {
        let told: Vec<usize> = {
            let ops = self.sides[side].ops.borrow();
            ops.iter().filter(|(_, op)| op.told).map(|(token, _)| *token).collect()
        };
        for token in told {
            self.take(side, token, dice);
        }
    }

    /// Closes what was accepted meanwhile.
    fn close_new(&self, side: usize, dice: &Dice) {
        let descs = self.sides[side].descs.borrow().len();
        for desc in 0..descs {
            let open = self.sides[side].descs.borrow()[desc].open;
            if open {
                self.close(side, desc, dice);
            }
        }
    }

    fn stuck(&self) {
        for (number, side) in self.sides.iter().enumerate() {
            for op in side.ops.borrow().values() {
                let done = op.key.is_done(&side.driver);
                let what = match &op.what {
                    What::Write { .. } => "a write".to_owned(),
                    what => format!("{what:?}"),
                };
                self.wrong(format!(
                    "stuck: with the faults off, {what} of driver {number} ({}) was never told of (done: {done})",
                    side.driver.backend()
                ));
            }
            let (operations, descriptors) = (side.driver.operations(), side.driver.descriptors());
            if operations + descriptors > 0 {
                self.wrong(format!(
                    "stuck: with the faults off, driver {number} ({}) keeps {operations} operations and {descriptors} descriptors",
                    side.driver.backend()
                ));
            }
        }
        if let Some((kind, _)) = &mut *self.wrong.borrow_mut() {
            *kind = Kind::Stuck;
        }
    }
}
