//! Things that are to have a name of their own, in a space that everybody shares.

use std::io;

/// How many names are tried.
pub(crate) const TRIES: u32 = 10;

/// Makes something under a name that nobody has yet: `make` says with an error that `is_taken` knows that somebody
/// has, and then another one is tried, [`TRIES`] in all.
///
/// # Errors
/// What `make` said that was something else; or what it said last.
pub(crate) fn with_unique_name<T>(
    mut name: impl FnMut() -> String,
    mut make: impl FnMut(&str) -> io::Result<T>,
    is_taken: impl Fn(&io::Error) -> bool,
) -> io::Result<(String, T)> {
    let mut tries = 1;
    loop {
        let name = name();
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(error) if tries == TRIES || !is_taken(&error) => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Tries names that collide so many times first, with this error. Says what came of it and the names.
    fn after(collisions: usize, error: i32) -> (io::Result<(String, usize)>, Vec<String>) {
        let (mut number, mut tried) = (0, Vec::new());
        let name = || {
            number += 1;
            format!("name-{number}")
        };
        let make = |name: &str| {
            tried.push(name.to_owned());
            let collides = tried.len() <= collisions;
            if collides { Err(io::Error::from_raw_os_error(error)) } else { Ok(tried.len()) }
        };
        let made = with_unique_name(name, make, |error| error.raw_os_error() == Some(5));
        (made, tried)
    }

    #[test]
    fn a_name_that_is_taken_is_given_up_for_another_nine_times() {
        for collisions in [0, 1, 9] {
            let (made, tried) = after(collisions, 5);
            assert_eq!(made.unwrap(), (format!("name-{}", collisions + 1), collisions + 1));
            assert_eq!(tried.len(), collisions + 1);
        }
    }

    #[test]
    fn ten_collisions_are_the_error_of_the_last() {
        let (made, tried) = after(10, 5);
        assert_eq!(made.unwrap_err().raw_os_error(), Some(5));
        assert_eq!(tried.len(), TRIES as usize);
        assert_eq!(tried.iter().collect::<std::collections::HashSet<_>>().len(), tried.len());
    }

    #[test]
    fn any_other_error_ends_it_at_once() {
        let (made, tried) = after(10, 3);
        assert_eq!((made.unwrap_err().raw_os_error(), tried.len()), (Some(3), 1));
    }
}
