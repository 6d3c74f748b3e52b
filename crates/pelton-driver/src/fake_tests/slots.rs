//! Generations at their end, and the list of slots against a model.

use super::*;
use crate::slot::{Arena, SlotList, State};

#[test]
fn a_generation_that_wraps_is_still_another_generation() {
    let arena = Arena::new(4).unwrap();
    let claim = || arena.claim(Kind::Nop, 0, std::ptr::null_mut()).unwrap();
    let slot = claim();
    slot.generation.set(u32::MAX);
    let old = arena.id(slot);
    arena.release(slot);
    let slot = claim();
    let new = arena.id(slot);
    assert_eq!((old.index(), new.index()), (0, 0), "the same slot");
    assert_eq!(new.generation(), 0);
    assert!(arena.find(old).is_none());
    assert!(arena.find(new).is_some());
    assert_eq!(OpId::from_user_data(new.user_data()), new);
    assert_eq!(OpId::from_user_data(old.user_data()), old);
}

#[test]
fn slots_are_used_again_in_any_order_and_none_is_given_twice() {
    let arena = Arena::new(8).unwrap();
    let mut random = script::Random::new(3);
    let mut claimed = Vec::new();
    for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
        if random.below(2) == 0 {
            let slot = arena.claim(Kind::Nop, 0, std::ptr::null_mut());
            assert_eq!(slot.is_none(), claimed.len() == 8);
            if let Some(slot) = slot {
                let id = arena.id(slot);
                assert!(claimed.iter().all(|other: &OpId| other.index() != id.index()));
                claimed.push(id);
            }
        } else if !claimed.is_empty() {
            let id = claimed.swap_remove(random.below(claimed.len()));
            arena.release(arena.find(id).unwrap());
            assert!(arena.find(id).is_none());
            assert_eq!(arena.get(id.index()).unwrap().state.get(), State::Free);
        }
        assert_eq!(arena.live() as usize, claimed.len());
    }
}

#[test]
fn a_list_of_slots_does_what_a_queue_does() {
    let arena = Arena::new(16).unwrap();
    let slots: Vec<_> =
        (0..16).map(|_| arena.claim(Kind::Nop, 0, std::ptr::null_mut()).unwrap()).collect();
    let lists = [SlotList::new(), SlotList::new()];
    let mut models = [VecDeque::new(), VecDeque::new()];
    let mut random = script::Random::new(5);
    for _ in 0..if cfg!(miri) { 500 } else { 50_000 } {
        let which = random.below(2);
        let (list, slot) = (&lists[which], random.below(16));
        let index = slot as u32;
        match random.below(3) {
            0 if !models.iter().any(|model| model.contains(&index)) => {
                list.push(&arena, slots[slot]);
                models[which].push_back(index);
            }
            1 => {
                let popped = list.pop(&arena).map(|slot| arena.index(slot));
                assert_eq!(popped, models[which].pop_front());
            }
            _ if !models[1 - which].contains(&index) => {
                let there = models[which].contains(&index);
                assert_eq!(list.remove(&arena, slots[slot]), there);
                models[which].retain(|other| *other != index);
            }
            _ => {}
        }
        assert_eq!(list.is_empty(), models[which].is_empty());
        let mut at = list.first(&arena);
        for expected in &models[which] {
            assert_eq!(arena.index(at.unwrap()), *expected);
            at = arena.get(at.unwrap().arg.get());
        }
        assert!(at.is_none());
    }
}

#[test]
#[should_panic = "an operation is in one list at a time"]
fn a_slot_that_is_in_a_list_is_refused_by_every_other_in_release_too() {
    let arena = Arena::new(1).unwrap();
    let slot = arena.claim(Kind::Nop, 0, std::ptr::null_mut()).unwrap();
    let (one, other) = (SlotList::new(), SlotList::new());
    one.push(&arena, slot);
    other.push(&arena, slot);
}
