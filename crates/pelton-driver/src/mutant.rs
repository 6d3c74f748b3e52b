//! Mutants: bugs that other systems shipped, and breaches of this one's own invariants, each behind a switch.
//!
//! They exist in builds with `--cfg pelton_mutants` alone, which `cargo xtask mutants` makes; one build has all
//! of them, and the environment variable [`VARIABLE`] switches one on. In any other build `mutant!` is the
//! constant `false`, and nothing of this is there. What the simulator and the models cannot find is a hole in
//! them: a mutant is never taken out because nothing finds it.

#[cfg(pelton_mutants)]
mod table;

/// True where that mutant is switched on: never, in a build without `--cfg pelton_mutants`.
#[cfg(not(pelton_mutants))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// True where that mutant is switched on. A name that is not in the table does not compile.
#[cfg(pelton_mutants)]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        const NUMBER: usize = $crate::mutant::number_of($name);
        $crate::mutant::is_on(NUMBER)
    }};
}

#[cfg(pelton_mutants)]
pub use on::*;

#[cfg(pelton_mutants)]
mod on {
    use std::sync::OnceLock;

    use super::table::MUTANTS;

    /// The environment variable that names the mutant to switch on.
    pub const VARIABLE: &str = "PELTON_MUTANT";

    /// Who is to find a mutant.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Finder {
        /// The worlds of the simulator.
        Simulator,
        /// The worlds of the simulator that run on completion ports.
        Ports,
        /// A model under loom: the bug is one of memory order, or of the interleaving of threads.
        Loom,
        /// Random scripts on every system, held against a model: what is wrong may be the simulator itself.
        Scripts,
    }

    /// One mutant.
    #[derive(Clone, Copy, Debug)]
    pub struct Mutant {
        /// What selects it.
        pub name: &'static str,
        /// Where the bug comes from.
        pub origin: &'static str,
        /// What it does.
        pub does: &'static str,
        /// What it breaks.
        pub breaks: &'static str,
        /// Who finds it.
        pub finder: Finder,
    }

    /// All of them.
    pub fn mutants() -> &'static [Mutant] {
        MUTANTS
    }

    /// The number of a mutant in the table, at compile time.
    pub const fn number_of(name: &str) -> usize {
        let mut at = 0;
        while at < MUTANTS.len() {
            if same(MUTANTS[at].name.as_bytes(), name.as_bytes()) {
                return at;
            }
            at += 1;
        }
        panic!("no mutant of this name is in the table")
    }

    const fn same(a: &[u8], b: &[u8]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        let mut at = 0;
        while at < a.len() {
            if a[at] != b[at] {
                return false;
            }
            at += 1;
        }
        true
    }

    /// True when the mutant of this number is switched on.
    pub fn is_on(number: usize) -> bool {
        static SELECTED: OnceLock<usize> = OnceLock::new();
        let selected = *SELECTED.get_or_init(|| match std::env::var(VARIABLE) {
            Ok(name) => MUTANTS
                .iter()
                .position(|mutant| mutant.name == name)
                .unwrap_or_else(|| panic!("{VARIABLE}: no mutant is called {name:?}")),
            Err(_) => usize::MAX,
        });
        selected == number
    }
}
