//! A host's disk: files by name, a page cache, and what a crash leaves of it.
//!
//! A write goes to the page cache and is remembered as one that is not on the disk yet. A sync brings all of
//! them there, the file's name too. A crash keeps what has been synced; of each write that has not, it keeps
//! nothing, all, or some whole sectors, as the seed decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::calls::OpenFlags;
use super::fault::Fault;
use super::file::{File, FileId, Kind};
use super::sparse::{LONGEST, Sparse};
use super::state::{HostId, State};

const SECTOR: usize = 512;

#[derive(Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
}

#[derive(Default)]
struct Inode {
    cached: Sparse,
    durable: Sparse,
    pending: Vec<Pending>,
}

enum Pending {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate,
}

pub(super) struct DiskFile {
    inode: usize,
    read: bool,
    write: bool,
}

impl DiskFile {
    pub(super) fn inode(&self) -> usize {
        self.inode
    }
}

impl State {
    pub(super) fn open(&mut self, path: &Path, flags: OpenFlags) -> i32 {
        let host = self.current_host;
        let writes = flags.create || flags.create_new || flags.truncate;
        if !flags.write && (writes || !flags.read) {
            return -libc::EINVAL;
        }
        let disk = &mut self.host_mut(host).disk;
        let inode = match disk.names.get(path).copied() {
            Some(_) if flags.create_new => return -libc::EEXIST,
            Some(inode) => inode,
            None if flags.create || flags.create_new => {
                disk.inodes.push(Inode::default());
                disk.names.insert(path.to_owned(), disk.inodes.len() - 1);
                disk.inodes.len() - 1
            }
            None => return -libc::ENOENT,
        };
        if flags.truncate && flags.write {
            let inode = &mut disk.inodes[inode];
            inode.cached.clear();
            inode.pending.push(Pending::Truncate);
        }
        let kind = Kind::Disk(DiskFile { inode, read: flags.read, write: flags.write });
        let file = self.new_file(kind, false);
        self.try_new_fd(file)
    }

    /// `host:path`.
    pub(super) fn disk_name(&self, host: HostId, inode: usize) -> String {
        let of =
            |(path, at): (&PathBuf, &usize)| (*at == inode).then(|| path.display().to_string());
        let path = self.host(host).disk.names.iter().find_map(of);
        format!("{}:{}", self.host_name(host), path.unwrap_or_else(|| "a file without name".into()))
    }

    /// Puts words to a fault of a file.
    fn tell_file(&mut self, fault: Fault, host: HostId, inode: usize, story: &str) {
        self.tell(fault.name(), inode as u64, |state| {
            format!("{story} {}", state.disk_name(host, inode))
        });
    }

    fn disk_file(&self, id: FileId) -> Result<(HostId, usize, bool, bool), i32> {
        match self.file(id) {
            Some(File { kind: Kind::Disk(file), host, .. }) => {
                Ok((*host, file.inode, file.read, file.write))
            }
            Some(_) => Err(-libc::ESPIPE),
            None => Err(-libc::EBADF),
        }
    }

    pub(super) fn read_file(
        &mut self,
        id: FileId,
        len: usize,
        offset: u64,
    ) -> Result<Vec<u8>, i32> {
        let (host, inode, may_read, _) = self.disk_file(id)?;
        if !may_read {
            return Err(-libc::EBADF);
        }
        let who = inode as u64;
        if self.fault(Fault::IoError, who, String::new) {
            self.tell_file(Fault::IoError, host, inode, "EIO at a read of");
            return Err(-libc::EIO);
        }
        if i64::try_from(offset).is_err() {
            return Err(-libc::EINVAL);
        }
        let mut bytes = self.host(host).disk.inodes[inode].cached.read(offset, len);
        if bytes.len() > 1 && self.fault(Fault::ShortFile, who, String::new) {
            let n = 1 + self.choose("short-file to", who, bytes.len() as u64 - 1) as usize;
            let story = format!("{n} bytes instead of {} at a read of", bytes.len());
            self.tell_file(Fault::ShortFile, host, inode, &story);
            bytes.truncate(n);
        }
        Ok(bytes)
    }

    /// Writes what there is room for and says how much that was.
    pub(super) fn write_file(&mut self, id: FileId, bytes: &[u8], offset: u64) -> i32 {
        let (host, inode, _, may_write) = match self.disk_file(id) {
            Ok(file) => file,
            Err(error) => return error,
        };
        if !may_write {
            return -libc::EBADF;
        }
        let who = inode as u64;
        if self.fault(Fault::NoSpace, who, String::new) {
            self.tell_file(Fault::NoSpace, host, inode, "no space at a write to");
            return -libc::ENOSPC;
        }
        if self.fault(Fault::IoError, who, String::new) {
            self.tell_file(Fault::IoError, host, inode, "EIO at a write to");
            return -libc::EIO;
        }
        let mut n = bytes.len();
        if n > 1 && self.fault(Fault::ShortFile, who, String::new) {
            n = 1 + self.choose("short-file to", who, n as u64 - 1) as usize;
            let story = format!("{n} bytes instead of {} at a write to", bytes.len());
            self.tell_file(Fault::ShortFile, host, inode, &story);
        }
        if i64::try_from(offset).is_err() {
            return -libc::EINVAL;
        }
        if n > 0 && offset >= LONGEST {
            return -libc::EFBIG;
        }
        // Up to the limit, where it is in the middle.
        let left = usize::try_from(LONGEST.saturating_sub(offset)).unwrap_or(usize::MAX);
        n = n.min(left);
        let inode = &mut self.host_mut(host).disk.inodes[inode];
        inode.cached.write(offset, &bytes[..n]);
        inode.pending.push(Pending::Write { offset, bytes: bytes[..n].to_vec() });
        n as i32
    }

    pub(super) fn sync_file(&mut self, id: FileId) -> i32 {
        let (host, number, ..) = match self.disk_file(id) {
            Ok(file) => file,
            Err(error) => return error,
        };
        let who = number as u64;
        if self.fault(Fault::IoError, who, String::new) {
            self.tell_file(Fault::IoError, host, number, "EIO at a sync of");
            return -libc::EIO;
        }
        if self.fault(Fault::LyingSync, who, String::new) {
            self.tell_file(Fault::LyingSync, host, number, "a sync that did nothing of");
            return 0;
        }
        let disk = &mut self.host_mut(host).disk;
        let inode = &mut disk.inodes[number];
        inode.durable.clone_from(&inode.cached);
        inode.pending.clear();
        if let Some((name, _)) = disk.names.iter().find(|(_, of)| **of == number) {
            disk.durable_names.insert(name.clone(), number);
        }
        0
    }

    /// What is left of a disk after its host has lost power.
    pub(super) fn crash_disk(&mut self, host: HostId) {
        for number in 0..self.host(host).disk.inodes.len() {
            let pending = std::mem::take(&mut self.host_mut(host).disk.inodes[number].pending);
            for write in pending {
                let kept = self.choose("crash keeps", number as u64, 3);
                if kept > 0 {
                    let how = if kept == 1 { "whole" } else { "torn" };
                    self.tell("crash keeps", number as u64, |state| {
                        let name = state.disk_name(host, number);
                        format!("a write to {name} that was not synced survived the crash {how}")
                    });
                }
                let (Pending::Write { offset, bytes }, 1..) = (&write, kept) else {
                    if let (Pending::Truncate, 1..) = (&write, kept) {
                        self.host_mut(host).disk.inodes[number].durable.clear();
                    }
                    continue;
                };
                let sectors = bytes.len().div_ceil(SECTOR) as u64;
                let torn = self.choose("crash tears at", number as u64, sectors) as usize * SECTOR;
                let n = if kept == 1 { bytes.len() } else { torn };
                self.host_mut(host).disk.inodes[number].durable.write(*offset, &bytes[..n]);
            }
            let inode = &mut self.host_mut(host).disk.inodes[number];
            inode.cached.clone_from(&inode.durable);
        }
        let unsynced: Vec<(PathBuf, usize)> = {
            let disk = &self.host(host).disk;
            let known = |name: &PathBuf| disk.durable_names.contains_key(name);
            disk.names.iter().filter(|(n, _)| !known(n)).map(|(n, i)| (n.clone(), *i)).collect()
        };
        for (name, inode) in unsynced {
            let host_name = self.host_name(host).to_owned();
            let tell = |_| {
                let name = name.display();
                format!("{host_name}:{name} survived the crash though it was not synced")
            };
            if self.choose_told("crash keeps name", inode as u64, 2, tell) == 1 {
                self.host_mut(host).disk.durable_names.insert(name, inode);
            }
        }
        let disk = &mut self.host_mut(host).disk;
        disk.names.clone_from(&disk.durable_names);
    }
}
