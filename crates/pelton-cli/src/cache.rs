//! The files that a reactor holds open, so that a hot one costs no system call.
//!
//! An entry answers for [`FRESH`] without a question. After that the first request that meets it
//! looks at the file again, on the pool, and the others go on with what is there: a hot file is
//! looked at once a second and never by a herd. What a client sees is therefore at most a second
//! old, plus the time that one look takes. A look that is given up (its client left) leaves the
//! entry stale, and the next request takes over.
//!
//! Time is an argument everywhere, so that tests own it.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::encoding::Preference;
use crate::files::Meta;
use crate::path::SitePath;

/// How long an entry answers without a look at the file.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// An entry that nobody asked for in this time is let go, and its descriptor with it.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// How much a cache may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of small bodies, all together.
    pub(crate) bytes: usize,
    /// Entries that hold a body.
    pub(crate) bodies: usize,
    /// Entries that hold a descriptor.
    pub(crate) descriptors: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 64 << 20, bodies: 8_192, descriptors: 256 }
    }
}

/// A file that can be sent. `F` is a file as the runtime reads it.
#[derive(Debug)]
pub(crate) struct OpenFile<F> {
    pub(crate) meta: Meta,
    pub(crate) content: Content<F>,
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub(crate) enum Content<F> {
    /// In memory.
    Bytes(Bytes),
    /// Behind a descriptor.
    File(Rc<F>),
}

impl<F> Clone for Content<F> {
    fn clone(&self) -> Self {
        match self {
            Content::Bytes(bytes) => Content::Bytes(bytes.clone()),
            Content::File(file) => Content::File(Rc::clone(file)),
        }
    }
}

/// One representation: what was asked for, and what the client takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) path: SitePath,
    pub(crate) preference: Preference,
}

/// What the cache knows.
#[derive(Debug)]
pub(crate) enum Lookup<F> {
    /// Send this.
    Fresh(Rc<OpenFile<F>>),
    /// Look at the file, then call [`Cache::confirm`], [`Cache::insert`], [`Cache::remove`] or
    /// [`Cache::give_up`]. Until then the others are told that it is fresh.
    Stale(Rc<OpenFile<F>>),
    /// Nothing.
    Miss,
}

#[derive(Debug)]
struct Entry<F> {
    key: Rc<Key>,
    file: Rc<OpenFile<F>>,
    checked: Instant,
    used: Instant,
    /// Asked for since the hand passed last.
    touched: bool,
    /// When the look that is under way began.
    looking: Option<Instant>,
}

/// The open files of one reactor.
#[derive(Debug)]
pub(crate) struct Cache<F> {
    limits: Limits,
    places: HashMap<Rc<Key>, usize>,
    entries: Vec<Entry<F>>,
    /// Where the search for something to let go continues (the clock algorithm: an entry that was
    /// asked for since the last round is passed over once).
    hand: usize,
    bytes: usize,
    bodies: usize,
    descriptors: usize,
}

impl<F> Cache<F> {
    pub(crate) fn new(limits: Limits) -> Cache<F> {
        Cache {
            limits,
            places: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
            bytes: 0,
            bodies: 0,
            descriptors: 0,
        }
    }

    /// What is there for `key` at `now`.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Lookup<F> {
        let Some(&place) = self.places.get(key) else { return Lookup::Miss };
        let entry = &mut self.entries[place];
        entry.touched = true;
        entry.used = now;
        let file = Rc::clone(&entry.file);
        let fresh = now.saturating_duration_since(entry.checked) < FRESH;
        // A look that takes longer than it should is not waited for by the whole world: another may
        // try.
        let looked_at =
            entry.looking.is_some_and(|since| now.saturating_duration_since(since) < FRESH);
        if fresh || looked_at {
            return Lookup::Fresh(file);
        }
        entry.looking = Some(now);
        Lookup::Stale(file)
    }

    /// The file is still the one that is held.
    pub(crate) fn confirm(&mut self, key: &Key, now: Instant) {
        if let Some(&place) = self.places.get(key) {
            self.entries[place].checked = now;
            self.entries[place].looking = None;
        }
    }

    /// Holds a file, in place of what was there, if it fits at all.
    pub(crate) fn insert(&mut self, key: Key, file: Rc<OpenFile<F>>, now: Instant) {
        self.remove(&key);
        let (bytes, bodies, descriptors) = Self::weight(&file);
        let limits = self.limits;
        if bytes > limits.bytes || bodies > limits.bodies || descriptors > limits.descriptors {
            return;
        }
        while self.bytes + bytes > limits.bytes
            || self.bodies + bodies > limits.bodies
            || self.descriptors + descriptors > limits.descriptors
        {
            // Only what frees the thing that is short: bodies are no help to one that needs a
            // descriptor.
            self.let_one_go(descriptors > 0);
        }
        self.bytes += bytes;
        self.bodies += bodies;
        self.descriptors += descriptors;
        let key = Rc::new(key);
        self.places.insert(Rc::clone(&key), self.entries.len());
        self.entries.push(Entry {
            key,
            file,
            checked: now,
            used: now,
            touched: false,
            looking: None,
        });
    }

    /// The file is gone.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(&place) = self.places.get(key) {
            self.remove_at(place);
        }
    }

    /// The look at the file was abandoned: the next request takes over.
    pub(crate) fn give_up(&mut self, key: &Key) {
        if let Some(&place) = self.places.get(key) {
            self.entries[place].looking = None;
        }
    }

    /// Lets go what nobody asked for since [`IDLE`]. Costs a walk over all entries: for once in a
    /// while.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            if now.saturating_duration_since(entry.used) >= IDLE {
                self.remove_at(place);
            } else {
                place += 1;
            }
        }
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
            self.places.shrink_to_fit();
        }
    }

    /// Entries now.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of bodies now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes, bodies and descriptors that a file costs.
    fn weight(file: &OpenFile<F>) -> (usize, usize, usize) {
        match &file.content {
            Content::Bytes(bytes) => (bytes.len(), 1, 0),
            Content::File(_) => (0, 0, 1),
        }
    }

    /// Lets one entry of a kind go. There is one, or the limit would not have been reached.
    fn let_one_go(&mut self, with_descriptor: bool) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            let of_this_kind = matches!(entry.file.content, Content::File(_)) == with_descriptor;
            if of_this_kind && !std::mem::take(&mut entry.touched) {
                return self.remove_at(self.hand);
            }
            self.hand += 1;
        }
    }

    fn remove_at(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.key);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(Rc::clone(&moved.key), place);
        }
        let (bytes, bodies, descriptors) = Self::weight(&entry.file);
        self.bytes -= bytes;
        self.bodies -= bodies;
        self.descriptors -= descriptors;
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::encoding::Coding;
    use crate::files::Stamp;

    type TestCache = Cache<&'static str>;

    fn key(path: &str) -> Key {
        Key { path: SitePath::parse(path).unwrap(), preference: Preference::IDENTITY }
    }

    fn meta(len: u64) -> Meta {
        Meta {
            stamp: Stamp {
                len,
                modified: SystemTime::UNIX_EPOCH,
                inode: 1,
                coding: Coding::Identity,
            },
            settled: true,
            etag: http::HeaderValue::from_static("\"x\""),
            last_modified: http::HeaderValue::from_static("x"),
            content_type: http::HeaderValue::from_static("x"),
        }
    }

    fn small(len: usize) -> Rc<OpenFile<&'static str>> {
        let content = Content::Bytes(vec![0; len].into());
        Rc::new(OpenFile { meta: meta(len as u64), content })
    }

    fn large() -> Rc<OpenFile<&'static str>> {
        Rc::new(OpenFile { meta: meta(1 << 30), content: Content::File(Rc::new("descriptor")) })
    }

    fn has(cache: &TestCache, path: &str) -> bool {
        cache.places.contains_key(&key(path))
    }

    /// Everything that must hold between the parts.
    fn check(cache: &TestCache) {
        assert_eq!(cache.places.len(), cache.entries.len());
        let mut sums = (0, 0, 0);
        for (place, entry) in cache.entries.iter().enumerate() {
            assert_eq!(cache.places[&entry.key], place);
            let weight = TestCache::weight(&entry.file);
            sums = (sums.0 + weight.0, sums.1 + weight.1, sums.2 + weight.2);
        }
        assert_eq!(sums, (cache.bytes, cache.bodies, cache.descriptors));
        assert!(cache.bytes <= cache.limits.bytes);
        assert!(cache.bodies <= cache.limits.bodies);
        assert!(cache.descriptors <= cache.limits.descriptors);
    }

    #[test]
    fn an_entry_is_fresh_for_a_second_and_then_one_request_looks_again() {
        let mut cache = TestCache::new(Limits::default());
        let t0 = Instant::now();
        let a = key("/a");
        assert!(matches!(cache.get(&a, t0), Lookup::Miss));
        cache.insert(a.clone(), small(10), t0);
        let just_before = t0 + FRESH - Duration::from_nanos(1);
        assert!(matches!(cache.get(&a, just_before), Lookup::Fresh(_)));
        let t1 = t0 + FRESH;
        assert!(matches!(cache.get(&a, t1), Lookup::Stale(_)));
        assert!(matches!(cache.get(&a, t1), Lookup::Fresh(_)), "a herd");
        cache.confirm(&a, t1);
        assert!(matches!(cache.get(&a, t1 + FRESH / 2), Lookup::Fresh(_)));
        assert!(matches!(cache.get(&a, t1 + FRESH), Lookup::Stale(_)));
        check(&cache);
    }

    #[test]
    fn a_look_that_is_given_up_or_hangs_is_taken_over() {
        let mut cache = TestCache::new(Limits::default());
        let t0 = Instant::now();
        let a = key("/a");
        cache.insert(a.clone(), small(10), t0);
        let t1 = t0 + FRESH;
        assert!(matches!(cache.get(&a, t1), Lookup::Stale(_)));
        cache.give_up(&a);
        assert!(matches!(cache.get(&a, t1), Lookup::Stale(_)));
        // This one never reports.
        assert!(matches!(cache.get(&a, t1 + FRESH / 2), Lookup::Fresh(_)));
        assert!(matches!(cache.get(&a, t1 + FRESH), Lookup::Stale(_)));
    }

    #[test]
    fn what_changed_replaces_and_what_is_gone_goes() {
        let mut cache = TestCache::new(Limits::default());
        let t0 = Instant::now();
        cache.insert(key("/a"), small(10), t0);
        cache.insert(key("/a"), small(30), t0);
        assert_eq!((cache.len(), cache.bytes()), (1, 30));
        cache.insert(key("/a"), large(), t0);
        assert_eq!((cache.len(), cache.bytes(), cache.descriptors), (1, 0, 1));
        cache.remove(&key("/a"));
        cache.remove(&key("/a"));
        assert!(matches!(cache.get(&key("/a"), t0), Lookup::Miss));
        // News of an entry that is not there any more is no news.
        cache.confirm(&key("/a"), t0);
        cache.give_up(&key("/a"));
        check(&cache);
    }

    #[test]
    fn what_was_not_asked_for_goes_first() {
        let limits = Limits { bytes: 30, bodies: 9, descriptors: 9 };
        let mut cache = TestCache::new(limits);
        let t0 = Instant::now();
        for path in ["/a", "/b", "/c"] {
            cache.insert(key(path), small(10), t0);
        }
        cache.get(&key("/a"), t0);
        cache.insert(key("/d"), small(10), t0);
        check(&cache);
        assert!(has(&cache, "/a") && !has(&cache, "/b") && has(&cache, "/d"));
        // One that needs the room of all takes it; one that needs more than all gets nothing.
        cache.insert(key("/e"), small(30), t0);
        assert!(has(&cache, "/e") && cache.len() == 1);
        cache.insert(key("/f"), small(31), t0);
        assert!(has(&cache, "/e") && !has(&cache, "/f"));
        check(&cache);
    }

    #[test]
    fn descriptors_and_bodies_do_not_push_each_other_out() {
        let limits = Limits { bytes: 100, bodies: 2, descriptors: 2 };
        let mut cache = TestCache::new(limits);
        let t0 = Instant::now();
        cache.insert(key("/a"), small(1), t0);
        cache.insert(key("/b"), small(1), t0);
        for path in ["/x", "/y", "/z"] {
            cache.insert(key(path), large(), t0);
            check(&cache);
        }
        assert!(has(&cache, "/a") && has(&cache, "/b"));
        cache.insert(key("/c"), small(0), t0);
        check(&cache);
        assert_eq!((cache.bodies, cache.descriptors), (2, 2));
        let nothing = Limits { bytes: 0, bodies: 0, descriptors: 0 };
        let mut cache = TestCache::new(nothing);
        cache.insert(key("/a"), small(0), t0);
        cache.insert(key("/b"), large(), t0);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn what_nobody_asks_for_is_let_go_in_time() {
        let mut cache = TestCache::new(Limits::default());
        let t0 = Instant::now();
        for path in ["/a", "/b", "/c"] {
            cache.insert(key(path), large(), t0);
        }
        cache.get(&key("/b"), t0 + IDLE / 2);
        cache.sweep(t0 + IDLE - Duration::from_nanos(1));
        assert_eq!(cache.len(), 3);
        cache.sweep(t0 + IDLE);
        check(&cache);
        assert!(cache.len() == 1 && has(&cache, "/b"));
        cache.sweep(t0 + IDLE * 2);
        assert_eq!((cache.len(), cache.descriptors), (0, 0));
    }

    #[test]
    fn the_books_balance_after_any_mixture_of_calls() {
        let limits = Limits { bytes: 200, bodies: 12, descriptors: 5 };
        let mut cache = TestCache::new(limits);
        let t0 = Instant::now();
        let mut state = 0x9e37_79b9_u64;
        for step in 0..5_000u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let draw = state >> 33;
            let path = key(&format!("/{}", draw % 40));
            let now = t0 + Duration::from_millis(step * 20);
            match draw / 40 % 8 {
                0 | 1 => cache.insert(path, small((draw % 60) as usize), now),
                2 => cache.insert(path, large(), now),
                3 => cache.remove(&path),
                4 => cache.confirm(&path, now),
                5 if draw.is_multiple_of(50) => cache.sweep(now),
                _ => drop(cache.get(&path, now)),
            }
            check(&cache);
        }
    }
}
