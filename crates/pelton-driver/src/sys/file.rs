//! Opening files, of the system or of a simulated one.

use std::io;
use std::path::Path;

use super::descriptor::OwnedDescriptor;
use crate::system::OpenOptions;

/// Opens a file: the world's where this thread is in a world. Blocks.
pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<OwnedDescriptor> {
    let OpenOptions { read, write, create, create_new, truncate } = options;
    #[cfg(feature = "sim")]
    if crate::sim::calls::in_world() {
        let flags = crate::sim::calls::OpenFlags { read, write, create, create_new, truncate };
        let raw = crate::sim::calls::open(path, flags);
        if raw < 0 {
            return Err(super::unix::error_of(raw));
        }
        // SAFETY: the simulated system has just made it for us.
        return Ok(unsafe { super::descriptor::own(raw) });
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(read).write(write).create(create).create_new(create_new).truncate(truncate);
    Ok(options.open(path)?.into())
}
