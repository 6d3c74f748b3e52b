//! The model of a file: which bytes a read may bring, with writes in flight at the same time.
//!
//! Operations that are in flight together have no order. So a place of the file has not one value but a set of them,
//! and so has its length.

use std::io;

use crate::connection::Wrong;

/// Values that a byte may have.
type Cell = Vec<u8>;

/// A read in flight: what it may see.
#[derive(Debug)]
pub(crate) struct Reading {
    at: usize,
    cells: Vec<Cell>,
    /// The file's length when it began, at least.
    least: usize,
}

/// A write in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Writing {
    number: usize,
    at: usize,
    bytes: Vec<u8>,
    /// Another one was in flight on some of its bytes.
    mixed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct File {
    cells: Vec<Cell>,
    /// The least length that it has for sure.
    least: usize,
    writing: Vec<Writing>,
}

fn add(cell: &mut Cell, byte: u8) {
    if !cell.contains(&byte) {
        cell.push(byte);
    }
}

impl File {
    /// A write begins. Reads that are in flight may see it.
    pub(crate) fn write<'a>(
        &mut self,
        number: usize,
        at: usize,
        bytes: &[u8],
        reads: impl Iterator<Item = &'a mut Reading>,
    ) {
        let overlap =
            |other: &Writing| at < other.at + other.bytes.len() && other.at < at + bytes.len();
        let mut mixed = false;
        for other in self.writing.iter_mut().filter(|other| overlap(other)) {
            (other.mixed, mixed) = (true, true);
        }
        for read in reads {
            read.may_see(at, bytes);
        }
        if self.cells.len() < at + bytes.len() {
            self.cells.resize(at + bytes.len(), vec![0]);
        }
        self.writing.push(Writing { number, at, bytes: bytes.to_vec(), mixed });
    }

    /// A write has ended.
    pub(crate) fn wrote(
        &mut self,
        number: usize,
        cancelled: bool,
        result: &io::Result<usize>,
    ) -> Result<(), Wrong> {
        let place = self.writing.iter().position(|one| one.number == number).ok_or("no write")?;
        let Writing { at, bytes, mixed, .. } = self.writing.remove(place);
        let (n, sure) = match result {
            Ok(n) if *n == 0 || *n > bytes.len() => {
                return Err(format!("{n} of {} written", bytes.len()));
            }
            Ok(n) => (*n, true),
            // Done or not, or in part.
            Err(error) if cancelled && error.raw_os_error() == Some(libc::ECANCELED) => {
                (bytes.len(), false)
            }
            Err(error) => return Err(format!("a write ended with {error}")),
        };
        for (cell, byte) in self.cells[at..].iter_mut().zip(&bytes[..n]) {
            if sure && !mixed {
                cell.clear();
            }
            add(cell, *byte);
        }
        if sure {
            self.least = self.least.max(at + n);
        }
        Ok(())
    }

    /// A read begins.
    pub(crate) fn read(&self, at: usize, len: usize) -> Reading {
        let cell = |place: usize| self.cells.get(place).cloned().unwrap_or_else(|| vec![0]);
        let cells = (at..at + len).map(cell).collect();
        let mut read = Reading { at, cells, least: self.least };
        for write in &self.writing {
            read.may_see(write.at, &write.bytes);
        }
        read
    }

    /// A read has ended.
    pub(crate) fn has_read(
        &self,
        read: &Reading,
        cancelled: bool,
        result: &io::Result<usize>,
        bytes: &[u8],
    ) -> Result<(), Wrong> {
        let n = match result {
            Ok(n) => *n,
            Err(error) if cancelled && error.raw_os_error() == Some(libc::ECANCELED) => {
                return Ok(());
            }
            Err(error) => return Err(format!("a read ended with {error}")),
        };
        let most = self.cells.len().saturating_sub(read.at).min(read.cells.len());
        if n > most || n != bytes.len() || (n == 0 && read.at < read.least) {
            return Err(format!("{n} bytes read at {} of {}", read.at, self.cells.len()));
        }
        for (at, (byte, cell)) in bytes.iter().zip(&read.cells).enumerate() {
            if !cell.contains(byte) {
                let place = read.at + at;
                return Err(format!("{byte} at {place}, where there may be {cell:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }
}

impl Reading {
    fn may_see(&mut self, at: usize, bytes: &[u8]) {
        for (place, byte) in (at..).zip(bytes) {
            if let Some(cell) = place.checked_sub(self.at).and_then(|at| self.cells.get_mut(at)) {
                add(cell, *byte);
            }
        }
    }
}
