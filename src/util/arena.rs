//! An arena with generational keys: a slot is reused, a key never is.

/// Names one value in [`Arena`], from its insertion to its removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The slot. Unique among the values that are present at one time.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// The key as one number, for epoll.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// Values by key. Each access is one index into a vector.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Option<(u32, T)>>,
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
        self.slots[index as usize] = Some((self.generations, value));
        Key {
            index,
            generation: self.generations,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.free.push(key.index);
        self.slots[key.index as usize].take().map(|(_, value)| value)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize)? {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize)? {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The key of the value in this slot.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let (generation, _) = self.slots.get(index as usize)?.as_ref()?;
        Some(Key {
            index,
            generation: *generation,
        })
    }

    /// Number of slots, used or free.
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The content of each slot from this one on.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = Option<&T>> {
        let slots = self.slots.iter().skip(place);
        slots.map(|slot| slot.as_ref().map(|(_, value)| value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.iter_from(0)
    }

    /// All values by slot, from this slot on and then from the first.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = (Key, &T)> {
        let (before, behind) = self.slots.split_at(index.min(self.slots.len()));
        let slots = (index..).zip(behind).chain((0..).zip(before));
        slots.filter_map(|(index, slot)| {
            let (generation, value) = slot.as_ref()?;
            let key = Key {
                index: index as u32,
                generation: *generation,
            };
            Some((key, value))
        })
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
        assert_eq!(slots.key_at(new.index()), Some(new));
        assert_eq!(Key::from_bits(new.to_bits()), new);
        assert_eq!((slots.len(), slots.iter().count()), (1, 1));
        slots.insert("next");
        assert_eq!(
            (slots.places(), slots.from(1).collect::<Vec<_>>()),
            (2, vec![Some(&"next")])
        );
    }
}
