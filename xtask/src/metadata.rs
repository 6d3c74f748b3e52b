//! What `cargo metadata` says of the workspace's own packages.

use std::path::PathBuf;

use serde_json::Value;

use crate::Outcome;
use crate::run::{cargo, output_of};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Workspace {
    pub(crate) target_directory: PathBuf,
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) rust_version: Option<String>,
    /// Whether others can depend on it: a library or a macro crate.
    pub(crate) is_library: bool,
    /// Every feature but `default`, sorted.
    pub(crate) features: Vec<String>,
}

/// Asks cargo.
pub(crate) fn read() -> Outcome<Workspace> {
    parse(&output_of(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?)
}

fn parse(json: &str) -> Outcome<Workspace> {
    let value: Value =
        serde_json::from_str(json).map_err(|error| format!("cargo metadata: {error}"))?;
    workspace(&value).ok_or_else(|| "cargo metadata: not the form of version 1".into())
}

fn workspace(value: &Value) -> Option<Workspace> {
    let target_directory = value["target_directory"].as_str()?.into();
    let packages = value["packages"].as_array()?.iter().map(package).collect::<Option<_>>()?;
    Some(Workspace { target_directory, packages })
}

fn package(value: &Value) -> Option<Package> {
    let mut features: Vec<String> = value["features"].as_object()?.keys().cloned().collect();
    features.retain(|feature| feature != "default");
    features.sort();
    let is_library = value["targets"].as_array()?.iter().any(|target| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        kinds.filter_map(Value::as_str).any(|kind| kind.ends_with("lib") || kind == "proc-macro")
    });
    Some(Package {
        name: value["name"].as_str()?.to_owned(),
        rust_version: value["rust_version"].as_str().map(str::to_owned),
        is_library,
        features,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "target_directory": "/somewhere/target",
        "packages": [
            {
                "name": "driver", "rust_version": "1.88",
                "features": { "zoo": [], "default": ["bytes"], "bytes": ["dep:bytes"] },
                "targets": [{ "kind": ["lib"] }, { "kind": ["test"] }]
            },
            { "name": "macros", "rust_version": "1.88", "features": {},
              "targets": [{ "kind": ["proc-macro"] }] },
            { "name": "program", "rust_version": null, "features": {},
              "targets": [{ "kind": ["bin"] }] }
        ]
    }"#;

    #[test]
    fn features_are_found_sorted_and_without_default() {
        let workspace = parse(JSON).unwrap();
        assert_eq!(workspace.target_directory, PathBuf::from("/somewhere/target"));
        assert_eq!(workspace.packages[0].features, ["bytes", "zoo"]);
        assert_eq!(workspace.packages[1].features, [""; 0]);
    }

    #[test]
    fn libraries_and_macro_crates_are_libraries_and_programs_are_not() {
        let workspace = parse(JSON).unwrap();
        let libraries: Vec<bool> = workspace.packages.iter().map(|p| p.is_library).collect();
        assert_eq!(libraries, [true, true, false]);
    }

    #[test]
    fn a_missing_rust_version_is_none() {
        let workspace = parse(JSON).unwrap();
        assert_eq!(workspace.packages[0].rust_version.as_deref(), Some("1.88"));
        assert_eq!(workspace.packages[2].rust_version, None);
    }

    #[test]
    fn what_is_not_metadata_is_an_error() {
        for json in ["", "[]", "{}", r#"{"target_directory": "x", "packages": [{}]}"#] {
            assert!(parse(json).unwrap_err().contains("cargo metadata"), "{json:?}");
        }
    }
}
