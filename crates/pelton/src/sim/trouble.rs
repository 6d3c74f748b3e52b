//! Partitions and crashes by chance, each a choice of the seed that is told in one line.

use std::time::Duration;

use super::scene::{Action, Sim};

/// How often there is an occasion.
const PERIOD: Duration = Duration::from_millis(100);

/// How long trouble lasts, in milliseconds; the first is the dull one.
const LENGTHS: [u64; 10] = [50, 100, 200, 350, 500, 750, 1_000, 2_000, 5_000, 10_000];

/// How often there is trouble, in millionths of the occasions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) partitions: u32,
    pub(super) crashes: u32,
}

impl Sim {
    /// Plans the next occasion, where there is to be any.
    pub(super) fn plan_trouble(&self, rates: Rates) {
        if rates.partitions > 0 || rates.crashes > 0 {
            self.plan(self.elapsed() + PERIOD, Action::Trouble(rates));
        }
    }

    /// An occasion.
    pub(super) fn trouble(&self, rates: Rates) {
        self.cut_by_chance(rates.partitions);
        self.crash_by_chance(rates.crashes);
        self.plan_trouble(rates);
    }

    fn cut_by_chance(&self, rate: u32) {
        let names = self.names();
        if rate == 0 || names.len() < 2 {
            return;
        }
        let world = self.world();
        if !world.chance("partition", 0, rate, String::new) {
            return;
        }
        let mut pairs = Vec::new();
        for (at, one) in names.iter().enumerate() {
            pairs.extend(names[at + 1..].iter().map(|other| (one.clone(), vec![other.clone()])));
        }
        if names.len() > 2 {
            for one in &names {
                let others = names.iter().filter(|other| *other != one).cloned().collect();
                pairs.push((one.clone(), others));
            }
        }
        let detail = |label, n| world.choose(label, 0, n, |_| String::new());
        let (one, others) = pairs.swap_remove(detail("partition of", pairs.len() as u64) as usize);
        let (begin, length) = self.when("partition", 0);
        let end = begin + length;
        world.tell("partition", 0, begin, || {
            let what = match &others[..] {
                [other] => format!("the network between {one} and {other} was cut"),
                _ => format!("{one} was cut off from all others"),
            };
            format!("{what} for {length:?}")
        });
        let (a, b) = (one, others);
        self.plan(begin, Action::Cut(a.clone(), b.clone()));
        self.plan(end, Action::Heal(a, b));
    }

    fn crash_by_chance(&self, rate: u32) {
        if rate == 0 {
            return;
        }
        let world = self.world();
        for (number, name) in self.host_names().into_iter().enumerate() {
            let who = number as u64;
            if !self.is_up(&name) || !world.chance("crash", who, rate, String::new) {
                continue;
            }
            let (begin, length) = self.when("crash", who);
            world.tell("crash", who, begin, || format!("{name} lost power for {length:?}"));
            self.plan(begin, Action::Crash(name.clone()));
            self.plan(begin + length, Action::Restart(name));
        }
    }

    /// When trouble begins, and how long it lasts.
    fn when(&self, what: &'static str, who: u64) -> (Duration, Duration) {
        let (starts, lasts) = match what {
            "crash" => ("crash starts", "crash lasts"),
            _ => ("partition starts", "partition lasts"),
        };
        let world = self.world();
        let after = world.choose(starts, who, PERIOD.as_millis() as u64, |_| String::new());
        let length = world.choose(lasts, who, LENGTHS.len() as u64, |_| String::new());
        let begin = self.elapsed() + Duration::from_millis(after);
        (begin, Duration::from_millis(LENGTHS[length as usize]))
    }
}
