//! Waits for handles, by the thread pool and by wait packets. Wine has no wait packets: what stands in for them here
//! keeps to what the system says of them, so that this side of the calls runs.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::sync::Mutex;
use std::time::Duration;

use windows_sys::Win32::System::Threading::{CreateEventW, SetEvent};

use super::*;
use crate::sys::Room;
use crate::{Backend, Config, Driver, Fd, Key, OwnedDescriptor, Plain, Submission, Token};

/// The packets that are played: the handle, and what waits.
static PLAYED: Mutex<Vec<(usize, Played)>> = Mutex::new(Vec::new());

struct Played {
    wait: usize,
    /// Lives as long as the process: the callback may come at any time.
    signal: &'static PlayedSignal,
}

struct PlayedSignal {
    port: usize,
    key: usize,
    place: usize,
    state: AtomicU32,
}

unsafe extern "system" fn played_create(packet: *mut HANDLE, _: u32, _: *const c_void) -> NTSTATUS {
    // SAFETY: no attributes and no name; the caller has room for a handle.
    unsafe { *packet = CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) };
    0
}

unsafe extern "system" fn played_signalled(context: *mut c_void, _: bool) {
    // SAFETY: it lives as long as the process.
    let signal = unsafe { &*context.cast::<PlayedSignal>() };
    signal.state.store(POSTED, Ordering::Release);
    let place = std::ptr::without_provenance(signal.place);
    let port = std::ptr::without_provenance_mut(signal.port);
    // SAFETY: the test's driver outlives what waits in it.
    unsafe { PostQueuedCompletionStatus(port, 0, signal.key, place) };
}

unsafe extern "system" fn played_associate(
    packet: HANDLE,
    port: HANDLE,
    handle: HANDLE,
    key: *mut c_void,
    place: *mut c_void,
    status: NTSTATUS,
    information: usize,
    at_once: *mut u8,
) -> NTSTATUS {
    assert_eq!((status, information), (0, 0));
    let signal = PlayedSignal {
        port: port.addr(),
        key: key.addr(),
        place: place.addr(),
        state: AtomicU32::new(ARMED),
    };
    let signal: &'static PlayedSignal = Box::leak(Box::new(signal));
    let mut wait = std::ptr::null_mut();
    let context = (&raw const *signal).cast();
    let flags = WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD;
    // SAFETY: the handle is open, and the context lives as long as the process.
    unsafe {
        *at_once = 0;
        let played = Some(played_signalled as unsafe extern "system" fn(*mut c_void, bool));
        assert_ne!(
            RegisterWaitForSingleObject(&mut wait, handle, played, context, INFINITE, flags),
            0
        );
    }
    PLAYED.lock().unwrap().push((packet.addr(), Played { wait: wait.addr(), signal }));
    0
}

/// What the system says of a packet that is not under way.
const CANCELLED: NTSTATUS = 0xC000_0120_u32 as NTSTATUS;

unsafe extern "system" fn played_cancel(packet: HANDLE, remove: u8) -> NTSTATUS {
    assert_eq!(remove, 1, "a packet that is in the queue still is to be taken out of it");
    let mut played = PLAYED.lock().unwrap();
    let Some(at) = played.iter().position(|(number, _)| *number == packet.addr()) else {
        return CANCELLED;
    };
    let (_, Played { wait, signal }) = played.swap_remove(at);
    // SAFETY: it is registered, and unregistered here once.
    unsafe { UnregisterWaitEx(std::ptr::without_provenance_mut(wait), INVALID_HANDLE_VALUE) };
    if signal.state.load(Ordering::Acquire) == POSTED { CANCELLED } else { 0 }
}

const PLAYED_CALLS: Calls =
    Calls { create: played_create, associate: played_associate, cancel: played_cancel };

/// An event that somebody sets, or that is set from the start.
struct Event(OwnedHandle);

impl Event {
    fn new(is_set: bool) -> Event {
        // SAFETY: no attributes and no name; it is ours when it is there.
        unsafe {
            let event = CreateEventW(std::ptr::null(), 1, is_set.into(), std::ptr::null());
            assert!(!event.is_null());
            Event(OwnedHandle::from_raw_handle(event))
        }
    }

    fn set(&self) {
        // SAFETY: it is open.
        assert_ne!(unsafe { SetEvent(self.0.as_raw_handle()) }, 0);
    }

    fn attach(&self, driver: &Driver) -> Fd {
        driver.attach(OwnedDescriptor::from(self.0.try_clone().unwrap())).unwrap()
    }
}

fn room(driver: &Driver) -> &Iocp {
    let Room::Iocp(iocp) = driver.room() else { panic!("another room") };
    iocp
}

/// A driver that waits in each way.
fn each_way(mut test: impl FnMut(&Driver)) {
    for played in [None, Some(PLAYED_CALLS)] {
        let config = Config { backend: Backend::Iocp, ..Config::default() };
        let driver = Driver::new(config).unwrap();
        room(&driver).signals.played.set(played);
        test(&driver);
        assert_eq!((driver.operations(), driver.counters().stale.get()), (0, 0));
        assert!(room(&driver).signals.waits.borrow().is_empty());
        let notifier = driver.notifier();
        drop(driver);
        assert_eq!(notifier.counters().leaked.get(), 0);
    }
}

fn wait(driver: &Driver, fd: Fd, interest: Interest) -> Key<Plain> {
    driver.submit(Submission::poll(fd, interest), Token::NONE).unwrap()
}

fn end(driver: &Driver, key: Key<Plain>) -> io::Result<usize> {
    driver.finish(key, Some(Duration::from_secs(20)), |_| {}).unwrap()
}

/// Ticks, and says how often an operation was told of.
fn settle(driver: &Driver, key: &Key<Plain>) -> usize {
    let mut told = 0;
    for _ in 0..5 {
        let short = Some(Duration::from_millis(2));
        driver.tick(short, |completion| told += usize::from(completion.id == key.id())).unwrap();
    }
    told
}

/// Waits until the packet of the only wait has been posted, without a tick.
fn posted(driver: &Driver) {
    let began = std::time::Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is posted");
        let waits = room(driver).signals.waits.borrow();
        let state = match waits.values().next().expect("it waits") {
            Wait::Pool { signal, .. } => signal.state.load(Ordering::Acquire),
            Wait::Packet { packet, .. } => {
                let played = PLAYED.lock().unwrap();
                let (_, played) =
                    played.iter().find(|(number, _)| *number == packet.addr()).unwrap();
                played.signal.state.load(Ordering::Acquire)
            }
        };
        if state == POSTED {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_handle_is_readable_when_it_is_signalled_and_once() {
    each_way(|driver| {
        let event = Event::new(false);
        let fd = event.attach(driver);
        let key = wait(driver, fd, Interest::Readable);
        assert_eq!((settle(driver, &key), driver.is_done(&key)), (0, false));
        event.set();
        assert_eq!(end(driver, key).unwrap(), 1);
        // One that is signalled already.
        assert_eq!(end(driver, wait(driver, fd, Interest::Readable)).unwrap(), 1);
        driver.close(fd);
    });
}

#[test]
fn a_wait_that_is_cancelled_in_time_posts_nothing_later() {
    each_way(|driver| {
        let event = Event::new(false);
        let fd = event.attach(driver);
        for _ in 0..10 {
            let key = wait(driver, fd, Interest::Readable);
            assert!(driver.cancel(key.id()));
            let said = end(driver, key).unwrap_err();
            assert_eq!(said.raw_os_error(), Some(errno::ECANCELED));
        }
        // The slot is another operation's when the handle is signalled.
        let far = driver.now() + Duration::from_secs(1000);
        let timer = driver.submit(Submission::timeout(far), Token::NONE).unwrap();
        event.set();
        assert_eq!((settle(driver, &timer), driver.is_done(&timer)), (0, false));
        driver.abandon(timer);
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
        driver.close(fd);
    });
}

#[test]
fn a_cancel_that_comes_after_the_packet_leaves_the_end_to_that() {
    each_way(|driver| {
        let event = Event::new(false);
        let fd = event.attach(driver);
        let key = wait(driver, fd, Interest::Readable);
        event.set();
        posted(driver);
        assert!(driver.cancel(key.id()));
        assert!(!driver.is_done(&key), "its slot is the packet's still");
        assert_eq!(settle(driver, &key), 1);
        assert_eq!(end(driver, key).unwrap(), 1);
        driver.close(fd);
    });
}

#[test]
fn a_wait_goes_with_its_descriptor_and_with_its_driver() {
    each_way(|driver| {
        let event = Event::new(false);
        let (fd, other) = (event.attach(driver), event.attach(driver));
        let key = wait(driver, fd, Interest::Readable);
        driver.close(fd);
        assert_eq!(end(driver, key).unwrap_err().raw_os_error(), Some(errno::ECANCELED));
        driver.abandon(wait(driver, other, Interest::Readable));
        driver.tick(Some(Duration::ZERO), |_| {}).unwrap();
    });
    for played in [None, Some(PLAYED_CALLS)] {
        let event = Event::new(false);
        let driver = Driver::new(Config { backend: Backend::Iocp, ..Config::default() }).unwrap();
        room(&driver).signals.played.set(played);
        let left = wait(&driver, event.attach(&driver), Interest::Readable);
        let notifier = driver.notifier();
        drop(driver);
        drop(left);
        event.set();
        assert_eq!(notifier.counters().leaked.get(), 0);
    }
}

#[test]
fn what_says_nothing_by_being_signalled_is_refused() {
    each_way(|driver| {
        let path = std::env::temp_dir().join(format!("pelton-signals-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let file = driver.attach(file.into()).unwrap();
        let said = end(driver, wait(driver, file, Interest::Readable)).unwrap_err();
        assert_eq!(said.raw_os_error(), Some(errno::ENOTSOCK));
        driver.close(file);
        std::fs::remove_file(path).unwrap();
        let event = Event::new(true).attach(driver);
        let said = end(driver, wait(driver, event, Interest::Writable)).unwrap_err();
        assert_eq!(said.raw_os_error(), Some(errno::EINVAL));
        driver.close(event);
    });
}
