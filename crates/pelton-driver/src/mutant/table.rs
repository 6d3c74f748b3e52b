//! The table of mutants: what each does, where it comes from, and what it breaks.

use super::on::{Finder, Mutant};

const fn sim(
    name: &'static str,
    origin: &'static str,
    does: &'static str,
    breaks: &'static str,
) -> Mutant {
    Mutant { name, origin, does, breaks, finder: Finder::Simulator }
}

const fn loom(
    name: &'static str,
    origin: &'static str,
    does: &'static str,
    breaks: &'static str,
) -> Mutant {
    Mutant { name, origin, does, breaks, finder: Finder::Loom }
}

const fn scripts(name: &'static str, does: &'static str, breaks: &'static str) -> Mutant {
    Mutant { name, origin: "own", does, breaks, finder: Finder::Scripts }
}

const fn ports(name: &'static str, does: &'static str, breaks: &'static str) -> Mutant {
    Mutant { name, origin: "own", does, breaks, finder: Finder::Ports }
}

pub(super) const MUTANTS: &[Mutant] = &[
    sim(
        "ioxide-92",
        "ioxide #92",
        "A connection past the table's capacity panics instead of being refused.",
        "A full table refuses; those inside go on.",
    ),
    sim(
        "ioxide-93",
        "ioxide #93",
        "A receive that finds no buffer ends with `ENOBUFS`.",
        "Want of buffers is a stall, not an end.",
    ),
    sim(
        "ioxide-94",
        "ioxide #94",
        "The future of a task that panicked is not dropped.",
        "Whatever a task owned is released when it ends, however it ends.",
    ),
    sim(
        "ioxide-96",
        "ioxide #96",
        "Every notification enters the kernel.",
        "At most one wake enters the kernel between two waits.",
    ),
    sim(
        "ioxide-220",
        "ioxide #220",
        "An interrupted wait is an error of the tick.",
        "A spurious or interrupted wait ends nothing.",
    ),
    sim(
        "ioxide-221",
        "ioxide #221",
        "What a send owns is dropped when it is abandoned.",
        "The kernel's memory stays untouched until the last completion.",
    ),
    sim(
        "ioxide-222",
        "ioxide #222",
        "An accept that runs out of descriptors is tried again at once.",
        "Accepting pauses while there is no room.",
    ),
    sim(
        "ioxide-242",
        "ioxide #242",
        "A name of a descriptor is looked up by its place alone.",
        "No operation acts on a descriptor after its close, nor on the next one in its place.",
    ),
    sim(
        "ioxide-244",
        "ioxide #244",
        "The end of the stream fails the sends in flight at once.",
        "A send ends with its completion, whatever the peer does.",
    ),
    sim(
        "libxev-169",
        "libxev #169",
        "Leaving a list does not clear the link, nor does entering one.",
        "A slot is in one list, with a link of its own.",
    ),
    sim(
        "libxev-224",
        "libxev #224",
        "A tick that does not wait hands nothing to the kernel.",
        "Every tick submits what is staged.",
    ),
    sim(
        "libxev-227",
        "libxev #227",
        "A notice finds its operation by the slot's number, whatever is there now.",
        "A notice is for the operation that made it, once.",
    ),
    sim(
        "libxev-234",
        "libxev #234",
        "A batch of readiness is dispatched to whoever was parked when it began.",
        "Only what is in flight still is completed.",
    ),
    sim(
        "libxev-237",
        "libxev #237, #230",
        "A cancel looks neither at the target's state nor at its generation.",
        "Cancelling what has ended does nothing.",
    ),
    sim(
        "libxev-231",
        "libxev #237, #231",
        "A descriptor on which something was cancelled is not closed.",
        "A descriptor is closed on every way out.",
    ),
    sim(
        "reseau-107",
        "Reseau #107",
        "A wait does not look at the timers while an operation is in flight.",
        "A deadline fires whatever else is waited for.",
    ),
    sim(
        "reseau-134",
        "Reseau #134",
        "A cancel that was too late retires its target.",
        "Only the last completion ends an operation.",
    ),
    sim(
        "compio-315",
        "compio #315",
        "A connection that an abandoned accept brings is not closed.",
        "What comes for nobody is closed.",
    ),
    sim(
        "compio-769",
        "compio #769",
        "Outcomes that nobody took are not dropped with the driver.",
        "A driver leaves nothing behind.",
    ),
    loom(
        "compio-948",
        "compio #948",
        "The drain clears the ticket of a woken task with a plain store.",
        "A wake is seen by the poll that it led to, or leads to another.",
    ),
    sim(
        "compio-984",
        "compio #984",
        "A post waits on its own thread until there is room in the queue.",
        "To push never waits for whoever drains.",
    ),
    sim(
        "multishot-dropped-at-first",
        "compio, by reading (drop with a multishot operation)",
        "Any completion of an abandoned multishot operation is taken for its last.",
        "An operation ends with the completion that has no `MORE`.",
    ),
    sim(
        "close-is-no-barrier",
        "compio and monoio, by reading",
        "A driver is freed with operations in flight.",
        "Closing a ring is no barrier: the memory outlives what is in flight.",
    ),
    sim(
        "cancel-lost-when-full",
        "compio, by reading",
        "A cancel that finds the submission queue full is not submitted.",
        "Nothing that was staged is lost.",
    ),
    sim(
        "send-reused-early",
        "ioxide #221, #244",
        "A cancelled send gives its buffer back at once.",
        "The kernel's memory stays untouched until the last completion.",
    ),
    sim(
        "user-data-without-generation",
        "tokio #8112",
        "The kernel carries the slot's number alone.",
        "A cancel or completion reaches the operation that it names, or none.",
    ),
    loom(
        "latch-plain-store",
        "ioxide #96",
        "The wake latch is cleared by a load and a store.",
        "A raise is seen by the drain, or keeps the owner awake.",
    ),
    sim(
        "done-becomes-orphan",
        "own",
        "A done slot that is abandoned becomes an orphan.",
        "States are matched exactly: nothing completes a done slot again.",
    ),
    sim(
        "generation-not-bumped",
        "own",
        "A slot is used again under the same generation.",
        "Old names name nothing.",
    ),
    sim(
        "cancel-removes",
        "own",
        "A cancelled receive ends at once.",
        "Cancelling moves nothing: the last completion does.",
    ),
    sim(
        "send-from-zero",
        "own",
        "The rest of a short send begins at the buffer's start again.",
        "Each byte is sent once, in order.",
    ),
    sim(
        "hangup-forgotten",
        "own",
        "After a hang-up a short receive still means that the stream is empty.",
        "No further edge comes after a hang-up.",
    ),
    sim(
        "overflow-not-looked-at",
        "own",
        "Whether completions wait in the kernel is not looked at before a tick that does not wait.",
        "A full completion queue keeps the rest in the kernel, and the next tick fetches it.",
    ),
    sim(
        "buffer-given-back-twice",
        "own",
        "A buffer is put into the ring, or the free list, twice.",
        "A buffer belongs to one side, once.",
    ),
    sim(
        "buffer-offered-while-leased",
        "own",
        "A buffer goes back with the first of the leases on its parts.",
        "A buffer goes back when no lease holds a part of it.",
    ),
    sim(
        "piece-forgotten",
        "own",
        "A lease on a piece begins at its buffer's start.",
        "No two leases overlap.",
    ),
    sim(
        "multishot-not-rearmed",
        "own",
        "A multishot operation that the kernel stopped stays as it is.",
        "Want of room in the completion queue is not the end of an operation.",
    ),
    sim(
        "watch-not-rearmed",
        "own",
        "The poll of the wake source is not armed again when the kernel has stopped it.",
        "A wake reaches a driver that sleeps.",
    ),
    sim(
        "close-with-operations",
        "own",
        "A descriptor is closed with operations in flight on it.",
        "A number is not used again before everything on it has ended.",
    ),
    sim(
        "staged-from-our-tail",
        "own",
        "What the kernel left of a submission is not counted again.",
        "Entries that were not taken go with the next enter.",
    ),
    sim(
        "timer-rounds-down",
        "own",
        "Moments are rounded down to the wheel's grain.",
        "A timer never fires early.",
    ),
    sim(
        "timer-bucket-lost",
        "own",
        "Cancelling the first timer of a bucket takes the others with it.",
        "Timers are independent.",
    ),
    sim(
        "interrupted-is-the-end",
        "own",
        "An operation that was interrupted ends.",
        "`EINTR` is no outcome.",
    ),
    sim(
        "again-is-the-end",
        "own",
        "On the ring a descriptor that does not block ends with `EAGAIN`.",
        "A receive waits, whoever made the descriptor.",
    ),
    sim(
        "polling-kept",
        "own",
        "The completion behind a poll is taken for the poll's.",
        "A result is used once, and not thrown away.",
    ),
    sim(
        "orphan-leaks",
        "own",
        "What an orphan owns is forgotten.",
        "An orphan's last completion drops what it owns.",
    ),
    sim(
        "items-leak",
        "own",
        "What a multishot operation has yielded is forgotten with it.",
        "Items that nobody takes are dropped.",
    ),
    sim(
        "cancelled-not-lowered",
        "own",
        "The count of cancelled operations of a descriptor only rises.",
        "A close cancels what nobody has cancelled yet.",
    ),
    sim(
        "stall-not-restarted",
        "own",
        "A stalled receive waits for ever.",
        "A buffer that comes back goes to whoever waits.",
    ),
    sim(
        "waits-after-telling",
        "own",
        "A tick waits although it has told of something.",
        "Whoever was told gets to act first.",
    ),
    sim(
        "sleeps-without-latch",
        "own",
        "A wait blocks although the latch was raised.",
        "An owner looks at the latch before it sleeps.",
    ),
    sim(
        "share-not-listed",
        "own",
        "A descriptor whose operation has had its share waits for an edge.",
        "What is ready and not drained goes on at the next tick.",
    ),
    sim(
        "short-send-is-the-end",
        "own",
        "A send of everything ends where it was cut short.",
        "A send of everything sends everything.",
    ),
    sim(
        "receive-dropped-with-its-future",
        "own",
        "A receive is given up with the future that waits for it.",
        "Dropping a receive loses no byte.",
    ),
    sim(
        "wake-while-running",
        "own",
        "A task that wakes itself is not queued.",
        "A wake during a poll leads to another poll.",
    ),
    sim(
        "token-not-moved",
        "own",
        "An operation goes on to wake whoever polled it first.",
        "A completion is for the latest poll.",
    ),
    sim(
        "joiner-not-woken",
        "own",
        "The end of a task wakes nobody.",
        "Whoever awaits a task is woken by its end.",
    ),
    loom(
        "roll-back-missing",
        "own",
        "A wake that failed is not rolled back.",
        "The producer after a failed wake tries again.",
    ),
    loom(
        "release-relaxed",
        "own",
        "The last reference to a header is given back without order.",
        "A header is used again after all its uses.",
    ),
    loom(
        "push-relaxed",
        "own",
        "A woken task is pushed without order.",
        "What was done before a wake is seen by the poll.",
    ),
    loom(
        "debt-forgotten",
        "own",
        "A notification that failed is owed by nobody.",
        "The next wake makes up for one that failed.",
    ),
    scripts(
        "accepts-not-roused",
        "Where an accept was cancelled the others on its listener are left as they are.",
        "A connection is told to whoever waits for one.",
    ),
    scripts(
        "cancel-forgets",
        "A room says that a send was cancelled, and not how much of it went.",
        "What an operation has done is told, however it ends.",
    ),
    scripts(
        "sim-end-before-data",
        "The simulated system tells the end of a stream before the last of its bytes.",
        "A simulated system does what a real one may do.",
    ),
    scripts(
        "sim-read-beyond",
        "A simulated read of a file brings zeroes behind its end.",
        "A simulated system does what a real one may do.",
    ),
    ports(
        "iocp-status-of-packet",
        "How a call went is taken from its packet.",
        "It is read from the operation's own `OVERLAPPED`.",
    ),
    ports(
        "iocp-accept-context",
        "An accepted socket is not told that it is connected.",
        "What is accepted is a socket like any other.",
    ),
    ports(
        "iocp-connect-context",
        "A connected socket is not told that it is.",
        "What is connected is a socket like any other.",
    ),
    ports(
        "iocp-accept-socket-reused",
        "The socket of an accept that came to nothing is given to another.",
        "Each accept has a fresh socket.",
    ),
    ports(
        "iocp-cancel-by-thread",
        "A cancel is of all calls that the thread has made on the handle.",
        "A cancel names one call.",
    ),
    ports(
        "iocp-freed-when-not-found",
        "A cancel that does not find its call ends the operation.",
        "Only the packet ends it: until then the memory is the kernel's.",
    ),
    ports("iocp-offset-truncated", "A place in a file has 32 bits.", "It has 64."),
    ports(
        "iocp-socket-closed-as-handle",
        "A socket is closed by `CloseHandle`.",
        "A socket is closed by `closesocket`.",
    ),
    ports(
        "iocp-connect-blocks",
        "A connect waits on the reactor's thread.",
        "No call of a reactor's waits.",
    ),
    ports(
        "iocp-poll-not-rearmed",
        "Whoever is left when a poll has ended is not polled for again.",
        "A poll tells once, and is started again while anybody waits.",
    ),
    ports(
        "iocp-success-is-the-end",
        "A call that succeeds at once ends there, though its packet comes too.",
        "Each call is answered once.",
    ),
];
