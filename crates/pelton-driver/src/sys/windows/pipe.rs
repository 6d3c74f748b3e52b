//! Pipes: named ones, and pairs that are named ones underneath, because the system's anonymous pipes know no
//! overlapped calls.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY, GENERIC_READ, GENERIC_WRITE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, FILE_READ_ATTRIBUTES,
    FILE_TYPE_PIPE, FILE_WRITE_ATTRIBUTES, GetFileType, OPEN_EXISTING, PIPE_ACCESS_INBOUND,
    PIPE_ACCESS_OUTBOUND, SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, DisconnectNamedPipe, GetNamedPipeHandleStateW, GetNamedPipeInfo,
    PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_MESSAGE, PIPE_UNLIMITED_INSTANCES,
    SetNamedPipeHandleState,
};

use super::super::unique::with_unique_name;
use super::calls::system_error;
use super::descriptor::{OwnedDescriptor, RawDescriptor, own};
use super::socket::Wants;
use crate::named_pipe::{PipeClientOptions, PipeServerOptions};

/// Where the names of this machine's pipes are.
const LOCAL: &str = r"\\.\pipe\";

/// Makes an instance of a named pipe.
pub(crate) fn create(name: &str, options: PipeServerOptions) -> io::Result<OwnedDescriptor> {
    let PipeServerOptions { reads, writes, messages, first, instances, buffer, remote } = options;
    if !reads && !writes {
        return Err(invalid("a pipe is to be read, to be written, or both"));
    }
    let Some(rest) = name.strip_prefix(LOCAL).filter(|rest| !rest.is_empty()) else {
        return Err(invalid(r"a pipe that is made here has a name that begins with `\\.\pipe\`"));
    };
    if rest.contains('\\') || name.len() > 256 {
        return Err(invalid(
            r"the name of a pipe has no backslash behind `\\.\pipe\` and at most 256 bytes in all",
        ));
    }
    let instances = match instances {
        None => PIPE_UNLIMITED_INSTANCES,
        Some(n @ 1..=254) => u32::from(n),
        Some(_) => return Err(invalid("a pipe has between 1 and 254 instances, or any number")),
    };
    let mut open = FILE_FLAG_OVERLAPPED;
    open |= if reads { PIPE_ACCESS_INBOUND } else { 0 };
    open |= if writes { PIPE_ACCESS_OUTBOUND } else { 0 };
    open |= if first { FILE_FLAG_FIRST_PIPE_INSTANCE } else { 0 };
    let mut mode = if remote { 0 } else { PIPE_REJECT_REMOTE_CLIENTS };
    if messages {
        mode |= PIPE_TYPE_MESSAGE | if reads { PIPE_READMODE_MESSAGE } else { 0 };
    }
    let name = wide(name)?;
    // SAFETY: the name ends with a zero; the rest is plain. The default rights are those of the process's owner.
    let handle = unsafe {
        let buffer = (buffer, buffer);
        let default = (0, std::ptr::null());
        CreateNamedPipeW(
            name.as_ptr(),
            open,
            mode,
            instances,
            buffer.0,
            buffer.1,
            default.0,
            default.1,
        )
    };
    owned(handle)
}

/// [`create`] under a name that nobody has.
pub(crate) fn create_unique(options: PipeServerOptions) -> io::Result<(String, OwnedDescriptor)> {
    let first = PipeServerOptions { first: true, ..options };
    with_unique_name(fresh_name, |name| create(name, first), is_taken)
}

/// Opens the client's end.
pub(crate) fn open(name: &str, options: PipeClientOptions) -> io::Result<OwnedDescriptor> {
    let PipeClientOptions { reads, writes, messages } = options;
    if !reads && !writes {
        return Err(invalid("a pipe is to be read, to be written, or both"));
    }
    // Whoever has only one of them is asked to ask about the pipe, too, and to set how it is read.
    let access = match (reads, writes) {
        (true, false) => GENERIC_READ | FILE_WRITE_ATTRIBUTES,
        (false, true) => GENERIC_WRITE | FILE_READ_ATTRIBUTES,
        _ => GENERIC_READ | GENERIC_WRITE,
    };
    // The server learns who this is, and cannot act in its name.
    let flags = FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION;
    let (name, none) = (wide(name)?, std::ptr::null_mut());
    // SAFETY: the name ends with a zero; the rest is plain.
    let handle = unsafe {
        CreateFileW(name.as_ptr(), access, 0, std::ptr::null(), OPEN_EXISTING, flags, none)
    };
    let pipe = owned(handle)?;
    if messages && reads {
        let mode = PIPE_READMODE_MESSAGE;
        let none = std::ptr::null();
        // SAFETY: it is open; the mode is a word of ours.
        if unsafe { SetNamedPipeHandleState(pipe.as_raw().handle(), &mode, none, none) } == 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(pipe)
}

/// The two ends of a pipe, the one to read from first.
pub(crate) fn pair(_: Wants) -> io::Result<(OwnedDescriptor, OwnedDescriptor)> {
    let server = PipeServerOptions {
        writes: false,
        first: true,
        instances: Some(1),
        ..PipeServerOptions::new()
    };
    let client = PipeClientOptions { reads: false, ..PipeClientOptions::new() };
    // Somebody else may open the one instance that there is: then it is his, and another one is made.
    let both = |name: &str| Ok((create(name, server)?, open(name, client)?));
    with_unique_name(fresh_name, both, is_taken).map(|(_, ends)| ends)
}

/// Has a server's end be without a client again. What the client has not read is thrown away.
pub(crate) fn disconnect(raw: RawDescriptor) -> io::Result<()> {
    // SAFETY: the caller has it open.
    if unsafe { DisconnectNamedPipe(raw.handle()) } != 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// True for a pipe, of any kind.
pub(crate) fn is_pipe(raw: RawDescriptor) -> bool {
    // SAFETY: plain arguments.
    raw.socket().is_none() && unsafe { GetFileType(raw.handle()) } == FILE_TYPE_PIPE
}

/// Whether what is written to a pipe are messages. True where the system does not say: what is one message must not
/// become several.
pub(crate) fn writes_messages(raw: RawDescriptor) -> bool {
    let (mut flags, none) = (0, std::ptr::null_mut());
    // SAFETY: the caller has it open; the word is ours.
    let told = unsafe { GetNamedPipeInfo(raw.handle(), &mut flags, none, none, none) } != 0;
    !told || flags & PIPE_TYPE_MESSAGE != 0
}

/// Whether what is read from a pipe are messages.
pub(crate) fn reads_messages(raw: RawDescriptor) -> bool {
    let (mut state, none) = (0, std::ptr::null_mut());
    // SAFETY: as above; no name is asked for.
    let told = unsafe {
        GetNamedPipeHandleStateW(
            raw.handle(),
            &mut state,
            none,
            none,
            none,
            std::ptr::null_mut(),
            0,
        )
    } != 0;
    told && state & PIPE_READMODE_MESSAGE != 0
}

/// Somebody else has that name: for one that is to be the first, or with as many instances as there may be.
fn is_taken(error: &io::Error) -> bool {
    let taken = [ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY];
    taken.iter().any(|taken| error.raw_os_error() == Some(*taken as i32))
}

fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let random = crate::system::random();
    format!("{LOCAL}pelton-{}-{number}-{random:016x}", std::process::id())
}

fn wide(name: &str) -> io::Result<Vec<u16>> {
    if name.contains('\0') {
        return Err(invalid("the name of a pipe has no zeros in it"));
    }
    Ok(name.encode_utf16().chain([0]).collect())
}

fn owned(handle: windows_sys::Win32::Foundation::HANDLE) -> io::Result<OwnedDescriptor> {
    if handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::from_raw_os_error(system_error()));
    }
    // SAFETY: the system has just made it for us.
    Ok(unsafe { own(RawDescriptor::Handle(handle)) })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
