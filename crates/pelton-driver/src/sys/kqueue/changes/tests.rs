use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use super::super::wake;
use super::*;
use crate::sys::readiness::WAKE;

/// A kernel queue that is a table, and does what it is told to.
#[derive(Default)]
struct Table {
    filters: RefCell<BTreeMap<(usize, i32), u64>>,
    /// Every change, by the calls in which they came.
    calls: RefCell<Vec<Vec<Event>>>,
    /// What the next calls fail with as a whole, before or after they have done what was asked.
    failures: RefCell<VecDeque<(i32, bool)>>,
    /// Numbers that nothing can be watched on, and why.
    refused: RefCell<BTreeMap<usize, i32>>,
    has_no_user: Cell<bool>,
}

impl Table {
    fn change(&self, change: Event) -> i32 {
        let key = (change.ident, change.filter as i32);
        let mut filters = self.filters.borrow_mut();
        if change.filter == Filter::User && self.has_no_user.get() {
            return errno::EINVAL;
        }
        if change.flags & flags::DELETE != 0 {
            return if filters.remove(&key).is_some() { 0 } else { errno::ENOENT };
        }
        if let Some(&error) = self.refused.borrow().get(&change.ident) {
            return error;
        }
        if change.flags & flags::ADD == 0 && !filters.contains_key(&key) {
            return errno::ENOENT;
        }
        filters.insert(key, change.udata);
        0
    }

    fn watched(&self) -> Vec<(usize, Filter, u64)> {
        let name =
            |number| if number == Filter::Read as i32 { Filter::Read } else { Filter::Write };
        self.filters
            .borrow()
            .iter()
            .map(|(&(raw, filter), &data)| (raw, name(filter), data))
            .collect()
    }
}

impl Calls for Table {
    fn kevent(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, i32> {
        assert_eq!(timeout, Some(Duration::ZERO), "changes wait for nothing");
        self.calls.borrow_mut().push(changes.iter().map(Kevent::told).collect());
        let failure = self.failures.borrow_mut().pop_front();
        if let Some((error, false)) = failure {
            return Err(error);
        }
        for (change, receipt) in changes.iter().map(Kevent::told).zip(&mut *events) {
            assert_ne!(change.flags & flags::RECEIPT, 0, "each is answered");
            let data = self.change(change).into();
            *receipt = Kevent::asking(Event { flags: flags::ERROR, data, ..change });
        }
        failure.map_or(Ok(changes.len()), |(error, _)| Err(error))
    }
}

const fn fd(index: u32, generation: u32) -> Fd {
    Fd { index, generation }
}

/// Every descriptor is open, and its number is ten times its place.
fn open(fd: Fd) -> Option<(RawDescriptor, u64)> {
    Some((fd.index as RawDescriptor * 10, u64::from(fd.generation)))
}

/// Tells of all changes, and gives back what was refused.
fn told(
    changes: &Changes,
    table: &Table,
    number: impl Fn(Fd) -> Option<(RawDescriptor, u64)>,
) -> Result<Vec<Refused>, i32> {
    let mut all = Vec::new();
    let any = changes.tell(table, number, |refused| all.push(refused))?;
    assert_eq!(any, !all.is_empty());
    Ok(all)
}

#[test]
fn what_has_changed_is_told_in_one_call_and_in_its_order() {
    let (table, changes) = (Table::default(), Changes::default());
    assert!(changes.is_empty());
    changes.add(fd(1, 3), Direction::In);
    changes.add(fd(1, 3), Direction::Out);
    changes.add(fd(2, 5), Direction::In);
    assert!(!changes.is_empty() && table.calls.borrow().is_empty(), "nothing is told before");
    assert_eq!(told(&changes, &table, open), Ok(vec![]));
    assert!(changes.is_empty());
    let both = [(10, Filter::Read, 3), (10, Filter::Write, 3), (20, Filter::Read, 5)];
    assert_eq!(table.watched(), both);
    let calls = table.calls.borrow();
    assert_eq!(calls.len(), 1);
    let order: Vec<_> = calls[0].iter().map(|change| (change.ident, change.filter)).collect();
    assert_eq!(order, both.map(|(raw, filter, _)| (raw, filter)));
    assert!(
        calls[0].iter().all(|change| change.flags == flags::ADD | flags::CLEAR | flags::RECEIPT)
    );
}

#[test]
fn a_descriptor_that_is_closed_before_it_is_told_of_is_left_out() {
    let (table, changes) = (Table::default(), Changes::default());
    changes.add(fd(1, 3), Direction::In);
    changes.add(fd(2, 5), Direction::In);
    let number = |fd: Fd| open(fd).filter(|_| fd.index != 1);
    assert_eq!(told(&changes, &table, number), Ok(vec![]));
    assert_eq!(table.watched(), [(20, Filter::Read, 5)]);
}

#[test]
fn a_number_that_is_given_back_and_comes_again_is_watched_for_its_new_owner() {
    let (table, changes) = (Table::default(), Changes::default());
    changes.add(fd(1, 3), Direction::In);
    told(&changes, &table, open).unwrap();
    // Given back, with what was known of sending never told, and attached again in another place.
    changes.add(fd(1, 3), Direction::Out);
    changes.delete(10, Direction::In);
    changes.delete(10, Direction::Out);
    changes.add(fd(4, 7), Direction::In);
    let number = |fd: Fd| match fd.index {
        1 => None,
        _ => Some((10, u64::from(fd.generation))),
    };
    assert_eq!(told(&changes, &table, number), Ok(vec![]), "what was not there is not missed");
    assert_eq!(table.watched(), [(10, Filter::Read, 7)]);
}

#[test]
fn each_refused_filter_is_told_of_by_itself_and_the_others_are_watched() {
    let (table, changes) = (Table::default(), Changes::default());
    table.refused.borrow_mut().insert(20, errno::EINVAL);
    table.refused.borrow_mut().insert(30, errno::EBADF);
    for index in 1..=4 {
        changes.add(fd(index, 3), Direction::In);
    }
    changes.delete(50, Direction::In);
    let refused = told(&changes, &table, open).unwrap();
    let one = |index, errno| Refused { fd: fd(index, 3), direction: Direction::In, errno };
    assert_eq!(refused, [one(2, errno::EINVAL), one(3, errno::EBADF)]);
    assert_eq!(table.watched(), [(10, Filter::Read, 3), (40, Filter::Read, 3)]);
}

#[test]
fn an_interrupted_call_is_made_again_and_one_that_fails_loses_nothing() {
    for applied in [false, true] {
        let (table, changes) = (Table::default(), Changes::default());
        table.failures.borrow_mut().extend([(errno::EINTR, applied), (errno::EINTR, !applied)]);
        changes.add(fd(1, 3), Direction::In);
        changes.delete(70, Direction::Out);
        assert_eq!(told(&changes, &table, open), Ok(vec![]));
        assert_eq!((table.watched().len(), table.calls.borrow().len()), (1, 3));

        table.failures.borrow_mut().push_back((errno::ENOBUFS, applied));
        changes.add(fd(2, 3), Direction::Out);
        changes.delete(10, Direction::In);
        assert_eq!(told(&changes, &table, open), Err(errno::ENOBUFS));
        assert!(!changes.is_empty(), "it is told again");
        assert_eq!(told(&changes, &table, open), Ok(vec![]));
        assert_eq!(table.watched(), [(20, Filter::Write, 3)]);
    }
}

#[test]
fn a_wake_is_a_trigger_that_carries_its_mark_and_a_system_without_one_says_so() {
    let table = Table::default();
    wake::watch(&table).unwrap();
    wake::trigger(&table).unwrap();
    let calls = table.calls.borrow();
    let trigger = calls[1][0];
    assert_eq!(
        (trigger.filter, trigger.fflags, trigger.udata),
        (Filter::User, flags::TRIGGER, WAKE)
    );
    assert_eq!(trigger.ident, calls[0][0].ident);

    let old = Table { has_no_user: Cell::new(true), ..Table::default() };
    assert_eq!(wake::watch(&old), Err(errno::EINVAL));
    wake::watch_pipe(&old, 9).unwrap();
    assert_eq!(old.watched(), [(9, Filter::Read, WAKE)]);
}

#[test]
fn whoever_is_refused_may_ask_for_more_and_nothing_is_mixed_up() {
    let (table, changes) = (Table::default(), Changes::default());
    table.refused.borrow_mut().extend([(10, errno::EBADF), (20, errno::EBADF)]);
    changes.add(fd(1, 3), Direction::In);
    changes.add(fd(2, 5), Direction::In);
    let mut told_of = Vec::new();
    let any = changes.tell(&table, open, |refused| {
        if told_of.is_empty() {
            // As the drop of a buffer may, which an operation owned that nobody waits for.
            changes.add(fd(3, 7), Direction::Out);
            changes.add(fd(4, 9), Direction::Out);
        }
        told_of.push(refused.fd);
    });
    assert_eq!((any, &told_of[..]), (Ok(true), &[fd(1, 3), fd(2, 5)][..]));
    assert_eq!(told(&changes, &table, open), Ok(vec![]));
    assert_eq!(table.watched(), [(30, Filter::Write, 7), (40, Filter::Write, 9)]);
}
