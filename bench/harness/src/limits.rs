//! `bench/limits.toml`: goals that were shown to be out of reach, and where the proof is.
//!
//! ```toml
//! [[limit]]
//! goal = 12
//! part = "file_read_1"     # as `pelton-bench goals` names it; left out, the whole goal
//! reached = 0.83           # the best that was reached; anything worse is `missed` again
//! proof = "docs/file-reads.md"
//! ```

use std::path::Path;

use serde::Deserialize;

use crate::error::{During, Error, Result};

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    #[serde(default, rename = "limit")]
    limits: Vec<Limit>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    goal: u32,
    part: Option<String>,
    pub(crate) reached: f64,
    pub(crate) proof: String,
}

impl Limits {
    /// No file means no limits. A file that points to a proof that is not there is an error.
    pub(crate) fn read(path: &Path, root: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).during(format!("reading {}", path.display()))?;
        let limits = Self::parse(&text)
            .map_err(|e| Error::Usage(format!("{} is not understood: {e}", path.display())))?;
        for limit in &limits.limits {
            let file = limit.proof.split('#').next().unwrap_or_default();
            if file.is_empty() || !root.join(file).is_file() {
                return Err(Error::Usage(format!(
                    "{}: the proof of goal {} is not at {}: name a file of the project",
                    path.display(),
                    limit.goal,
                    limit.proof
                )));
            }
        }
        Ok(limits)
    }

    pub(crate) fn parse(text: &str) -> std::result::Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The limit of a part: its own, else the whole goal's.
    pub(crate) fn of(&self, goal: u32, part: &str) -> Option<&Limit> {
        let mut of_goal = self.limits.iter().filter(|limit| limit.goal == goal);
        let own = of_goal.clone().find(|limit| limit.part.as_deref() == Some(part));
        own.or_else(|| of_goal.find(|limit| limit.part.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        [[limit]]
        goal = 12
        part = \"d1\"
        reached = 0.83
        proof = \"docs/files.md#depth-one\"
        [[limit]]
        goal = 3
        reached = 1.04
        proof = \"docs/echo.md\"
    ";

    #[test]
    fn a_limit_belongs_to_its_part_or_to_the_whole_goal() {
        let limits = Limits::parse(TEXT).expect("good text");
        assert_eq!(limits.of(12, "d1").map(|l| l.reached), Some(0.83));
        assert_eq!(limits.of(12, "d32"), None);
        assert_eq!(limits.of(3, "anything").map(|l| l.reached), Some(1.04));
        assert_eq!(limits.of(1, "d1"), None);
    }

    #[test]
    fn an_unknown_field_and_a_missing_proof_are_errors() {
        assert!(
            Limits::parse("[[limit]]\ngoal = 1\nreached = 1\nproof = \"x\"\nprof = 1").is_err()
        );
        assert!(Limits::parse("[[limit]]\ngoal = 1\nreached = 1").is_err());
        let dir = std::env::temp_dir().join(format!("pelton-bench-limits-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("limits.toml");
        std::fs::write(&path, TEXT).expect("a file");
        let error = Limits::read(&path, &dir).expect_err("no such proof").to_string();
        assert!(error.contains("docs/files.md"), "{error}");
        assert_eq!(Limits::read(&dir.join("none"), &dir).expect("no file"), Limits::default());
        std::fs::remove_dir_all(&dir).expect("its end");
    }
}
