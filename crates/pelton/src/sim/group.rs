//! One host, or several.

/// The names of one host or of several, for [`Sim::partition`](super::Sim::partition) and the like: a string,
/// or an array, slice or vector of strings.
///
/// ```
/// use pelton::sim::Group;
/// let (one, two) = (Group::from("a"), Group::from(["b", "c"]));
/// assert_eq!((one.to_string(), two.to_string()), ("a".into(), "b and c".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub(super) Vec<String>);

impl From<&str> for Group {
    fn from(name: &str) -> Group {
        Group(vec![name.to_owned()])
    }
}

impl From<&String> for Group {
    fn from(name: &String) -> Group {
        Group(vec![name.clone()])
    }
}

impl From<String> for Group {
    fn from(name: String) -> Group {
        Group(vec![name])
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Group {
    fn from(names: [S; N]) -> Group {
        Group::from(&names[..])
    }
}

impl<S: AsRef<str>> From<&[S]> for Group {
    fn from(names: &[S]) -> Group {
        Group(names.iter().map(|name| name.as_ref().to_owned()).collect())
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Group {
    fn from(names: Vec<S>) -> Group {
        Group::from(&names[..])
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.split_last() {
            None => f.write_str("nobody"),
            Some((only, [])) => f.write_str(only),
            Some((last, others)) => write!(f, "{} and {last}", others.join(", ")),
        }
    }
}
