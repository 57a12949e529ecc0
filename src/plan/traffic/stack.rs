//! Stack distances: how many others were there since a user was there last.
//!
//! Users stand in a row in the order of their last request. A tree of counts over the row (Fenwick 1994) says in
//! `O(log n)` how many stand behind one. Moving to the end leaves a hole; when the row is full of holes it is closed up.

/// The row. Slots number the users; a freed slot may be used for another.
pub(super) struct Stack {
    /// Sums of marks, Fenwick's way; `tree[0]` is not used.
    tree: Vec<u32>,
    /// Who stands at each place; `NOBODY` in holes.
    owners: Vec<u32>,
    /// Where each slot stands; `NOBODY` for those who do not.
    places: Vec<u32>,
    users: u32,
}

const NOBODY: u32 = u32::MAX;

impl Stack {
    /// For slots below `slots`. The row is four times as long, so that closing up costs a constant a request.
    pub fn new(slots: usize) -> Self {
        let length = 4 * slots.max(1);
        Self { tree: vec![0; length + 1], owners: Vec::with_capacity(length), places: vec![NOBODY; slots], users: 0 }
    }

    /// Moves a user to the end and says how many stood behind; `None` for one who comes.
    pub fn touch(&mut self, slot: u32) -> Option<u32> {
        let behind = self.leave(slot);
        if self.owners.len() + 1 == self.tree.len() {
            self.close_up();
        }
        let place = self.owners.len() as u32;
        self.owners.push(slot);
        self.places[slot as usize] = place;
        self.users += 1;
        self.add(place, 1);
        behind
    }

    /// Takes a user out of the row and says how many stood behind.
    pub fn leave(&mut self, slot: u32) -> Option<u32> {
        let place = std::mem::replace(&mut self.places[slot as usize], NOBODY);
        if place == NOBODY {
            return None;
        }
        let behind = self.users - self.up_to(place);
        self.owners[place as usize] = NOBODY;
        self.users -= 1;
        self.add(place, -1);
        Some(behind)
    }

    fn add(&mut self, place: u32, mark: i32) {
        let mut at = place as usize + 1;
        while let Some(sum) = self.tree.get_mut(at) {
            *sum = sum.wrapping_add_signed(mark);
            at += at & at.wrapping_neg();
        }
    }

    /// Users at this place and before.
    fn up_to(&self, place: u32) -> u32 {
        let (mut at, mut sum) = (place as usize + 1, 0);
        while at > 0 {
            sum += self.tree[at];
            at &= at - 1;
        }
        sum
    }

    fn close_up(&mut self) {
        self.owners.retain(|&owner| owner != NOBODY);
        self.tree.fill(0);
        for place in 0..self.owners.len() as u32 {
            self.places[self.owners[place as usize] as usize] = place;
            self.add(place, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Stack;

    proptest! {
        #[test]
        fn distances_are_those_of_a_plain_list(steps in proptest::collection::vec((0_u32..12, 0..8), 0..300)) {
            let (mut stack, mut list) = (Stack::new(12), Vec::new());
            for (slot, what) in steps {
                let place = list.iter().position(|&other| other == slot);
                let behind = place.map(|place| (list.len() - place - 1) as u32);
                place.map(|place| list.remove(place));
                if what == 0 {
                    prop_assert_eq!(stack.leave(slot), behind);
                } else {
                    prop_assert_eq!(stack.touch(slot), behind);
                    list.push(slot);
                }
            }
        }
    }
}
