//! What the environment asks for, and the command that asks for one run again.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pelton_driver::sim::{Decision, script_text};

/// Longer stories do not fit into an environment variable: then the seed alone has to do.
const LONGEST: usize = 64 * 1024;

thread_local! {
    static TEST: RefCell<Option<Test>> = const { RefCell::new(None) };
}

/// Which test runs, as far as its macro knows it at compile time.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `CARGO_PKG_NAME`.
    pub package: Option<&'static str>,
    /// `CARGO_MANIFEST_DIR`.
    pub directory: Option<&'static str>,
    /// `CARGO_BIN_NAME`.
    pub program: Option<&'static str>,
    /// Whether it is a test of `tests/`, not of the library or of a program.
    pub integration: bool,
    /// The features that the crate was compiled with.
    pub features: &'static str,
    /// `module_path!()`: the crate, and where in it.
    pub module: &'static str,
    /// The function.
    pub name: &'static str,
}

impl Test {
    /// Runs `f` as this test.
    pub(super) fn running<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Back(Option<Test>);
        impl Drop for Back {
            fn drop(&mut self) {
                let before = self.0.take();
                TEST.with(|test| *test.borrow_mut() = before);
            }
        }
        let _back = Back(TEST.with(|test| test.borrow_mut().replace(*self)));
        f()
    }

    /// `cargo test` and what picks this test.
    fn command(&self) -> String {
        let (krate, inside) = self.module.split_once("::").unwrap_or((self.module, ""));
        let path = if inside.is_empty() { String::new() } else { format!("{inside}::") };
        let mut words = vec!["cargo test".to_owned()];
        words.extend(self.package.map(|package| format!("-p {package}")));
        if !self.features.is_empty() {
            words.push(format!("--features {}", quoted(self.features)));
        }
        if self.integration {
            words.push(format!("--test {}", test_target(krate, self.directory.map(Path::new))));
        } else if let Some(program) = self.program {
            words.push(format!("--bin {program}"));
        } else {
            words.push("--lib".into());
        }
        words.push(format!("{path}{} -- --exact", self.name));
        words.join(" ")
    }
}

/// The seed of `PELTON_SIM_SEED`.
pub(super) fn seed() -> Option<u64> {
    let text = variable("PELTON_SIM_SEED")?;
    let bad = || panic!("PELTON_SIM_SEED={text:?} is not a number: give one seed, such as 7");
    Some(text.trim().parse().unwrap_or_else(|_| bad()))
}

/// The seeds that are to be run: the one of `PELTON_SIM_SEED`, or those of `PELTON_SIM_SEEDS`, or so many.
pub(super) fn seeds(number: u64) -> Range<u64> {
    if let Some(seed) = seed() {
        return seed..seed.saturating_add(1);
    }
    let Some(text) = variable("PELTON_SIM_SEEDS") else { return 0..number };
    range(&text).unwrap_or_else(|| {
        panic!("PELTON_SIM_SEEDS={text:?} is not how many seeds, such as 1000, or which, such as 100..200")
    })
}

fn range(text: &str) -> Option<Range<u64>> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match text.split_once("..") {
        None => Some(0..number(text)?),
        Some((from, to)) => Some(number(from)?..number(to)?).filter(|range| !range.is_empty()),
    }
}

/// The story of `PELTON_SIM_REPLAY`, which is that of `PELTON_SIM_SEED`.
pub(super) fn replay(of: u64) -> Option<String> {
    variable("PELTON_SIM_REPLAY").filter(|_| seed() == Some(of))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The command that makes a failure happen again; without a story, that runs its seed again.
pub(super) fn again(seed: u64, story: Option<&[Decision]>) -> String {
    let replay = story.map(script_text).filter(|text| text.len() < LONGEST);
    let replay =
        replay.map_or(String::new(), |text| format!("PELTON_SIM_REPLAY={} ", always_quoted(&text)));
    let test = TEST.with(|test| *test.borrow());
    let command = test.map_or_else(command_of_thread, |test| test.command());
    format!("PELTON_SIM_SEED={seed} {replay}{command}")
}

/// The command for a test without the macro: what cargo, the thread's name and the program's tell.
fn command_of_thread() -> String {
    let mut words = vec!["cargo test".to_owned()];
    words.extend(variable("CARGO_PKG_NAME").map(|package| format!("-p {package}")));
    let program = std::env::current_exe().ok();
    let stem = program.as_deref().and_then(Path::file_stem).and_then(|stem| stem.to_str());
    let krate = stem.and_then(|stem| stem.rsplit_once('-')).map(|(krate, _)| krate);
    let directory = variable("CARGO_MANIFEST_DIR").map(PathBuf::from);
    if let (Some(krate), Some(directory)) = (krate, &directory)
        && let Some(target) = file_of_test(krate, directory)
    {
        words.push(format!("--test {target}"));
    }
    match std::thread::current().name() {
        Some(name) if name != "main" => words.push(format!("{} -- --exact", quoted(name))),
        _ => words.push("(the name of the test is not known: its thread has none)".into()),
    }
    words.join(" ")
}

/// What `--test` takes for the crate of a test. Its name may have hyphens where the crate's has underscores.
fn test_target(krate: &str, directory: Option<&Path>) -> String {
    let found = directory.and_then(|directory| file_of_test(krate, directory));
    found.unwrap_or_else(|| quoted(&krate.replace('_', "?")))
}

fn file_of_test(krate: &str, directory: &Path) -> Option<String> {
    let tests = directory.join("tests");
    let is_there = |name: &String| {
        tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists()
    };
    [krate.to_owned(), krate.replace('_', "-")].into_iter().find(is_there)
}

/// As the shell has to be given it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-:,./".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { always_quoted(text) }
}

fn always_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: Test = Test {
        package: Some("shop"),
        directory: None,
        program: None,
        integration: true,
        features: "sim",
        module: "stock::orders",
        name: "none_is_lost",
    };

    #[test]
    fn the_command_names_package_features_target_and_test() {
        assert_eq!(
            TEST.command(),
            "cargo test -p shop --features sim --test stock orders::none_is_lost -- --exact"
        );
        let library = Test { integration: false, module: "shop", features: "", ..TEST };
        assert_eq!(library.command(), "cargo test -p shop --lib none_is_lost -- --exact");
        let program = Test { program: Some("till"), ..library };
        assert_eq!(program.command(), "cargo test -p shop --bin till none_is_lost -- --exact");
        // A target's name that is not known for certain is a pattern that cargo takes.
        let unsure = Test { module: "my_stock", features: "a,b", ..TEST };
        let command = "cargo test -p shop --features a,b --test 'my?stock' none_is_lost -- --exact";
        assert_eq!(unsure.command(), command);
        let here = Some(env!("CARGO_MANIFEST_DIR"));
        let sure = Test { module: "auto_traits", directory: here, ..TEST };
        assert!(sure.command().contains(" --test auto_traits none_is_lost "), "{}", sure.command());
    }

    #[test]
    fn what_the_shell_would_read_otherwise_is_quoted() {
        assert_eq!(quoted("a::b-c"), "a::b-c");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn seeds_are_so_many_or_from_one_to_another() {
        assert_eq!(range("12"), Some(0..12));
        assert_eq!(range(" 3..5 "), Some(3..5));
        for bad in ["", "x", "5..3", "..", "1..", "-1"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_story_that_is_too_long_for_the_environment_is_left_out() {
        TEST.running(|| {
            assert!(
                again(3, Some(&[])).starts_with("PELTON_SIM_SEED=3 PELTON_SIM_REPLAY='' cargo")
            );
            assert!(again(3, None).starts_with("PELTON_SIM_SEED=3 cargo test -p shop"));
        });
    }
}
