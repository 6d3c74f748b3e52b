//! Opening files for overlapped use.

use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_OVERLAPPED;

use super::descriptor::OwnedDescriptor;
use crate::system::OpenOptions;

/// Opens a file. Blocks.
pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<OwnedDescriptor> {
    let OpenOptions { read, write, create, create_new, truncate } = options;
    let mut options = std::fs::OpenOptions::new();
    options.read(read).write(write).create(create).create_new(create_new).truncate(truncate);
    options.custom_flags(FILE_FLAG_OVERLAPPED);
    Ok(options.open(path)?.into())
}
