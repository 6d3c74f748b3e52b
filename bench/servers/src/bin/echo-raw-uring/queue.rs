//! Staging submissions, and the words that tell completions apart.

use std::collections::VecDeque;
use std::io;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{SubmissionQueue, Submitter, squeue};

/// Entries of the two queues.
pub(super) const SUBMISSIONS: u32 = 4096;
pub(super) const COMPLETIONS: u32 = 16384;

/// What completed. With the connection's place it makes up an entry's `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Receive,
    Send,
    Cancel,
    Close,
    Pause,
}

/// A kind and a connection's place as one word.
pub(super) fn word(kind: Kind, place: u32) -> u64 {
    (kind as u64) << 32 | u64::from(place)
}

/// The reverse of [`word`].
pub(super) fn unword(word: u64) -> (Kind, u32) {
    let kind = match word >> 32 {
        0 => Kind::Accept,
        1 => Kind::Receive,
        2 => Kind::Send,
        3 => Kind::Cancel,
        4 => Kind::Close,
        _ => Kind::Pause,
    };
    (kind, word as u32)
}

/// How many completions end a wait that gathers, as in Pelton.
const BATCH: usize = 32;

/// A day.
const LONG: Timespec = Timespec::new().sec(86_400);

/// The submission queue and the way into the kernel.
pub(super) struct Queue<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    /// Entries for which there was no room and which the kernel was too busy to make room for.
    late: VecDeque<squeue::Entry>,
    /// In microseconds; with none a wait ends with the first completion.
    batch_wait: u32,
}

impl<'a> Queue<'a> {
    pub(super) fn new(
        submitter: Submitter<'a>,
        submissions: SubmissionQueue<'a>,
        batch_wait: u32,
    ) -> Queue<'a> {
        Queue { submitter, submissions, late: VecDeque::new(), batch_wait }
    }

    /// Stages an entry. In the order in which they are staged entries are started.
    ///
    /// # Safety
    /// The descriptor and the memory that the entry names stay valid until its last completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what the caller promised of the entry.
        if !self.late.is_empty() || unsafe { self.submissions.push(&entry) }.is_err() {
            self.push_late(entry);
        }
    }

    #[cold]
    fn push_late(&mut self, entry: squeue::Entry) {
        self.late.push_back(entry);
        self.submissions.sync();
        // A kernel that is too busy is asked again when its completions have been taken.
        let _ = self.submitter.submit();
        self.submissions.sync();
        self.stage_late();
    }

    fn stage_late(&mut self) {
        while let Some(entry) = self.late.front() {
            // SAFETY: whoever staged it promised so for as long as it takes.
            if unsafe { self.submissions.push(entry) }.is_err() {
                return;
            }
            self.late.pop_front();
        }
    }

    /// Submits what is staged and waits for a completion: one entry into the kernel.
    pub(super) fn submit_and_wait(&mut self) -> io::Result<()> {
        if !self.late.is_empty() {
            self.stage_late();
        }
        self.submissions.sync();
        let result = if self.batch_wait > 0 {
            // Without a timeout the kernel would not wait on once the minimum is over with nothing there.
            let gather = SubmitArgs::new().min_wait_usec(self.batch_wait).timespec(&LONG);
            self.submitter.submit_with_args(BATCH, &gather)
        } else {
            self.submitter.submit_and_wait(1)
        };
        self.submissions.sync();
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal; or completions that overflowed and have to be taken first.
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

/// Connections at places that stay the same while they are open.
pub(super) struct Places<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Places<T> {
    pub(super) fn new() -> Places<T> {
        Places { all: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, connection: T) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.all[place as usize] = Some(connection);
                place
            }
            None => {
                self.all.push(Some(connection));
                (self.all.len() - 1) as u32
            }
        }
    }

    pub(super) fn get(&mut self, place: u32) -> Option<&mut T> {
        self.all.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: u32) {
        self.all[place as usize] = None;
        self.free.push(place);
    }
}
