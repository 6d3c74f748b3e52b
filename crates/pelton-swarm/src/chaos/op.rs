//! Operations in flight: their keys, whatever they own, and what is to come of them.

use std::io;
use std::time::Duration;

use pelton_driver::{
    Accepted, Accepting, Connecting, Driver, Filling, FillingAll, Key, Lease, Leasing, ManyAccepts,
    ManyLeases, OpId, Payload, Plain, Sending, SendingAll, SendingAway, SendingWhole,
};

use super::buffer::{Buf, Owned, Wide};

/// What an operation is to do, and what its outcome is measured by.
#[derive(Clone, Debug)]
pub(super) enum What {
    Nop,
    Timer { deadline: std::time::Instant },
    Wake,
    Cancel { found: bool },
    CancelAll,
    Close,
    Poll,
    Shutdown,
    Sync,
    Connect,
    Accept,
    AcceptMany,
    Receive { room: usize },
    ReceiveMany,
    Send { flow: (u64, bool), len: usize, all: bool },
    SendDatagram { len: usize },
    Read { file: usize, block: usize, room: usize, least: usize },
    Write { file: usize, block: usize, bytes: Vec<u8> },
}

impl What {
    pub(super) fn receives(&self) -> bool {
        matches!(self, What::Receive { .. } | What::ReceiveMany)
    }
}

/// The right to an outcome, of whatever type.
pub(super) enum AnyKey {
    Plain(Key<Plain>),
    Connect(Key<Connecting>),
    Accept(Key<Accepting>),
    AcceptMany(Key<ManyAccepts>),
    Fill(Key<Filling<Owned>>),
    FillWide(Key<Filling<Wide>>),
    FillSmall(Key<Filling<[u8; 16]>>),
    FillAll(Key<FillingAll<Vec<Owned>>>),
    Lease(Key<Leasing>),
    LeaseMany(Key<ManyLeases>),
    Send(Key<Sending<Owned>>),
    SendWide(Key<Sending<Wide>>),
    SendSmall(Key<Sending<[u8; 16]>>),
    SendWhole(Key<SendingWhole<Owned>>),
    SendAway(Key<SendingAway<Owned>>),
    SendAll(Key<SendingAll<Vec<Owned>>>),
}

/// What came of an operation.
// Each buffer keeps its address, by which it is known again.
#[allow(clippy::vec_box)]
pub(super) enum Outcome {
    Number(io::Result<usize>),
    Accepted(io::Result<Accepted>),
    Lease(io::Result<Option<Lease>>),
    /// A number of bytes, and the buffers that come back.
    Buffers(io::Result<usize>, Vec<Box<Buf>>),
    /// The same with a buffer that has no name.
    Small(io::Result<usize>, [u8; 16]),
    /// All was done, or not.
    Whole(io::Result<()>, Vec<Box<Buf>>),
}

macro_rules! each {
    ($on:expr, $key:ident => $do:expr) => {
        match $on {
            AnyKey::Plain($key) => $do,
            AnyKey::Connect($key) => $do,
            AnyKey::Accept($key) => $do,
            AnyKey::AcceptMany($key) => $do,
            AnyKey::Fill($key) => $do,
            AnyKey::FillWide($key) => $do,
            AnyKey::FillSmall($key) => $do,
            AnyKey::FillAll($key) => $do,
            AnyKey::Lease($key) => $do,
            AnyKey::LeaseMany($key) => $do,
            AnyKey::Send($key) => $do,
            AnyKey::SendWide($key) => $do,
            AnyKey::SendSmall($key) => $do,
            AnyKey::SendWhole($key) => $do,
            AnyKey::SendAway($key) => $do,
            AnyKey::SendAll($key) => $do,
        }
    };
}

impl AnyKey {
    pub(super) fn is_done(&self, driver: &Driver) -> bool {
        each!(self, key => driver.is_done(key))
    }

    pub(super) fn abandon(self, driver: &Driver) {
        each!(self, key => driver.abandon(key));
    }

    /// Takes the outcome, or gives the key back.
    pub(super) fn take(self, driver: &Driver) -> Result<Outcome, AnyKey> {
        macro_rules! take {
            ($($kind:ident),+) => {
                match self {
                    $(AnyKey::$kind(key) => match driver.take(key) {
                        Ok(output) => Ok(output.outcome()),
                        Err(key) => Err(AnyKey::$kind(key)),
                    },)+
                }
            };
        }
        take!(
            Plain, Connect, Accept, AcceptMany, Fill, FillWide, FillSmall, FillAll, Lease,
            LeaseMany, Send, SendWide, SendSmall, SendWhole, SendAway, SendAll
        )
    }

    /// What a multishot operation has yielded next.
    pub(super) fn next(&self, driver: &Driver) -> Option<Item> {
        match self {
            AnyKey::AcceptMany(key) => driver.next(key).map(Item::Connection),
            AnyKey::LeaseMany(key) => driver.next(key).map(Item::Lease),
            _ => None,
        }
    }
}

pub(super) enum Item {
    Connection(pelton_driver::OwnedDescriptor),
    Lease(Lease),
}

/// Makes a key one of any type.
pub(super) trait IntoAny: Payload {
    fn any(key: Key<Self>) -> AnyKey;
}

macro_rules! into_any {
    ($($payload:ty => $kind:ident),+ $(,)?) => {$(
        impl IntoAny for $payload {
            fn any(key: Key<Self>) -> AnyKey {
                AnyKey::$kind(key)
            }
        }
    )+};
}

into_any! {
    Plain => Plain,
    Connecting => Connect,
    Accepting => Accept,
    ManyAccepts => AcceptMany,
    Filling<Owned> => Fill,
    Filling<Wide> => FillWide,
    Filling<[u8; 16]> => FillSmall,
    FillingAll<Vec<Owned>> => FillAll,
    Leasing => Lease,
    ManyLeases => LeaseMany,
    Sending<Owned> => Send,
    Sending<Wide> => SendWide,
    Sending<[u8; 16]> => SendSmall,
    SendingWhole<Owned> => SendWhole,
    SendingAway<Owned> => SendAway,
    SendingAll<Vec<Owned>> => SendAll,
}

/// An operation whose outcome has not been taken.
pub(super) struct Op {
    pub(super) id: OpId,
    pub(super) key: AnyKey,
    pub(super) what: What,
    /// The descriptor, by its place in the side's list.
    pub(super) desc: Option<usize>,
    /// Its last completion has been told of.
    pub(super) told: bool,
    /// Somebody may have cancelled it, or closed its descriptor.
    pub(super) cancelled: bool,
    /// Numbers of the buffers that it owns.
    pub(super) bufs: Vec<u64>,
    /// When it must have ended, where that is known.
    pub(super) due: Option<Duration>,
}

/// The outcomes of every type as one.
pub(super) trait IntoOutcome {
    fn outcome(self) -> Outcome;
}

impl IntoOutcome for io::Result<usize> {
    fn outcome(self) -> Outcome {
        Outcome::Number(self)
    }
}

impl IntoOutcome for io::Result<()> {
    fn outcome(self) -> Outcome {
        Outcome::Whole(self, Vec::new())
    }
}

impl IntoOutcome for io::Result<Accepted> {
    fn outcome(self) -> Outcome {
        Outcome::Accepted(self)
    }
}

impl IntoOutcome for io::Result<Option<Lease>> {
    fn outcome(self) -> Outcome {
        Outcome::Lease(self)
    }
}

impl IntoOutcome for (io::Result<usize>, Owned) {
    fn outcome(self) -> Outcome {
        Outcome::Buffers(self.0, vec![self.1.0])
    }
}

impl IntoOutcome for (io::Result<usize>, Wide) {
    fn outcome(self) -> Outcome {
        Outcome::Buffers(self.0, vec![self.1.0])
    }
}

impl IntoOutcome for (io::Result<usize>, Vec<Owned>) {
    fn outcome(self) -> Outcome {
        Outcome::Buffers(self.0, self.1.into_iter().map(|buf| buf.0).collect())
    }
}

impl IntoOutcome for (io::Result<usize>, [u8; 16]) {
    fn outcome(self) -> Outcome {
        Outcome::Small(self.0, self.1)
    }
}

impl IntoOutcome for (io::Result<()>, Owned) {
    fn outcome(self) -> Outcome {
        Outcome::Whole(self.0, vec![self.1.0])
    }
}
