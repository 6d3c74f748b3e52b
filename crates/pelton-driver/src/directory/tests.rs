//! What becomes of what is told: renames of two halves, losses, and the end of the directory.

use super::*;
use crate::sys::errno;

fn watch(format: Format) -> DirectoryWatch {
    DirectoryWatch {
        fd: Fd { index: 0, generation: 1 },
        _keep: None,
        format,
        buffer: None,
        changes: VecDeque::new(),
        half: None,
        has_gone: false,
    }
}

/// A name as the system writes it.
fn raw(name: &str) -> Vec<u8> {
    if cfg!(windows) {
        name.encode_utf16().flat_map(u16::to_ne_bytes).collect()
    } else {
        name.as_bytes().to_vec()
    }
}

fn all(watch: &mut DirectoryWatch) -> Vec<Change> {
    std::iter::from_fn(|| watch.next()).collect()
}

fn renamed(from: &str, to: &str) -> Change {
    Change::Renamed { from: from.into(), to: to.into() }
}

#[test]
fn the_halves_of_a_rename_come_together_also_across_two_reads() {
    let mut watch = watch(Format::Inotify);
    let (a, b, c) = (raw("a"), raw("b"), raw("c"));
    watch.told(Told::OldName(&a, 1));
    watch.told(Told::NewName(&b, 1));
    watch.told(Told::OldName(&b, 2));
    assert!(watch.has_half_a_rename());
    assert_eq!(all(&mut watch), [renamed("a", "b")]);
    watch.told(Told::NewName(&c, 2));
    assert_eq!(all(&mut watch), [renamed("b", "c")]);
    assert!(!watch.has_half_a_rename());
}

#[test]
fn a_half_that_stays_alone_is_a_removal_or_a_creation_in_its_place() {
    let mut watch = watch(Format::Inotify);
    let (a, b) = (raw("a"), raw("b"));
    // Moved away, and another one made of the same name.
    watch.told(Told::OldName(&a, 1));
    watch.told(Told::Created(&a));
    // Moved here from elsewhere, and away.
    watch.told(Told::NewName(&b, 2));
    watch.told(Told::OldName(&b, 3));
    watch.told(Told::NewName(&a, 4));
    assert_eq!(
        all(&mut watch),
        [
            Change::Removed("a".into()),
            Change::Created("a".into()),
            Change::Created("b".into()),
            Change::Removed("b".into()),
            Change::Created("a".into()),
        ]
    );
    watch.told(Told::OldName(&a, 5));
    watch.settle();
    assert_eq!(all(&mut watch), [Change::Removed("a".into())]);
    watch.told(Told::NewName(&a, 5));
    assert_eq!(all(&mut watch), [Change::Created("a".into())], "too late to belong together");
}

#[test]
fn what_is_lost_is_told_in_its_place_and_once_in_a_row() {
    let mut watch = watch(Format::Records);
    let a = raw("a");
    watch.told(Told::OldName(&a, 0));
    watch.hear(&[]);
    watch.told(Told::Lost);
    watch.hear(&[1, 2, 3]);
    watch.told(Told::Modified(&a));
    watch.told(Told::Lost);
    assert_eq!(
        all(&mut watch),
        [Change::Removed("a".into()), Change::Rescan, Change::Modified("a".into()), Change::Rescan]
    );
}

#[test]
fn an_outcome_gives_its_buffer_back_whatever_it_is() {
    let mut watch = watch(Format::Records);
    watch.take_in((Ok(0), ChangeBuffer::new())).unwrap();
    assert_eq!(all(&mut watch), [Change::Rescan], "a success of nothing is an overflow");
    assert!(watch.buffer.take().is_some());
    let failed = io::Error::from_raw_os_error(errno::ECANCELED);
    let error = watch.take_in((Err(failed), ChangeBuffer::new())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(errno::ECANCELED));
    assert!(watch.buffer.is_some() && watch.next().is_none() && !watch.has_gone());
    // More than there is room for is not believed.
    watch.take_in((Ok(usize::MAX), ChangeBuffer::new())).unwrap();
    assert_eq!(all(&mut watch), [Change::Rescan]);
}

#[test]
fn a_queue_tells_of_no_names() {
    let mut watch = watch(Format::Word);
    watch.hear(&notes::CHANGED.to_ne_bytes());
    assert_eq!((all(&mut watch), watch.has_gone()), (vec![Change::Rescan], false));
    watch.hear(&(notes::CHANGED | notes::GONE).to_ne_bytes());
    assert_eq!((all(&mut watch), watch.has_gone()), (vec![Change::Rescan], true));
}

#[cfg(windows)]
#[test]
fn errors_of_the_system_that_say_lost_or_gone_are_none() {
    let mut watch = watch(Format::Records);
    let failed = |number| (Err(io::Error::from_raw_os_error(number)), ChangeBuffer::new());
    watch.take_in(failed(1022)).unwrap();
    assert_eq!((all(&mut watch), watch.has_gone()), (vec![Change::Rescan], false));
    watch.take_in(failed(5)).unwrap();
    assert_eq!((all(&mut watch), watch.has_gone()), (vec![], true));
}
