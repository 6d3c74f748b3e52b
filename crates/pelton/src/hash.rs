//! Hashing whose seeds come from Pelton: random in production, the same each time in a simulation.
//!
//! std's `RandomState` takes its seed from the real system, so the order in which a `HashMap` with it iterates
//! differs from run to run, also under the simulator. With [`RandomState`] from here it does not.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// A [`BuildHasher`] seeded by [`random`](crate::random), for [`HashMap`] and [`HashSet`].
///
/// ```
/// let mut names: pelton::hash::HashMap<&str, u32> = pelton::hash::HashMap::default();
/// names.insert("one", 1);
/// assert_eq!(names.get("one"), Some(&1));
/// ```
#[derive(Clone, Debug)]
pub struct RandomState {
    seeds: [u64; 2],
}

/// std's map with seeds from here. Made with `default()`.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// std's set with seeds from here. Made with `default()`.
pub type HashSet<T> = std::collections::HashSet<T, RandomState>;

impl RandomState {
    /// A state with seeds of its own.
    pub fn new() -> RandomState {
        RandomState { seeds: [crate::random(), crate::random()] }
    }
}

impl Default for RandomState {
    fn default() -> RandomState {
        RandomState::new()
    }
}

impl BuildHasher for RandomState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        // SipHash with std's fixed keys: the seeds go in front of whatever is hashed, which nobody can undo
        // without knowing them.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seeds[0]);
        hasher.write_u64(self.seeds[1]);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_hashes_alike_and_two_do_not() {
        let (one, other) = (RandomState::new(), RandomState::new());
        assert_eq!(one.hash_one("x"), one.clone().hash_one("x"));
        assert_ne!(one.hash_one("x"), other.hash_one("x"));
        assert_ne!(one.hash_one("x"), one.hash_one("y"));
    }

    #[cfg(feature = "sim")]
    #[test]
    fn in_a_world_the_order_of_a_map_is_the_seeds() {
        use pelton_driver::sim::{World, WorldOptions};
        let order = |seed| {
            let world = World::new(&WorldOptions::new(seed));
            let _entered = world.enter();
            let map: HashMap<u32, ()> = (0..100).map(|n| (n, ())).collect();
            map.into_keys().collect::<Vec<u32>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
