//! The command line, the same for every program.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::{allocs, count, system};

/// An argument that one program has and others have not.
#[derive(Clone, Copy, Debug)]
pub enum Extra {
    /// `--name`.
    Flag(&'static str),
    /// `--name VALUE`, one of these; the first is the default.
    OneOf(&'static str, &'static [&'static str]),
    /// `--name N`, at least 1, and the default, which may be 0 for what is off unless given.
    Count(&'static str, u64),
    /// `--name TEXT`.
    Text(&'static str),
}

impl Extra {
    fn name(self) -> &'static str {
        match self {
            Extra::Flag(name)
            | Extra::OneOf(name, _)
            | Extra::Count(name, _)
            | Extra::Text(name) => name,
        }
    }

    fn usage(self) -> String {
        match self {
            Extra::Flag(name) => format!("[{name}]"),
            Extra::OneOf(name, values) => format!("[{name} {}]", values.join("|")),
            Extra::Count(name, default) => format!("[{name} N ({default})]"),
            Extra::Text(name) => format!("[{name} TEXT]"),
        }
    }
}

/// What a server was told.
#[derive(Debug)]
pub struct Args {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Bytes of a connection's buffer.
    pub buffer: usize,
    given: Given,
}

const SERVER: [Extra; 4] = [
    Extra::Text("--listen"),
    Extra::Count("--buffer", 16384),
    Extra::Count("--stop-after", u64::MAX),
    Extra::Flag("--count-allocs"),
];

impl Args {
    /// Reads a server's command line and does what it says of the end: `SIGTERM`, `--stop-after`,
    /// `--count-allocs`. Ends the program with 2 if the command line is wrong.
    pub fn server(name: &'static str, extras: &[Extra]) -> Args {
        let mut known = SERVER.to_vec();
        known.extend_from_slice(extras);
        let given = Given::read(name, known);
        let listen = given.parsed("--listen").unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let stop_after = given.parsed::<u64>("--stop-after");
        let count_allocs = given.flag("--count-allocs");
        if count_allocs && !allocs::can_count() {
            given.refuse("--count-allocs needs a build with `--features count-allocs`");
        }
        if count_allocs && stop_after.is_none() {
            given.refuse("--count-allocs is printed at the end: give --stop-after as well");
        }
        if let Some(last) = stop_after {
            count::stop_after(last, count_allocs);
        }
        system::end_on_sigterm();
        Args { listen, buffer: given.count("--buffer"), given }
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.given.flag(name)
    }

    /// The value of an [`Extra::OneOf`].
    pub fn one_of(&self, name: &str) -> &str {
        self.given.one_of(name)
    }

    /// The value of an [`Extra::Count`].
    pub fn count(&self, name: &str) -> usize {
        self.given.count(name)
    }

    /// Ends the program with 2 and says why.
    pub fn refuse(&self, why: &str) -> ! {
        self.given.refuse(why)
    }
}

/// A command line that was read, and whose values have been checked.
#[derive(Debug)]
pub struct Given {
    program: &'static str,
    known: Vec<Extra>,
    values: Vec<(&'static str, String)>,
}

impl Given {
    /// Reads the command line. Ends the program with 2 if it is wrong.
    pub fn read(program: &'static str, known: Vec<Extra>) -> Given {
        let mut given = Given { program, known, values: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--help" {
                println!("{}", given.usage());
                std::process::exit(0);
            }
            let Some(extra) = given.known.iter().copied().find(|extra| extra.name() == word) else {
                given.refuse(&format!("there is no argument `{word}`"));
            };
            let mut value = String::new();
            if !matches!(extra, Extra::Flag(_)) {
                value =
                    words.next().unwrap_or_else(|| given.refuse(&format!("{word} wants a value")));
            }
            given.check(extra, &value);
            given.values.push((extra.name(), value));
        }
        given
    }

    fn check(&self, extra: Extra, value: &str) {
        match extra {
            Extra::OneOf(name, values) if !values.contains(&value) => {
                self.refuse(&format!("{name} is one of {}, not `{value}`", values.join(", ")))
            }
            Extra::Count(name, _) if !value.parse().is_ok_and(|n: u64| n >= 1) => {
                self.refuse(&format!("{name} is a whole number and at least 1, not `{value}`"))
            }
            _ => {}
        }
    }

    fn usage(&self) -> String {
        let mut usage = format!("usage: {}", self.program);
        for extra in &self.known {
            let _ = write!(usage, " {}", extra.usage());
        }
        usage
    }

    /// Ends the program with 2 and says why.
    pub fn refuse(&self, why: &str) -> ! {
        eprintln!("{}: {why}\n{}", self.program, self.usage());
        std::process::exit(2)
    }

    /// What was given, the last if it was given twice.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// What was given, as something else.
    pub fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        Some(parsed.unwrap_or_else(|| self.refuse(&format!("{name} cannot be `{text}`"))))
    }

    /// The value of an [`Extra::OneOf`].
    pub fn one_of(&self, name: &str) -> &str {
        self.text(name).unwrap_or_else(|| {
            let default = self.known.iter().find_map(|extra| match extra {
                Extra::OneOf(known, values) if *known == name => values.first(),
                _ => None,
            });
            default.unwrap_or_else(|| panic!("{name} is none of this program's arguments"))
        })
    }

    /// The value of an [`Extra::Count`].
    pub fn count(&self, name: &str) -> usize {
        self.parsed(name).unwrap_or_else(|| {
            let default = self.known.iter().find_map(|extra| match extra {
                Extra::Count(known, default) if *known == name => Some(*default),
                _ => None,
            });
            default.unwrap_or_else(|| panic!("{name} is none of this program's arguments")) as usize
        })
    }
}
