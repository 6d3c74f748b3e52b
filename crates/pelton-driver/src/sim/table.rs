//! What is in flight at a ring or a port, by place and generation: a key that has ended finds nothing, whoever has
//! its place by then.

/// An operation in flight, by place and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

pub(super) struct Table<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(super) fn new() -> Table<T> {
        Table { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn get(&self, key: OpKey) -> Option<&T> {
        let (generation, value) = self.places.get(key.index as usize)?;
        if *generation == key.generation { value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: OpKey) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(key.index as usize)?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    pub(super) fn add(&mut self, value: T) -> OpKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((1, None));
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(value);
        OpKey { index, generation: place.0 }
    }

    pub(super) fn remove(&mut self, key: OpKey) -> Option<T> {
        self.get(key)?;
        let place = &mut self.places[key.index as usize];
        place.0 += 1;
        self.free.push(key.index);
        place.1.take()
    }

    /// All of them, in the order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OpKey, &T)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, value))| {
            let key = OpKey { index: index as u32, generation: *generation };
            value.as_ref().map(|value| (key, value))
        })
    }
}
