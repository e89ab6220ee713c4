//! An arena with generational keys: a slot is reused, a key never is.

/// Names one value in [`Arena`], from its insertion to its removal: its slot in the lower half, its generation above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// The slot. Unique among the values that are present at one time.
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    /// The key as one number, for epoll.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// Values by key. Each access is one index into a vector.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Option<(Key, T)>>,
    free: Vec<u32>,
    /// Never 0, so that the bits of a key are never a small number.
    generations: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generations: 0,
        }
    }
}

impl<T> Arena<T> {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.generations = self.generations.wrapping_add(1).max(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let key = Key(u64::from(self.generations) << 32 | u64::from(index));
        self.slots[index as usize] = Some((key, value));
        key
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        let (_, value) = slot.take_if(|(known, _)| *known == key)?;
        self.free.push(key.index());
        Some(value)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let (known, value) = self.slots.get(key.index() as usize)?.as_ref()?;
        (*known == key).then_some(value)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (known, value) = self.slots.get_mut(key.index() as usize)?.as_mut()?;
        (*known == key).then_some(value)
    }

    /// The value in this slot, and its key.
    pub(crate) fn at(&self, index: u32) -> Option<(Key, &T)> {
        let (key, value) = self.slots.get(index as usize)?.as_ref()?;
        Some((*key, value))
    }

    /// The values in at most `most` slots from this one on; `None` after the last slot.
    pub(crate) fn slice(&self, index: usize, most: usize) -> Option<impl Iterator<Item = (Key, &T)>> {
        let slots = self.slots.get(index..).filter(|slots| !slots.is_empty())?;
        Some(slots.iter().take(most).flatten().map(|(key, value)| (*key, value)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.iter_from(0)
    }

    /// All values by slot, from this slot on and then from the first.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = (Key, &T)> {
        let (before, after) = self.slots.split_at(index.min(self.slots.len()));
        let slots = after.iter().chain(before).flatten();
        slots.map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reused_slot_is_not_found_by_old_key() {
        let mut slots = Arena::default();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        assert_eq!(slots.remove(old), None);
        let new = slots.insert("new");
        assert_eq!(old.index(), new.index());
        assert_eq!((slots.get(old), slots.get(new)), (None, Some(&"new")));
        assert_eq!(slots.at(new.index()), Some((new, &"new")));
        assert_eq!(Key::from_bits(new.to_bits()), new);
        assert_eq!((slots.len(), slots.iter().count()), (1, 1));
        let next = slots.insert("next");
        let slice = |from| slots.slice(from, 9).map(Iterator::collect::<Vec<_>>);
        assert_eq!((slice(1), slice(2)), (Some(vec![(next, &"next")]), None));
    }
}
