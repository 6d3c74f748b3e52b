//! What happens outside of the process's own descriptors: the end of a child, and changes in a directory.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsHandle;
use std::path::Path;
use std::process::Child;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING, ERROR_NOTIFY_ENUM_DIR,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OVERLAPPED, FILE_LIST_DIRECTORY,
    FILE_NOTIFY_CHANGE_DIR_NAME, FILE_NOTIFY_CHANGE_FILE_NAME, FILE_NOTIFY_CHANGE_LAST_WRITE,
    FILE_NOTIFY_CHANGE_SIZE, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    ReadDirectoryChangesW,
};

use super::calls::system_error;
use super::{OwnedDescriptor, errno};
use crate::descriptor::Fd;
use crate::directory::{ChangeBuffer, Directory, Format};
use crate::driver::{Driver, Refused};
use crate::payload::Own;
use crate::slot::{Key, Token};

/// A handle of the child's own, which is signalled at its end and stays so.
pub(crate) fn child(child: &Child) -> io::Result<Option<OwnedDescriptor>> {
    Ok(Some(child.as_handle().try_clone_to_owned()?.into()))
}

/// Opens a directory whose changes are told. Whoever else works with it is not held up, and may remove it.
pub(crate) fn directory(path: &Path, _: bool) -> io::Result<Directory> {
    let directory = OpenOptions::new()
        .access_mode(FILE_LIST_DIRECTORY)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OVERLAPPED)
        .open(path)?;
    if !directory.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(Directory { descriptor: directory.into(), keep: None, format: Format::Records })
}

/// Begins to wait for changes. What happens between two of these the system keeps with the handle.
pub(crate) fn wait_for_changes(
    driver: &Driver,
    fd: Fd,
    buffer: ChangeBuffer,
    token: Token,
    _: Format,
) -> Result<Key<Own<ChangeBuffer>>, Refused<Own<ChangeBuffer>>> {
    const WHAT: u32 = FILE_NOTIFY_CHANGE_FILE_NAME
        | FILE_NOTIFY_CHANGE_DIR_NAME
        | FILE_NOTIFY_CHANGE_SIZE
        | FILE_NOTIFY_CHANGE_LAST_WRITE;
    let mut prepared = driver.prepare(Some(fd), buffer)?;
    let handle = match driver.with_descriptor(fd, |descriptor| descriptor.as_raw().handle()) {
        Ok(handle) => handle,
        Err(error) => return Err(Refused { error, payload: Own(prepared.abandon()) }),
    };
    let bytes = prepared.memory().bytes();
    let (memory, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
    let call = prepared.in_call()?;
    let overlapped = call.overlapped().cast().as_ptr();
    // SAFETY: the memory is owned by what the operation owns, and nobody else reaches it until it has ended; the
    // driver keeps the handle open as long. The number of bytes comes with the end.
    let began = unsafe {
        let none = std::ptr::null_mut();
        ReadDirectoryChangesW(handle, memory.cast(), len, 0, WHAT, none, overlapped, None)
    };
    // A success only says that it is under way.
    let error = if began != 0 { errno::IO_PENDING } else { system_error() };
    if error == errno::IO_PENDING {
        // SAFETY: it was made with this `OVERLAPPED`, on this descriptor, and is pending.
        return Ok(unsafe { call.submitted(token, false) });
    }
    // SAFETY: it has failed.
    let buffer = unsafe { call.abandoned() };
    Err(Refused { error: io::Error::from_raw_os_error(error), payload: Own(buffer) })
}

/// A name as the system has written it.
pub(crate) fn name(bytes: &[u8]) -> OsString {
    let (words, _) = bytes.as_chunks::<2>();
    let words: Vec<u16> = words.iter().map(|word| u16::from_ne_bytes(*word)).collect();
    OsString::from_wide(&words)
}

/// True for the error that says that changes were lost.
pub(crate) fn says_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_NOTIFY_ENUM_DIR as i32)
}

/// True for an error that says that the directory is being removed, or is.
pub(crate) fn says_gone(error: &io::Error) -> bool {
    const GONE: [u32; 2] = [ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING];
    error.raw_os_error().is_some_and(|number| GONE.contains(&(number as u32)))
}
