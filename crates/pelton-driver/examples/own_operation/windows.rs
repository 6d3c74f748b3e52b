//! The overlapped calls of a named pipe, of which the list of operations has none.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use pelton_driver::{Driver, Fd, Key, Own, Token};
use windows_sys::Win32::Foundation::{
    ERROR_IO_PENDING, ERROR_MORE_DATA, GetLastError, HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX, ReadFile};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, CreateNamedPipeW, PIPE_READMODE_MESSAGE, PIPE_TYPE_MESSAGE,
};

/// Awaits the client of a pipe, and reads what it writes.
pub(crate) fn run(driver: &Driver) -> Result<(), Box<dyn Error>> {
    let pipe = Pipe::new(driver, "pelton-example")?;
    let client_comes = pipe.connect(driver, ())?.begun()?;
    let mut client = pipe.client()?;
    driver.finish(client_comes, None, |_| {})?.0?;

    let read = pipe.read(driver, vec![0; 64])?.begun()?;
    client.write_all(b"a call that Pelton has never heard of")?;
    let (n, bytes) = driver.finish(read, None, |_| {})?;
    println!("{}", String::from_utf8_lossy(&bytes[..n?]));
    Ok(())
}

impl<T> Called<T> {
    /// The operation, where it has begun; its memory is dropped where it has not.
    pub(crate) fn begun(self) -> io::Result<Key<Own<T>>> {
        match self {
            Called::Begun(key) => Ok(key),
            Called::Failed(error, _) => Err(io::Error::from_raw_os_error(error as i32)),
        }
    }
}

/// The server's end of a named pipe of messages.
pub(crate) struct Pipe {
    name: String,
    pub(crate) fd: Fd,
    handle: HANDLE,
}

/// How a call went.
pub(crate) enum Called<T: 'static> {
    /// It is the driver's to tell how it ends.
    Begun(Key<Own<T>>),
    /// It has failed with this error, and the memory is back.
    Failed(u32, T),
}

impl Pipe {
    /// Makes a pipe, which is the driver's from then on.
    pub(crate) fn new(driver: &Driver, name: &str) -> io::Result<Pipe> {
        let name = format!(r"\\.\pipe\{name}-{}", std::process::id());
        let wide: Vec<u16> = name.encode_utf16().chain([0]).collect();
        let open = PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED;
        let mode = PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE;
        // SAFETY: the name ends with a zero; the rest is plain.
        let handle = unsafe {
            CreateNamedPipeW(wide.as_ptr(), open, mode, 1, 4096, 4096, 0, std::ptr::null())
        };
        if handle == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it has just been made, and is nobody else's.
        let owned = unsafe { OwnedHandle::from_raw_handle(handle) };
        let handle = owned.as_raw_handle();
        Ok(Pipe { name, fd: driver.attach(owned.into())?, handle })
    }

    /// Opens the client's end.
    pub(crate) fn client(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.name)
    }

    /// Awaits a client.
    pub(crate) fn connect<T: 'static>(&self, driver: &Driver, memory: T) -> io::Result<Called<T>> {
        // SAFETY: the driver keeps the pipe open until the call has ended.
        call(driver, self.fd, memory, |overlapped, _| unsafe {
            ConnectNamedPipe(self.handle, overlapped)
        })
    }

    /// Reads a message.
    pub(crate) fn read(&self, driver: &Driver, memory: Vec<u8>) -> io::Result<Called<Vec<u8>>> {
        call(driver, self.fd, memory, |overlapped, memory| {
            // SAFETY: nothing is in the kernel yet: the vector is this call's alone. What it owns stands still until
            // the operation has ended, and so does the pipe.
            unsafe {
                let (to, len) = ((*memory).as_mut_ptr(), (*memory).len() as u32);
                ReadFile(self.handle, to, len, std::ptr::null_mut(), overlapped)
            }
        })
    }
}

/// Makes an overlapped call, in the order of the protocol: prepare, call, and say how it began.
fn call<T: 'static>(
    driver: &Driver,
    fd: Fd,
    memory: T,
    make: impl FnOnce(*mut OVERLAPPED, *mut T) -> i32,
) -> io::Result<Called<T>> {
    let prepared = driver.prepare(Some(fd), memory).map_err(|refused| refused.error)?;
    let in_call = prepared.in_call().map_err(|refused| refused.error)?;
    let at_once = make(in_call.overlapped().cast().as_ptr(), in_call.memory()) != 0;
    // SAFETY: reads a word of this thread's.
    let error = if at_once { 0 } else { unsafe { GetLastError() } };
    // SAFETY: the call has been made with this `OVERLAPPED`, and `error` is how it went. More of a message is a
    // warning, which posts as a success does.
    unsafe {
        match error {
            0 | ERROR_IO_PENDING | ERROR_MORE_DATA => {
                Ok(Called::Begun(in_call.submitted(Token::NONE, at_once)))
            }
            // Also `ERROR_PIPE_CONNECTED`: the client was faster, and there is no packet.
            error => Ok(Called::Failed(error, in_call.abandoned())),
        }
    }
}
