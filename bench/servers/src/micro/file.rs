//! Reading a file that the page cache has: blocks of 4 KiB, by one task and by 32.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Plan, Runtime};

/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// Blocks of the file: few enough for any cache of the processor's second level.
pub const BLOCKS: usize = 64;

const READS: u64 = 8192;

/// Where the block that is read as the `n`th begins. Block after block, and from the start again.
pub fn offset(n: usize) -> u64 {
    ((n % BLOCKS) * BLOCK) as u64
}

/// A file of [`BLOCKS`] blocks, in the page cache, removed when this is dropped.
#[derive(Debug)]
pub struct TestFile(PathBuf);

impl TestFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the file and reads it once.
pub fn test_file() -> io::Result<TestFile> {
    let name = format!("pelton-bench-{}", std::process::id());
    let file = TestFile(std::env::temp_dir().join(name));
    std::fs::write(&file.0, vec![7; BLOCKS * BLOCK])?;
    std::fs::File::open(&file.0)?.read_to_end(&mut Vec::new())?;
    Ok(file)
}

pub(super) async fn all<R: Runtime>(plan: &Plan) {
    for (bench, depth) in [("file_read_1", 1), ("file_read_32", 32)] {
        if plan.wants(bench)
            && let Err(error) = read::<R>(plan, bench, depth).await
        {
            plan.skip(bench, &error.to_string());
        }
    }
}

async fn read<R: Runtime>(plan: &Plan, bench: &str, depth: usize) -> io::Result<()> {
    let file = test_file()?;
    let mut files = Vec::new();
    for _ in 0..depth {
        files.push(R::open(file.path()).await?);
    }
    let mut readers = Vec::with_capacity(depth);
    plan.measure(bench, READS, async |n| {
        let each = n as usize / depth;
        readers.extend(files.drain(..).map(|file| R::spawn_reader(file, each)));
        for reader in readers.drain(..) {
            files.push(reader.await);
        }
    })
    .await;
    Ok(())
}
